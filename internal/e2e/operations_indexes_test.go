package e2e_test

import (
	"go.mongodb.org/mongo-driver/v2/bson"
)

// index creates indexes from their specifications.
func (s *scene) index(coll string, specs ...bson.D) {
	s.t.Helper()
	list := bson.A{}
	for _, spec := range specs {
		list = append(list, spec)
	}
	s.run(d("createIndexes", coll, "indexes", list))
}

// everyIndex has an index of each kind. The stand-in has none of most.
func everyIndex() []bson.D {
	return []bson.D{
		d("key", d("n", 1), "name", "n_1"),
		d("key", d("n", -1, "word", 1), "name", "compound"),
		d("key", d("list", 1), "name", "multikey"),
		d("key", d("n", 1, "s", 1), "name", "sparse", "sparse", true),
		d("key", d("word", 1), "name", "partial", "partialFilterExpression", d("n", d("$gt", 5))),
		d("key", d("word", -1), "name", "collated", "collation", d("locale", "fr", "strength", 1)),
		d("key", d("word", "hashed"), "name", "hashed"),
		d("key", d("word", "text", "title", "text"), "name", "text", "weights", d("title", 5), "default_language", "german", "language_override", "lang"),
		d("key", d("at", "2dsphere"), "name", "sphere"),
		d("key", d("flat", "2d"), "name", "flat", "min", -500, "max", 500, "bits", 20),
		d("key", d("$**", 1), "name", "wildcard", "wildcardProjection", d("n", 1, "o", 1)),
		d("key", d("deep.$**", 1), "name", "wildcard deep"),
		d("key", d("hidden", 1), "name", "hidden", "hidden", true),
		d("key", d("u", 1), "name", "unique", "unique", true, "sparse", true),
		d("key", d("when", 1), "name", "ttl", "expireAfterSeconds", 1<<30),
		d("key", d("b", 1), "name", "background", "background", true),
	}
}

// indexOperations create and drop indexes.
func indexOperations() []operation {
	return []operation{
		{name: "indexes_loaded", before: func(s *scene) {
			s.some(s.coll("c"), 0, 20)
			s.index("c", everyIndex()...)
		}},
		{name: "indexes_on_empty", do: func(s *scene) {
			s.run(d("create", "c"))
			s.index("c", everyIndex()...)
			s.some(s.coll("c"), 0, 20)
		}},
		{name: "indexes_on_documents", before: func(s *scene) { s.some(s.coll("c"), 0, 200) }, do: func(s *scene) {
			s.index("c", everyIndex()...)
			s.some(s.coll("c"), 200, 220)
		}},
		{name: "indexes_create_collection", do: func(s *scene) { s.index("c", d("key", d("n", 1), "name", "n_1")) }},
		{name: "index_build_fails", before: func(s *scene) {
			s.some(s.coll("c"), 0, 20)
			s.insert("c", d("_id", "x", "n", 3))
		}, do: func(s *scene) {
			err := s.db().RunCommand(s.ctx, d("createIndexes", "c", "indexes", bson.A{d("key", d("n", 1), "name", "n", "unique", true)})).Err()
			if err == nil {
				s.t.Fatal("a unique index was built over duplicates")
			}
			s.index("c", d("key", d("n", 1), "name", "n"))
		}},
		{name: "drop_indexes", before: func(s *scene) {
			s.some(s.coll("c"), 0, 20)
			s.index("c", d("key", d("a", 1), "name", "a_1"), d("key", d("b", 1), "name", "b_1"), d("key", d("c", 1), "name", "c_1"), d("key", d("e", 1), "name", "e_1"))
			s.some(s.coll("all"), 0, 20)
			s.index("all", d("key", d("a", 1), "name", "a_1"), d("key", d("word", "text"), "name", "text"))
		}, do: func(s *scene) {
			s.run(d("dropIndexes", "c", "index", "a_1"))
			s.run(d("dropIndexes", "c", "index", d("b", 1)))
			s.run(d("dropIndexes", "c", "index", bson.A{"c_1"}))
			s.run(d("dropIndexes", "all", "index", "*"))
			s.index("c", d("key", d("a", -1), "name", "a_1"))
		}},
		{name: "unique_swap", before: func(s *scene) {
			s.insert("c", d("_id", 1, "u", "a"), d("_id", 2, "u", "b"))
			s.index("c", d("key", d("u", 1), "name", "u", "unique", true))
		}, do: func(s *scene) {
			for range 5 {
				s.update("c", d("_id", 1), d("$set", d("u", "t")))
				s.update("c", d("_id", 2), d("$set", d("u", "a")))
				s.update("c", d("_id", 1), d("$set", d("u", "b")))
				s.update("c", d("_id", 2), d("$set", d("u", "t")))
				s.update("c", d("_id", 1), d("$set", d("u", "a")))
				s.update("c", d("_id", 2), d("$set", d("u", "b")))
			}
		}},
		{name: "ttl_set_later", before: func(s *scene) {
			s.some(s.coll("c"), 0, 5)
			s.index("c", d("key", d("at", 1), "name", "at", "expireAfterSeconds", 1<<30))
		}, do: func(s *scene) {
			s.run(d("collMod", "c", "index", d("name", "at", "expireAfterSeconds", 1<<29)))
		}},
	}
}

// definitionOperations change what a collection is.
func definitionOperations() []operation {
	return []operation{
		{name: "coll_mod_validator", before: func(s *scene) {
			s.some(s.coll("c"), 0, 5)
			s.run(d("create", "validated", "validator", d("n", d("$gte", 0))))
		}, do: func(s *scene) {
			s.run(d("collMod", "c", "validator", d("n", d("$exists", true)), "validationLevel", "moderate"))
			s.run(d("collMod", "c", "validationAction", "warn"))
			s.run(d("collMod", "validated", "validator", d()))
			s.some(s.coll("validated"), 0, 5)
		}},
		{name: "coll_mod_hidden_index", before: func(s *scene) {
			s.some(s.coll("c"), 0, 5)
			s.index("c", d("key", d("a", 1), "name", "a_1"), d("key", d("b", 1), "name", "b_1", "hidden", true))
		}, do: func(s *scene) {
			s.run(d("collMod", "c", "index", d("name", "a_1", "hidden", true)))
			s.run(d("collMod", "c", "index", d("keyPattern", d("b", 1), "hidden", false)))
		}},
		{name: "coll_mod_pre_images", before: func(s *scene) { s.some(s.coll("c"), 0, 5) }, do: func(s *scene) {
			s.run(d("collMod", "c", "recordPreImages", true))
			s.update("c", d("_id", "1"), d("$inc", d("n", 1)))
		}},
		{name: "apply_ops_command", before: func(s *scene) { s.some(s.coll("c"), 0, 5) }, do: func(s *scene) {
			s.admin(d("applyOps", bson.A{
				d("op", "i", "ns", s.name+".c", "o", d("_id", "new", "n", 1)),
				d("op", "u", "ns", s.name+".c", "o2", d("_id", "1"), "o", d("$set", d("n", 9))),
				d("op", "d", "ns", s.name+".c", "o", d("_id", "2")),
			}))
		}},
	}
}
