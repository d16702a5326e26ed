package mongodb_test

import (
	"bytes"
	"cmp"
	"testing"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// The specs are as MongoDB 4.9 lists and logs them.
func TestCreatableIndex(t *testing.T) {
	for name, test := range map[string]struct {
		spec, want string // want is empty where nothing changes
	}{
		"plain":    {spec: `{"v": 2, "key": {"a": 1, "b": -1}, "name": "compound", "unique": true}`},
		"_id":      {spec: `{"v": 2, "key": {"_id": 1}, "name": "_id_"}`},
		"geo":      {spec: `{"v": 2, "key": {"loc": "2dsphere"}, "name": "geo", "2dsphereIndexVersion": 3}`},
		"hashed":   {spec: `{"v": 2, "key": {"a": "hashed"}, "name": "hash"}`},
		"wildcard": {spec: `{"v": 2, "key": {"$**": 1}, "name": "wild", "wildcardProjection": {"a": true, "_id": false}}`},
		"partial": {spec: `{"v": 2, "hidden": true, "key": {"a": -1}, "name": "partial", "partialFilterExpression": {"a": {"$gt": 5}},
			"collation": {"locale": "de", "caseLevel": false, "strength": 3, "version": "57.1"}}`},
		"ns goes": {
			spec: `{"v": 2, "key": {"a": 1}, "name": "a_1", "ns": "f.i", "sparse": true}`,
			want: `{"v": 2, "key": {"a": 1}, "name": "a_1", "sparse": true}`,
		},
		"text": {
			spec: `{"v": 2, "key": {"_fts": "text", "_ftsx": 1}, "name": "txt", "weights": {"t": 5},
				"default_language": "french", "language_override": "language", "textIndexVersion": 3}`,
			want: `{"v": 2, "key": {"t": "text"}, "name": "txt", "weights": {"t": 5},
				"default_language": "french", "language_override": "language", "textIndexVersion": 3}`,
		},
		"text between other keys": {
			spec: `{"v": 2, "key": {"a": 1, "_fts": "text", "_ftsx": 1, "z": -1}, "name": "txt", "weights": {"b.c": 1, "t": 5}, "textIndexVersion": 3}`,
			want: `{"v": 2, "key": {"a": 1, "b.c": "text", "t": "text", "z": -1}, "name": "txt", "weights": {"b.c": 1, "t": 5}, "textIndexVersion": 3}`,
		},
		"text of everything": {
			spec: `{"v": 2, "key": {"_fts": "text", "_ftsx": 1}, "name": "all", "weights": {"$**": 1}, "textIndexVersion": 3}`,
			want: `{"v": 2, "key": {"$**": "text"}, "name": "all", "weights": {"$**": 1}, "textIndexVersion": 3}`,
		},
		"a field that is called _fts": {spec: `{"v": 2, "key": {"_fts": 1}, "name": "x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := mongodb.CreatableIndex(raw(t, test.spec))
			if err != nil {
				t.Fatal(err)
			}
			if want := raw(t, cmp.Or(test.want, test.spec)); !bytes.Equal(got, want) {
				t.Errorf("got %s\nwant %s", got, want)
			}
		})
	}
	for name, spec := range map[string]bson.Raw{
		"torn":                 {9, 0, 0, 0},
		"text without weights": raw(t, `{"key": {"_fts": "text", "_ftsx": 1}, "name": "x"}`),
		"key is no document":   raw(t, `{"key": 1, "name": "x"}`),
	} {
		if got, err := mongodb.CreatableIndex(spec); err == nil {
			t.Errorf("%s: no error, got %s", name, got)
		}
	}
}

func TestExplicitCollation(t *testing.T) {
	collated := `{"collation": {"locale": "de"}}`
	for name, test := range map[string]struct{ spec, options, want string }{
		"no default":      {`{"key": {"a": 1}, "name": "a_1"}`, `{}`, `{"key": {"a": 1}, "name": "a_1"}`},
		"_id":             {`{"key": {"_id": 1}, "name": "_id_"}`, collated, `{"key": {"_id": 1}, "name": "_id_"}`},
		"has its own":     {`{"key": {"a": 1}, "name": "a_1", "collation": {"locale": "fr"}}`, collated, `{"key": {"a": 1}, "name": "a_1", "collation": {"locale": "fr"}}`},
		"compares binary": {`{"key": {"a": 1}, "name": "a_1"}`, collated, `{"key": {"a": 1}, "name": "a_1", "collation": {"locale": "simple"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := mongodb.ExplicitCollation(raw(t, test.spec), raw(t, test.options))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, raw(t, test.want)) {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// What the server makes of it: an index that compares binary stays one in a
// collection with a default collation, and is listed as at the source.
func TestExplicitCollationOnServer(t *testing.T) {
	server := testenv.RequireMongoD(t).NewDestination(t)
	db := server.Client.Database("shop")
	collation := options.Collation{Locale: "de"}
	if err := db.CreateCollection(t.Context(), "names", options.CreateCollection().SetCollation(&collation)); err != nil {
		t.Fatal(err)
	}
	entries, err := mongodb.ListCollections(t.Context(), server.Client, func(string, string) bool { return true })
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries: %v", len(entries), err)
	}
	specs := bson.A{}
	for _, text := range []string{
		`{"v": 2, "key": {"a": 1}, "name": "a_1"}`,
		`{"v": 2, "key": {"t": "text"}, "name": "txt", "weights": {"t": 1}}`,
	} {
		spec, err := mongodb.ExplicitCollation(raw(t, text), entries[0].Options)
		if err != nil {
			t.Fatal(err)
		}
		specs = append(specs, spec)
	}
	create := bson.D{{Key: "createIndexes", Value: "names"}, {Key: "indexes", Value: specs}}
	if err := db.RunCommand(t.Context(), create).Err(); err != nil {
		t.Fatal(err)
	}
	if entries, err = mongodb.ListCollections(t.Context(), server.Client, func(string, string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	for _, index := range entries[0].Indexes {
		name := index.Lookup("name").StringValue()
		if _, err := index.LookupErr("collation"); (err == nil) != (name == "_id_") {
			t.Errorf("listed as %s", index)
		}
	}
}
