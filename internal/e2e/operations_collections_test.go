package e2e_test

import (
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// collectionOperations create, convert and drop collections.
func collectionOperations() []operation {
	german := d("locale", "de", "strength", 2)
	return []operation{
		{name: "create", do: func(s *scene) { s.run(d("create", "c")) }},
		{name: "create_with_options", do: func(s *scene) {
			s.run(d("create", "validated", "validator", d("n", d("$gte", 0)), "validationLevel", "moderate", "validationAction", "warn"))
			s.run(d("create", "collated", "collation", german))
			s.run(d("create", "stored", "storageEngine", d("wiredTiger", d("configString", "block_compressor=zlib")),
				"indexOptionDefaults", d("storageEngine", d("wiredTiger", d("configString", "prefix_compression=true")))))
			for _, name := range []string{"validated", "collated", "stored"} {
				s.some(s.coll(name), 0, 5)
			}
		}},
		{name: "create_loaded_options", before: func(s *scene) {
			s.run(d("create", "validated", "validator", d("$jsonSchema", d("required", bson.A{"n"}))))
			s.run(d("create", "collated", "collation", german))
			s.some(s.coll("collated"), 0, 5)
		}, do: func(s *scene) {
			s.some(s.coll("collated"), 5, 8)
			s.update("collated", d("word", "WORD 1"), d("$set", d("word", "found by collation")))
		}},
		{name: "collated_ids", do: func(s *scene) {
			s.run(d("create", "c", "collation", german))
			s.insert("c", d("_id", "a", "n", 1), d("_id", "b", "n", 1))
			s.update("c", d("_id", "A"), d("$set", d("n", 2)))
			_, err := s.coll("c").DeleteOne(s.ctx, d("_id", "B"))
			s.must(err)
			s.insert("c", d("_id", "B", "n", 3))
		}},
		{name: "capped", ordered: []string{"c", "small"}, before: func(s *scene) {
			s.run(d("create", "c", "capped", true, "size", 1<<20, "max", 1000))
			s.some(s.coll("c"), 0, 50)
		}, do: func(s *scene) {
			for i := 50; i < 120; i += 7 {
				s.some(s.coll("c"), i, i+7)
			}
			s.update("c", d("_id", "60"), d("$set", d("n", int32(7))))
			s.run(d("create", "small", "capped", true, "size", 4096, "max", 10))
			s.some(s.coll("small"), 0, 25)
		}},
		{name: "validated_bypassed", before: func(s *scene) {
			s.some(s.coll("c"), 0, 5)
			s.run(d("collMod", "c", "validator", d("m", d("$exists", true))))
		}, do: func(s *scene) {
			s.run(d("insert", "c", "documents", bson.A{d("_id", "x")}, "bypassDocumentValidation", true))
		}},
		{name: "drop", before: func(s *scene) { s.some(s.coll("c"), 0, 5) }, do: func(s *scene) {
			s.some(s.coll("c"), 5, 8)
			s.must(s.coll("c").Drop(s.ctx))
		}},
		{name: "drop_and_recreate", before: func(s *scene) { s.some(s.coll("c"), 0, 20) }, do: func(s *scene) {
			for i := range 4 {
				s.must(s.coll("c").Drop(s.ctx))
				if i == 2 {
					s.run(d("create", "c", "capped", true, "size", 1<<16))
				}
				s.some(s.coll("c"), i, i+10)
			}
		}},
		{name: "drop_database", databases: 2, before: func(s *scene) {
			s.some(s.coll("a"), 0, 5)
			s.some(s.coll("b"), 0, 5)
			s.run(d("create", "v", "viewOn", "a", "pipeline", bson.A{}))
			s.some(s.other(2).Collection("a"), 0, 5)
		}, do: func(s *scene) {
			s.must(s.db().Drop(s.ctx))
			s.must(s.other(2).Drop(s.ctx))
			s.some(s.coll("a"), 3, 9)
		}},
		{name: "views", before: func(s *scene) {
			s.some(s.coll("c"), 0, 5)
			s.run(d("create", "old", "viewOn", "c", "pipeline", bson.A{d("$match", d("n", 1))}))
		}, do: func(s *scene) {
			s.run(d("create", "new", "viewOn", "c", "pipeline", bson.A{d("$project", d("n", 1))}, "collation", german))
			s.run(d("create", "of_view", "viewOn", "new", "pipeline", bson.A{}, "collation", german))
			s.run(d("collMod", "old", "viewOn", "c", "pipeline", bson.A{d("$match", d("n", 2))}))
			s.run(d("create", "gone", "viewOn", "c", "pipeline", bson.A{}))
			s.must(s.coll("gone").Drop(s.ctx))
		}},
		{name: "first_view", before: func(s *scene) { s.some(s.coll("c"), 0, 5) }, do: func(s *scene) {
			s.run(d("create", "v", "viewOn", "c", "pipeline", bson.A{d("$match", d("n", 1))}))
		}},
		{name: "convert_to_capped", ordered: []string{"c"}, before: func(s *scene) {
			s.some(s.coll("c"), 0, 30)
		}, do: func(s *scene) {
			s.some(s.coll("c"), 30, 40)
			s.run(d("convertToCapped", "c", "size", 1<<16))
			s.some(s.coll("c"), 40, 50)
		}},
		{name: "clone_as_capped", ordered: []string{"copy"}, before: func(s *scene) { s.some(s.coll("c"), 0, 30) }, do: func(s *scene) {
			s.run(d("cloneCollectionAsCapped", "c", "toCollection", "copy", "size", 1<<16))
			s.some(s.coll("copy"), 40, 50)
		}},
		{name: "aggregate_out", databases: 2, before: func(s *scene) {
			s.some(s.coll("c"), 0, 30)
			s.some(s.coll("replaced"), 100, 110)
		}, do: func(s *scene) {
			for _, stage := range []any{d("$out", "new"), d("$out", "replaced"), d("$merge", d("into", "merged"))} {
				cursor, err := s.coll("c").Aggregate(s.ctx, mongo.Pipeline{d("$match", d("n", d("$lt", 10))), stage.(bson.D)}) //nolint:errcheck,forcetypeassert // They are written above.
				s.must(err)
				s.must(cursor.Close(s.ctx))
			}
		}},
	}
}

// renameOperations rename collections.
func renameOperations() []operation {
	return []operation{
		{name: "rename", before: func(s *scene) { s.some(s.coll("a"), 0, 20) }, do: func(s *scene) {
			s.some(s.coll("a"), 20, 25)
			s.rename(s.coll("a"), s.coll("b"), false)
			s.some(s.coll("b"), 25, 30)
			s.some(s.coll("a"), 0, 5)
		}},
		{name: "rename_over_existing", before: func(s *scene) {
			s.some(s.coll("a"), 0, 20)
			s.some(s.coll("b"), 10, 40)
		}, do: func(s *scene) {
			s.update("b", d("_id", "12"), d("$set", d("lost", true)))
			s.rename(s.coll("a"), s.coll("b"), true)
			s.update("b", d("_id", "12"), d("$set", d("kept", true)))
		}},
		{name: "rename_swap", before: func(s *scene) {
			s.some(s.coll("a"), 0, 20)
			s.some(s.coll("b"), 10, 40)
		}, do: func(s *scene) {
			s.rename(s.coll("a"), s.coll("t"), false)
			s.rename(s.coll("b"), s.coll("a"), false)
			s.rename(s.coll("t"), s.coll("b"), false)
			s.some(s.coll("a"), 50, 55)
			s.some(s.coll("b"), 50, 55)
		}},
		{name: "rename_with_indexes", before: func(s *scene) {
			s.some(s.coll("a"), 0, 20)
			s.index("a", d("key", d("n", 1), "name", "by n", "sparse", true))
		}, do: func(s *scene) { s.rename(s.coll("a"), s.coll("b"), false) }},
		{name: "rename_across", databases: 2, before: func(s *scene) {
			s.some(s.coll("a"), 0, 20)
			s.index("a", d("key", d("n", 1), "name", "n_1"))
		}, do: func(s *scene) {
			s.rename(s.coll("a"), s.other(2).Collection("a"), false)
			_, err := s.other(2).Collection("a").UpdateMany(s.ctx, d(), d("$set", d("moved", true)))
			s.must(err)
			s.some(s.other(2).Collection("a"), 20, 25)
		}},
		{name: "rename_across_over_existing", databases: 2, before: func(s *scene) {
			s.some(s.coll("a"), 0, 20)
			s.some(s.other(2).Collection("a"), 50, 60)
		}, do: func(s *scene) { s.rename(s.coll("a"), s.other(2).Collection("a"), true) }},
		{name: "rename_in", before: func(s *scene) { s.some(s.outside(), 0, 20) }, do: func(s *scene) {
			s.some(s.outside(), 20, 25)
			s.rename(s.outside(), s.coll("in"), false)
			s.update("in", d("_id", "3"), d("$set", d("arrived", true)))
		}},
		{name: "rename_out", before: func(s *scene) { s.some(s.coll("a"), 0, 20) }, do: func(s *scene) {
			s.rename(s.coll("a"), s.outside(), false)
			s.some(s.outside(), 20, 25)
			s.some(s.coll("b"), 0, 5)
		}},
	}
}

// outside is a collection that no pipeline follows.
func (s *scene) outside() *mongo.Collection {
	return s.client.Database(unselected).Collection(fmt.Sprint("of ", s.name))
}
