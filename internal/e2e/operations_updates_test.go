package e2e_test

import (
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// updates is an operation that changes one document, {_id: 1}, again and again.
func updates(name string, standin bool, doc bson.D, changes ...any) operation {
	return operation{
		name: name, standin: standin,
		// Every change meets a document of its own, and then all of them one.
		before: func(s *scene) {
			s.insert("c", append(d("_id", "all"), doc...))
			for i := range changes {
				s.insert("c", append(d("_id", fmt.Sprint(i)), doc...))
			}
		},
		do: func(s *scene) {
			for i, change := range changes {
				filters := options.UpdateOne()
				if f, ok := change.(filtered); ok {
					change = f.change
					filters.SetArrayFilters([]any{f.filter})
				}
				for _, id := range []string{fmt.Sprint(i), "all"} {
					query := d("_id", id)
					c := change
					if p, ok := change.(positional); ok {
						query, c = append(query, p.query...), p.change
					}
					s.update("c", query, c, filters)
				}
			}
		},
	}
}

// filtered is an update with an array filter.
type filtered struct{ change, filter bson.D }

// positional is an update whose query finds the array's position.
type positional struct{ query, change bson.D }

// updateOperations are those by operators outside of arrays.
func updateOperations() []operation {
	doc := d("a", 1, "b", d("x", 1, "y", d("z", "deep")), "n", int64(5), "f", 2.5, "s", "text", "e", d())
	return []operation{
		updates("update_set", true, doc,
			d("$set", d("a", 2)), d("$set", d("new", 1)), d("$set", d("b.x", "other type")), d("$set", d("b.y.z", nil)),
			d("$set", d("b", 1)), d("$set", d("e.first", d("b", 1, "a", 2))),
			d("$set", d("z", 1, "c", 2, "y", 3))),
		updates("update_set_deep", false, doc, d("$set", d("p.q.r", 1)), d("$set", d("b.new.q", 1, "b.x", 2)), d("$set", d("zz", 1, "aa.b", 1, "aa.a", 2))),
		updates("update_unset", true, doc, d("$unset", d("a", "")), d("$unset", d("n", "", "f", "")), d("$unset", d("none", ""))),
		updates("update_unset_deep", false, doc, d("$unset", d("b.y.z", "")), d("$unset", d("b.x", "", "b.y", ""))),
		updates("update_unset_then_set", true, doc, d("$unset", d("a", "")), d("$set", d("a", 1)), d("$unset", d("b", "")), d("$set", d("b", d("x", 9)))),
		updates("update_numbers", false, doc,
			d("$inc", d("n", 1)), d("$inc", d("a", int64(1)<<40)), d("$inc", d("f", bson.NewDecimal128(0x3040000000000000, 1))), d("$mul", d("f", 1.5)),
			d("$mul", d("none", 2)), d("$min", d("n", 1)), d("$max", d("f", 100)), d("$bit", d("n", d("xor", int64(3)))), d("$inc", d("b.count", 1))),
		updates("update_rename", false, doc, d("$rename", d("a", "z")), d("$rename", d("b.x", "b.w")), d("$rename", d("s", "b.s")), d("$rename", d("b.s", "top"))),
		updates("update_current_date", false, doc, d("$currentDate", d("at", true)), d("$currentDate", d("ts", d("$type", "timestamp"), "b.at", true))),
		updates("update_many_operators", false, doc,
			d("$set", d("q", 1, "b.q", 2), "$unset", d("a", ""), "$inc", d("n", 1), "$rename", d("s", "t"), "$min", d("f", -1.0), "$currentDate", d("at", true))),
		updates("update_same_value", false, doc, d("$set", d("a", 1)), d("$set", d("a", 1.0)), d("$set", d("a", 1.0, "n", 6))),
		{name: "update_many", before: func(s *scene) { s.some(s.coll("c"), 0, 200) }, do: func(s *scene) {
			_, err := s.coll("c").UpdateMany(s.ctx, d("n", d("$mod", bson.A{3, 1})), d("$inc", d("n", 100), "$set", d("touched", true)))
			s.must(err)
		}},
	}
}

// arrayOperations change arrays.
func arrayOperations() []operation {
	doc := d("l", bson.A{3, 1, 2, 5, 4}, "w", bson.A{"a", "b", "c"}, "o", bson.A{d("k", 1, "v", 1), d("k", 2, "v", 2), d("k", 3, "v", bson.A{1, 2})}, "e", bson.A{})
	return []operation{
		updates("array_push", false, doc,
			d("$push", d("l", 9)), d("$push", d("new", 1)), d("$push", d("e", d("$each", bson.A{1, 2, 3}))),
			d("$push", d("l", d("$each", bson.A{7, 8}, "$position", 1))), d("$push", d("l", d("$each", bson.A{7, 8}, "$position", -1))),
			d("$push", d("l", d("$each", bson.A{6}, "$sort", -1))), d("$push", d("o.2.v", 3)), d("$push", d("o", d("$each", bson.A{d("k", 0)}, "$sort", d("k", 1))))),
		updates("array_slice", false, doc,
			d("$push", d("l", d("$each", bson.A{}, "$slice", 2))), d("$push", d("w", d("$each", bson.A{"x"}, "$slice", -2))),
			d("$push", d("o", d("$each", bson.A{}, "$slice", 1))), d("$push", d("l", d("$each", bson.A{}, "$slice", 0)))),
		updates("array_pop", false, doc, d("$pop", d("l", 1)), d("$pop", d("l", -1)), d("$pop", d("e", 1)), d("$pop", d("o.2.v", -1))),
		updates("array_pull", false, doc,
			d("$pull", d("l", d("$gt", 2))), d("$pullAll", d("l", bson.A{1, 2})), d("$pull", d("o", d("k", d("$lt", 3)))), d("$pull", d("w", "none"))),
		updates("array_add_to_set", false, doc, d("$addToSet", d("l", 3)), d("$addToSet", d("w", d("$each", bson.A{"a", "z", "y"}))), d("$addToSet", d("none", 1))),
		updates("array_positions", false, doc,
			d("$set", d("l.0", 9)), d("$set", d("l.1", "x", "o.1.v", "y")), d("$set", d("l.7", 1)), d("$unset", d("l.2", "")), d("$set", d("o.0.new.deep", 1)),
			d("$set", d("e.3", 1))),
		updates("array_positional", false, doc,
			positional{d("l", d("$gt", 1)), d("$set", d("l.$", 100))}, positional{d("o.k", 2), d("$set", d("o.$.v", "found"))},
			d("$inc", d("l.$[]", 1)), d("$set", d("o.$[].all", true)),
			filtered{d("$set", d("o.$[i].v", "filtered")), d("i.k", d("$gte", 2))}, filtered{d("$unset", d("l.$[i]", "")), d("i", d("$gt", 4))}),
		updates("array_truncated", false, doc,
			mongo.Pipeline{d("$set", d("l", d("$slice", bson.A{"$l", 2})))}, mongo.Pipeline{d("$set", d("o", d("$slice", bson.A{"$o", 2})))},
			mongo.Pipeline{d("$set", d("l", bson.A{}))}, mongo.Pipeline{d("$set", d("w", d("$concatArrays", bson.A{d("$slice", bson.A{"$w", 1}), bson.A{"q"}})))},
			mongo.Pipeline{d("$set", d("o", d("$map", d("input", d("$slice", bson.A{"$o", 2}), "in", d("k", "$$this.k", "v", 0)))))}),
		updates("array_replaced_by_object", false, doc, d("$set", d("l", d("0", 1))), d("$set", d("l.0", 2, "l.1", 3)), d("$set", d("l", bson.A{1, 2, 3})), d("$set", d("l.1", bson.A{4}))),
		updates("array_nested", false, d("m", bson.A{bson.A{1, 2}, bson.A{3, bson.A{4, 5}}}),
			d("$set", d("m.0.1", 9)), d("$push", d("m.1.1", 6)), d("$pull", d("m.0", 1)), d("$inc", d("m.1.0", 1)), d("$set", d("m.3.2", "grown"))),
	}
}

// pipelineOperations are updates by aggregation pipelines.
func pipelineOperations() []operation {
	doc := d("a", 1, "b", 2, "o", d("x", 1, "y", bson.A{1, 2, 3}), "s", "text", "big", d("k", "a rather long text that stays as it is, so that a diff pays"))
	return []operation{
		updates("pipeline_set", false, doc,
			mongo.Pipeline{d("$set", d("sum", d("$add", bson.A{"$a", "$b"})))}, mongo.Pipeline{d("$set", d("o.x", "$a", "o.z", "$b"))},
			mongo.Pipeline{d("$set", d("a", "$b", "b", "$a"))}, mongo.Pipeline{d("$set", d("o.y", d("$reverseArray", "$o.y")))}),
		updates("pipeline_unset", false, doc,
			mongo.Pipeline{d("$unset", bson.A{"a", "o.x"})}, mongo.Pipeline{d("$unset", "o")}, mongo.Pipeline{d("$unset", "o"), d("$set", d("o", 1))},
			mongo.Pipeline{d("$project", d("s", 1, "o", 1))}),
		updates("pipeline_replace", false, doc,
			mongo.Pipeline{d("$replaceWith", d("_id", "$_id", "b", "$b", "a", "$a"))},
			mongo.Pipeline{d("$replaceWith", d("$mergeObjects", bson.A{"$$ROOT", d("merged", true)}))},
			mongo.Pipeline{d("$replaceWith", d("new", "$$ROOT"))}),
		orderUnseen(updates("pipeline_order", false, doc,
			mongo.Pipeline{d("$replaceWith", d("_id", "$_id", "big", "$big", "o", "$o", "b", "$b", "a", "$a"))},
			mongo.Pipeline{d("$set", d("o", d("y", "$o.y", "x", "$o.x", "big", "$big")))},
			mongo.Pipeline{d("$set", d("z", 1, "m", 2, "c", 3))})),
	}
}

func orderUnseen(o operation) operation {
	o.orderUnseen = true
	return o
}
