package e2e_test

import (
	"context"
	"fmt"
	"math"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// documentOperations write whole documents.
func documentOperations() []operation {
	return []operation{
		{
			name: "load", standin: true,
			before: func(s *scene) { s.some(s.coll("c"), 0, 300) },
		},
		{
			name: "insert_one", standin: true,
			do: func(s *scene) { s.insert("c", d("_id", "1", "z", 1, "a", 2)) },
		},
		{
			name: "insert_many", standin: true,
			before: func(s *scene) { s.some(s.coll("c"), 0, 10) },
			do:     func(s *scene) { s.some(s.coll("c"), 10, 400) },
		},
		{
			name: "insert_types",
			do:   func(s *scene) { s.insert("c", everyType()) },
		},
		{
			name: "insert_types_standin", standin: true,
			do: func(s *scene) {
				s.insert("c", d("_id", "1", "double", 1.5, "string", "x\x00y", "doc", d("b", 1, "a", d()), "array", bson.A{1, "x", nil},
					"binary", bson.Binary{Subtype: 0x80, Data: []byte{1, 2}}, "bool", true, "date", bson.DateTime(-1), "null", nil,
					"regex", bson.Regex{Pattern: "^a", Options: "i"}, "int", int32(1), "long", int64(1)<<40, "timestamp", bson.Timestamp{T: 1, I: 2}))
			},
		},
		{
			name: "id_not_first",
			do: func(s *scene) {
				s.insert("c", bson.Raw(raw(s, d("b", 1, "_id", 1, "a", 2))))
				s.must(s.coll("c").FindOneAndUpdate(s.ctx, byID(1), mongo.Pipeline{{{Key: "$replaceWith", Value: d("z", "$b", "_id", "$_id", "y", "$a")}}}).Err())
			},
		},
		{
			name: "empty_timestamp",
			do: func(s *scene) {
				s.insert("c", d("_id", 1, "at", bson.Timestamp{}, "in", d("at", bson.Timestamp{})))
				s.update("c", byID(1), d("$set", d("deep.at", bson.Timestamp{})))
			},
		},
		{
			name: "replace", standin: true,
			before: func(s *scene) { s.some(s.coll("c"), 0, 10) },
			do: func(s *scene) {
				for i := range 5 {
					_, err := s.coll("c").ReplaceOne(s.ctx, d("_id", fmt.Sprint(i)), d("z", i, "word", "replaced", "a", bson.A{i}))
					s.must(err)
				}
			},
		},
		{
			name: "delete", standin: true,
			before: func(s *scene) { s.some(s.coll("c"), 0, 30) },
			do: func(s *scene) {
				_, err := s.coll("c").DeleteOne(s.ctx, d("_id", "3"))
				s.must(err)
				_, err = s.coll("c").DeleteMany(s.ctx, d("n", d("$gt", 20)))
				s.must(err)
				s.insert("c", d("_id", "3", "again", true))
			},
		},
		{
			name:   "upsert",
			before: func(s *scene) { s.some(s.coll("c"), 0, 3) },
			do: func(s *scene) {
				upsert := options.UpdateOne().SetUpsert(true)
				s.update("c", d("_id", "new", "from", "query"), d("$set", d("b", 1), "$setOnInsert", d("a", 1)), upsert)
				s.update("c", d("_id", "1"), d("$set", d("b", 1), "$setOnInsert", d("a", 1)), upsert)
				s.update("c", d("n", 77), d("$inc", d("m", 1)), upsert)
				_, err := s.coll("c").ReplaceOne(s.ctx, d("_id", "whole"), d("z", 1, "a", 1), options.Replace().SetUpsert(true))
				s.must(err)
				s.update("c", d("_id", "piped"), mongo.Pipeline{d("$set", d("x", d("$add", bson.A{1, 2})))}, upsert)
			},
		},
		{
			name:   "find_and_modify",
			before: func(s *scene) { s.some(s.coll("c"), 0, 10) },
			do: func(s *scene) {
				s.must(s.coll("c").FindOneAndUpdate(s.ctx, d("_id", "1"), d("$inc", d("n", 5))).Err())
				s.must(s.coll("c").FindOneAndReplace(s.ctx, d("_id", "2"), d("z", 1)).Err())
				s.must(s.coll("c").FindOneAndDelete(s.ctx, d("_id", "3")).Err())
				s.must(s.coll("c").FindOneAndUpdate(s.ctx, d("_id", "new"), d("$set", d("n", 1)),
					options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)).Err())
			},
		},
		{
			name:   "bulk_write",
			before: func(s *scene) { s.some(s.coll("c"), 0, 10) },
			do: func(s *scene) {
				for _, ordered := range []bool{true, false} {
					_, err := s.coll("c").BulkWrite(s.ctx, []mongo.WriteModel{
						mongo.NewInsertOneModel().SetDocument(d("_id", fmt.Sprint("bulk", ordered), "n", 1)),
						mongo.NewUpdateOneModel().SetFilter(d("_id", "1")).SetUpdate(d("$inc", d("n", 1))),
						mongo.NewUpdateManyModel().SetFilter(d("n", d("$gt", 3))).SetUpdate(d("$set", d("many", ordered))),
						mongo.NewReplaceOneModel().SetFilter(d("_id", "2")).SetReplacement(d("x", ordered)),
						mongo.NewDeleteOneModel().SetFilter(d("n", 9)),
					}, options.BulkWrite().SetOrdered(ordered))
					s.must(err)
				}
			},
		},
		{name: "retryable_writes", before: func(s *scene) { s.some(s.coll("c"), 0, 10) }, do: retryable},
		{
			name: "one_document_often", standin: true,
			before: func(s *scene) { s.insert("c", d("_id", "1", "n", int64(0))) },
			do: func(s *scene) {
				for i := range 40 {
					s.update("c", d("_id", "1"), d("$inc", d("n", int64(1)), "$set", d(fmt.Sprint("f", i%7), i), "$unset", d(fmt.Sprint("f", (i+3)%7), "")))
				}
				_, err := s.coll("c").DeleteOne(s.ctx, d("_id", "1"))
				s.must(err)
				s.insert("c", d("_id", "1", "again", true))
				s.update("c", d("_id", "1"), d("$set", d("n", 2)))
			},
		},
	}
}

// raw is a document's bytes.
func raw(s *scene, v any) []byte {
	b, err := bson.Marshal(v)
	s.must(err)
	return b
}

// everyType holds every type that a server stores.
func everyType() bson.D {
	return d(
		"_id", 1, "double", 1.5, "nan", math.Float64frombits(0x7ff8000000000123), "negative_zero", math.Copysign(0, -1), "infinity", math.Inf(1),
		"string", "a\x00b", "document", d("", 1, "b", d()), "array", bson.A{1, bson.A{2}, d("x", nil)},
		"binary", bson.Binary{Data: []byte{1}}, "old_binary", bson.Binary{Subtype: 2, Data: []byte{1, 2, 3}}, "uuid", bson.Binary{Subtype: 4, Data: make([]byte, 16)},
		"undefined", bson.Undefined{}, "id", bson.ObjectID{1, 2}, "bool", false, "date", bson.DateTime(math.MinInt64), "null", nil,
		"regex", bson.Regex{Pattern: "a/b", Options: "imx"}, "pointer", bson.DBPointer{DB: "db.c", Pointer: bson.ObjectID{3}},
		"code", bson.JavaScript("x()"), "symbol", bson.Symbol("s"), "scope", bson.CodeWithScope{Code: "x", Scope: d("a", 1)},
		"int", int32(math.MinInt32), "timestamp", bson.Timestamp{T: 7, I: 8}, "long", int64(math.MaxInt64),
		"decimal", bson.NewDecimal128(0x3040000000000000, 5), "decimal_nan", bson.NewDecimal128(0x7c00000000000000, 0),
		"min", bson.MinKey{}, "max", bson.MaxKey{},
	)
}

// retryable writes as drivers do by default: with a transaction number each.
func retryable(s *scene) {
	// A client of its own: others do not expect the session's numbers to have
	// gone on.
	client, err := mongo.Connect(options.Client().ApplyURI(s.uri))
	s.must(err)
	defer func() { s.must(client.Disconnect(s.ctx)) }()
	session, err := client.StartSession()
	s.must(err)
	defer session.EndSession(s.ctx)
	for i, command := range []bson.D{
		d("insert", "c", "documents", bson.A{d("_id", "r", "n", 1)}),
		d("update", "c", "updates", bson.A{d("q", d("_id", "1"), "u", d("$inc", d("n", 1)))}),
		d("findAndModify", "c", "query", d("_id", "2"), "update", d("$set", d("n", 5))),
		d("findAndModify", "c", "query", d("_id", "3"), "remove", true),
		d("delete", "c", "deletes", bson.A{d("q", d("_id", "4"), "limit", 1)}),
	} {
		command = append(command, bson.E{Key: "txnNumber", Value: int64(i + 1)})
		// The second time is the retry, which changes nothing.
		for range 2 {
			s.must(mongo.WithSession(s.ctx, session, func(ctx context.Context) error {
				return client.Database(s.name).RunCommand(ctx, command).Err()
			}))
		}
	}
}

// idOperations write documents with every kind of _id.
func idOperations() []operation {
	ids := []any{
		1, int64(2), 3.5, bson.NewDecimal128(0x3040000000000000, 4), "text",
		bson.ObjectID{1},
		true, bson.DateTime(5),
		bson.Timestamp{T: 1, I: 2},
		bson.Binary{Subtype: 4, Data: make([]byte, 16)},
		bson.Binary{Data: []byte("x")},
		nil,
		bson.MinKey{},
		bson.MaxKey{},
		d("a", 1, "b", bson.A{1}), d(),
		bson.JavaScript("x"), bson.Symbol("s"), math.NaN(), math.Inf(-1),
		bson.CodeWithScope{Code: "x", Scope: d()},
		"", d("n", d("x", "1")),
	}
	change := func(s *scene, ids []any) {
		for i, id := range ids {
			s.insert("c", d("_id", id, "n", i, "word", "first"))
		}
		for i, id := range ids {
			s.update("c", byID(id), d("$set", d("word", fmt.Sprint("second ", i)), "$inc", d("n", 1)))
		}
		for i, id := range ids {
			if i%3 == 0 {
				_, err := s.coll("c").DeleteOne(s.ctx, byID(id))
				s.must(err)
			}
		}
	}
	return []operation{
		{name: "id_types_loaded", before: func(s *scene) { change(s, ids) }, do: func(s *scene) {
			_, err := s.coll("c").UpdateMany(s.ctx, d(), d("$set", d("all", true)))
			s.must(err)
		}},
		{name: "id_types", do: func(s *scene) { change(s, ids) }},
		{name: "id_equal_numbers", before: func(s *scene) { s.insert("c", d("_id", 1, "n", 1), d("_id", 2.0, "n", 2)) }, do: func(s *scene) {
			s.update("c", d("_id", int64(1)), d("$set", d("x", 1)))
			_, err := s.coll("c").DeleteOne(s.ctx, d("_id", 1.0))
			s.must(err)
			s.insert("c", d("_id", 1.0, "n", "double now"))
			_, err = s.coll("c").ReplaceOne(s.ctx, d("_id", 2), d("_id", 2, "n", "replaced"))
			s.must(err)
		}},
	}
}

// nameOperations write names that look like paths and operators.
func nameOperations() []operation {
	return []operation{
		{name: "dotted_names", before: func(s *scene) { s.insert("c", d("_id", 1, "in", d("a.b", 1, "a", d("b", 2)))) }, do: func(s *scene) {
			s.insert("c", d("_id", 2, "in", d("x.y", 1, "", 2, "0", 3)))
			s.update("c", byID(1), d("$set", d("in.a.b", 3)))
			s.update("c", byID(2), mongo.Pipeline{d("$set", d("in", d("$arrayToObject", bson.A{bson.A{bson.A{"x.y", 2}, bson.A{"z", 1}}})))})
			s.update("c", byID(2), d("$set", d("in.z", 2)))
		}},
		{name: "dollar_names", do: func(s *scene) {
			s.insert("c", d("_id", 1, "in", d("$a", 1, "b", d("$c", 2))))
			s.update("c", byID(1), d("$set", d("n", 1)))
			s.update("c", byID(1), d("$set", d("in.b.x", 1)))
		}},
		{name: "number_names", before: func(s *scene) {
			s.insert("c", d("_id", 1, "a", bson.A{1, d("0", "x")}, "o", d("0", 1, "1", d("0", 2))))
		}, do: func(s *scene) {
			s.update("c", byID(1), d("$set", d("a.0", 5, "o.0", 6, "o.1.0", 7, "a.1.0", "y")))
			s.update("c", byID(1), d("$unset", d("o.0", "")))
			s.update("c", byID(1), d("$set", d("o.2", 1, "a.4", 1)))
		}},
		{name: "empty_and_duplicate_names", do: func(s *scene) {
			s.insert("c", bson.Raw(raw(s, d("_id", 1, "x", 1, "x", 2, "", d("", 3)))))
			s.update("c", byID(1), d("$set", d("y", 1)))
		}},
	}
}
