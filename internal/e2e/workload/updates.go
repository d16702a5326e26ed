package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// operators makes an update of one document from what it does.
func operators(make func(r *rand.Rand) any) update {
	return func(ctx context.Context, coll *mongo.Collection, filter bson.D, r *rand.Rand) error {
		_, err := coll.UpdateOne(ctx, filter, make(r))
		return err
	}
}

// one is {operator: {field: value}}.
func one(operator, field string, value any) bson.D {
	return bson.D{{Key: operator, Value: bson.D{{Key: field, Value: value}}}}
}

// simpleUpdates are understood by every server. They touch fields that a
// document of any kind may have or not have.
func simpleUpdates() []update {
	return []update{
		operators(func(r *rand.Rand) any { return one("$set", "status", status(r)) }),
		operators(func(r *rand.Rand) any { return one("$set", "address.city", city(r)) }),
		operators(func(r *rand.Rand) any {
			return bson.D{{Key: "$set", Value: bson.D{
				{Key: fmt.Sprintf("extra_%d", r.IntN(5)), Value: text(r, 3)},
				{Key: "changed", Value: date(r)},
			}}}
		}),
		operators(func(r *rand.Rand) any { return one("$set", "tags.0", word(r)) }),
		operators(func(r *rand.Rand) any { return one("$inc", "views", int64(1+r.IntN(9))) }),
		operators(func(r *rand.Rand) any { return one("$push", "tags", word(r)) }),
		operators(func(*rand.Rand) any { return one("$pop", "tags", -1) }),
		operators(func(r *rand.Rand) any { return one("$unset", fmt.Sprintf("extra_%d", r.IntN(5)), "") }),
		operators(func(r *rand.Rand) any {
			return bson.D{
				{Key: "$inc", Value: bson.D{{Key: "views", Value: int64(1)}}},
				{Key: "$set", Value: bson.D{{Key: "address.note", Value: word(r)}}},
				{Key: "$unset", Value: bson.D{{Key: "note", Value: ""}}},
			}
		}),
		func(ctx context.Context, coll *mongo.Collection, filter bson.D, r *rand.Rand) error {
			// The fields of another kind: every index still takes it.
			_, err := coll.ReplaceOne(ctx, filter, append(pageview(r, 0), bson.E{Key: "email", Value: fmt.Sprint(filter[0].Value)}))
			return err
		},
	}
}

// counterUpdates are those of a few hot documents.
func counterUpdates() []update {
	return []update{
		operators(func(*rand.Rand) any { return one("$inc", "views", int64(1)) }),
		operators(func(r *rand.Rand) any { return one("$inc", fmt.Sprintf("hours.h%02d", r.IntN(24)), int32(1)) }),
		operators(func(r *rand.Rand) any { return one("$set", "best", r.Float64()) }),
	}
}

// realUpdates need a real server.
func realUpdates() []update {
	return []update{
		operators(func(r *rand.Rand) any {
			return one("$push", "tags", bson.D{
				{Key: "$each", Value: bson.A{word(r), word(r)}}, {Key: "$position", Value: 0}, {Key: "$slice", Value: 6},
			})
		}),
		func(ctx context.Context, coll *mongo.Collection, filter bson.D, r *rand.Rand) error {
			// Refused where there is no such array.
			filter = append(filter, bson.E{Key: "items.quantity", Value: bson.D{{Key: "$exists", Value: true}}})
			_, err := coll.UpdateOne(ctx, filter, one("$set", "items.$[i].quantity", int32(r.IntN(9))),
				options.UpdateOne().SetArrayFilters([]any{bson.D{{Key: "i.quantity", Value: bson.D{{Key: "$gt", Value: 1}}}}}))
			return err
		},
		operators(func(r *rand.Rand) any { return one("$addToSet", "tags", word(r)) }),
		operators(func(r *rand.Rand) any { return one("$pull", "tags", bson.D{{Key: "$lt", Value: word(r)}}) }),
		operators(func(*rand.Rand) any { return one("$rename", "extra_0", "extra_1") }),
		operators(func(r *rand.Rand) any { return one("$mul", "score", 0.5+r.Float64()) }),
		operators(func(*rand.Rand) any { return one("$currentDate", "changed", true) }),
		operators(func(r *rand.Rand) any {
			return mongo.Pipeline{
				{{Key: "$set", Value: bson.D{{Key: "computed", Value: bson.D{{Key: "$concat", Value: bson.A{word(r), "-", word(r)}}}}}}},
				{{Key: "$unset", Value: fmt.Sprintf("extra_%d", r.IntN(5))}},
			}
		}),
		operators(func(r *rand.Rand) any {
			return bson.D{{Key: "$set", Value: bson.D{
				{Key: "z", Value: 1}, {Key: "b", Value: r.IntN(9)}, {Key: "deep.er.field", Value: word(r)}, {Key: "deep.array", Value: bson.A{1, 2, 3}},
			}}, {Key: "$unset", Value: bson.D{{Key: "changed", Value: ""}}}}
		}),
		operators(func(r *rand.Rand) any {
			// Cuts the array to its first elements, if it is one.
			cut := bson.D{{Key: "$cond", Value: bson.A{
				bson.D{{Key: "$isArray", Value: "$tags"}}, bson.D{{Key: "$slice", Value: bson.A{"$tags", 1 + r.IntN(3)}}}, bson.A{},
			}}}
			return mongo.Pipeline{{{Key: "$set", Value: bson.D{{Key: "tags", Value: cut}}}}}
		}),
		operators(func(r *rand.Rand) any { return one("$set", "pad", strings.Repeat("pad ", r.IntN(10_000))) }),
		operators(func(*rand.Rand) any { return one("$unset", "pad", "") }),
		func(ctx context.Context, coll *mongo.Collection, filter bson.D, r *rand.Rand) error {
			_, err := coll.UpdateOne(ctx, filter, one("$setOnInsert", "upserted", word(r)), options.UpdateOne().SetUpsert(coll.Name() == "days"))
			return err
		},
		func(ctx context.Context, coll *mongo.Collection, filter bson.D, r *rand.Rand) error {
			err := coll.FindOneAndUpdate(ctx, filter, one("$set", "deep.er.other", r.IntN(100))).Err()
			if errors.Is(err, mongo.ErrNoDocuments) {
				return nil
			}
			return err
		},
	}
}
