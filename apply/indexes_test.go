package apply

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestIndexKinds builds indexes of every kind at a source, loads them as the
// source lists them, with one that no server builds among them, and compares
// what the destination lists before and after finalize.
func TestIndexKinds(t *testing.T) {
	r := realRig(t)
	ns := event.Namespace{DB: "shop", Coll: "orders"}
	key := func(fields ...bson.E) bson.D { return bson.D(fields) }
	french := bson.D{{Key: "locale", Value: "fr"}, {Key: "strength", Value: int32(1)}}
	specs := map[string]bson.D{
		"plain":        {{Key: "key", Value: key(field("a", 1), field("b", -1))}},
		"hidden":       {{Key: "key", Value: key(field("c", 1))}, {Key: "hidden", Value: true}},
		"sparse":       {{Key: "key", Value: key(field("d", 1))}, {Key: "sparse", Value: true}},
		"partial":      {{Key: "key", Value: key(field("e", 1))}, {Key: "partialFilterExpression", Value: bson.D{{Key: "e", Value: bson.D{{Key: "$gt", Value: 5}}}}}},
		"collated":     {{Key: "key", Value: key(field("f", 1))}, {Key: "collation", Value: french}},
		"unique":       {{Key: "key", Value: key(field("g", 1))}, {Key: "unique", Value: true}},
		"ttl":          {{Key: "key", Value: key(field("h", 1))}, {Key: "expireAfterSeconds", Value: int32(7200)}},
		"hashed":       {{Key: "key", Value: key(field("i", "hashed"), field("j", 1))}},
		"wildcard":     {{Key: "key", Value: key(field("$**", 1))}, {Key: "wildcardProjection", Value: bson.D{{Key: "k", Value: 1}}}},
		"wildcard_one": {{Key: "key", Value: key(field("l.$**", 1))}},
		"2d":           {{Key: "key", Value: key(field("m", "2d"))}, {Key: "bits", Value: int32(20)}, {Key: "min", Value: -90.0}, {Key: "max", Value: 90.0}},
		"2dsphere":     {{Key: "key", Value: key(field("n", "2dsphere"), field("o", 1))}, {Key: "2dsphereIndexVersion", Value: int32(2)}},
		"text": {
			{Key: "key", Value: key(field("p", 1), field("q", "text"), field("r.s", "text"), field("t", -1))},
			{Key: "weights", Value: bson.D{{Key: "r.s", Value: int32(5)}}},
			{Key: "default_language", Value: "none"},
			{Key: "language_override", Value: "lang"},
		},
		"multikey": {{Key: "key", Value: key(field("u.v", 1))}, {Key: "background", Value: true}},
	}
	source := event.Namespace{DB: "source", Coll: "orders"}
	var list bson.A
	for name, spec := range specs {
		list = append(list, append(spec, field("name", name)))
	}
	create := bson.D{{Key: "createIndexes", Value: source.Coll}, {Key: "indexes", Value: list}}
	if err := r.dest.Client.Database(source.DB).RunCommand(t.Context(), create).Err(); err != nil {
		t.Fatal(err)
	}
	want := r.listed(t, source)
	c := collection{ns: ns, uuid: event.UUID{6}, docs: []bson.Raw{raw(t, bson.D{{Key: "_id", Value: 1}, {Key: "u", Value: bson.A{bson.D{{Key: "v", Value: 2}}}}})}}
	for _, spec := range want {
		c.indexes = append(c.indexes, spec)
	}
	c.indexes = append(c.indexes, indexSpecOf(t, "no", bson.E{Key: "optionOfTheFuture", Value: true}))
	m := r.begin(t, c)
	s := r.start(t, "a")
	r.load(t, m, c)
	r.await(t, r.watermark(t), s)
	report := r.finalize(t, nil)
	outcome := map[string]string{"unique": IndexFinalized, "ttl": IndexFinalized, "no_1": IndexNotFinalized}
	if diff := cmp.Diff(outcome, outcomes(report)); diff != "" {
		t.Errorf("finalize (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(specTexts(want), specTexts(r.listed(t, ns))); diff != "" {
		t.Errorf("indexes (-want +got):\n%s", diff)
	}
	if _, err := indexBuilds(t.Context(), r.dest.Client); err != nil {
		t.Error(err)
	}
	s.stop(t)
}

// listed returns the indexes of a collection as the server lists them, by name.
func (r *rig) listed(t *testing.T, ns event.Namespace) map[string]bson.Raw {
	t.Helper()
	cursor, err := r.dest.Client.Database(ns.DB).Collection(ns.Coll).Indexes().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []bson.Raw
	if err := cursor.All(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	byName := map[string]bson.Raw{}
	for _, spec := range list {
		byName[spec.Lookup("name").StringValue()] = spec
	}
	return byName
}

func specTexts(specs map[string]bson.Raw) map[string]string {
	texts := map[string]string{}
	for name, spec := range specs {
		texts[name] = spec.String()
	}
	return texts
}
