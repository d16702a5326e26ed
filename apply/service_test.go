package apply

import (
	"fmt"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestLoadAndFollow goes through all phases: documents of a load, indexes, and
// changes of every kind behind it.
func TestLoadAndFollow(t *testing.T) {
	testenv.Each(t, func(t *testing.T, e testenv.Pair) {
		r := newRig(t, e)
		orders, users := event.Namespace{DB: "shop", Coll: "orders"}, event.Namespace{DB: "shop", Coll: "users"}
		loaded := []collection{{ns: orders}, {ns: users}}
		for i := range 40 {
			loaded[0].docs = append(loaded[0].docs, raw(t, bson.D{{Key: "_id", Value: fmt.Sprint(i)}, {Key: "n", Value: int32(i)}}))
		}
		m := r.begin(t, loaded...)
		s := r.start(t, "a")
		r.load(t, m, loaded...)
		r.publish(
			t,
			inserted(t, users, bson.D{{Key: "_id", Value: "u1"}, {Key: "name", Value: "Ann"}}),
			updated(t, users, "u1", bson.D{{Key: "u", Value: bson.D{{Key: "name", Value: "Anna"}}}}),
			updated(t, orders, "3", bson.D{{Key: "i", Value: bson.D{{Key: "state", Value: "paid"}}}}),
			deleted(t, orders, "4"),
			replaced(t, orders, bson.D{{Key: "_id", Value: "5"}, {Key: "other", Value: true}}),
		)
		r.await(t, r.watermark(t), s)
		want := append([]bson.Raw{}, loaded[0].docs...)
		want[3] = raw(t, bson.D{{Key: "_id", Value: "3"}, {Key: "n", Value: int32(3)}, {Key: "state", Value: "paid"}})
		want[5] = raw(t, bson.D{{Key: "_id", Value: "5"}, {Key: "other", Value: true}})
		want = append(want[:4], want[5:]...)
		r.same(t, orders, want)
		r.same(t, users, []bson.Raw{raw(t, bson.D{{Key: "_id", Value: "u1"}, {Key: "name", Value: "Anna"}})})

		// Again, strictly, over a restart.
		s.stop(t)
		r.publish(
			t,
			updated(t, users, "u1", bson.D{{Key: "i", Value: bson.D{{Key: "age", Value: int32(7)}}}}),
			deleted(t, orders, "5"),
			inserted(t, orders, bson.D{{Key: "_id", Value: "5"}, {Key: "again", Value: true}}),
		)
		s = r.start(t, "b")
		r.await(t, r.watermark(t), s)
		r.same(t, users, []bson.Raw{raw(t, bson.D{{Key: "_id", Value: "u1"}, {Key: "name", Value: "Anna"}, {Key: "age", Value: int32(7)}})})
		s.stop(t)
	})
}
