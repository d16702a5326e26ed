package apply

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/rules"
	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestExpiryMoved inserts a document, synchronises, lets it expire without the
// source having deleted it yet, and has the application move its expiry date.
// Under deferred expiry the destination still has the document. Under enforced
// expiry its own monitor has deleted it in between: the gap is found and the
// document asked for whole.
func TestExpiryMoved(t *testing.T) {
	for _, enforced := range []bool{false, true} {
		t.Run(fmt.Sprintf("enforced=%t", enforced), func(t *testing.T) {
			r := realRig(t, testenv.Args("--setParameter", "ttlMonitorSleepSecs=1"))
			r.edit = func(cfg *Config) { cfg.Rules.Indexes.TTL = enforced }
			c := collection{ns: event.Namespace{DB: "shop", Coll: "sessions"}, uuid: event.UUID{5}}
			c.indexes = []bson.Raw{indexSpecOf(t, "at", bson.E{Key: "expireAfterSeconds", Value: int32(0)})}
			m := r.begin(t, c)
			s := r.start(t, "a")
			r.load(t, m, c)
			r.await(t, r.watermark(t), s)
			testenv.Eventually(t, settled, func() error {
				if rules.TTLIndex(r.index(t, c.ns, "at_1")) != enforced {
					return errors.New("the index is not as the setting says")
				}
				return nil
			})
			past, future := bson.NewDateTimeFromTime(time.Now().Add(-time.Minute)), bson.NewDateTimeFromTime(time.Now().Add(time.Hour))
			doc := inserted(t, c.ns, bson.D{{Key: "_id", Value: "s"}, {Key: "at", Value: past}})
			doc.UUID = c.uuid
			r.publish(t, doc)
			r.await(t, r.watermark(t), s)
			if enforced {
				testenv.Eventually(t, settled, func() error {
					if len(r.held(t, c.ns)) > 0 {
						return errors.New("the destination has not expired the document yet")
					}
					return nil
				})
			}
			moved := updated(t, c.ns, "s", bson.D{{Key: "u", Value: bson.D{{Key: "at", Value: future}}}})
			moved.UUID = c.uuid
			r.publish(t, moved)
			r.await(t, r.watermark(t), s)
			want := inserted(t, c.ns, bson.D{{Key: "_id", Value: "s"}, {Key: "at", Value: future}})
			if enforced {
				n, err := r.dest.Client.Database(ownDatabase).Collection(requestsCollection).CountDocuments(t.Context(), bson.D{{Key: "state", Value: requestWanted}, {Key: "ns", Value: c.ns.String()}})
				if err != nil || n != 1 {
					t.Fatalf("%d documents are asked for: %v", n, err)
				}
				image := want
				image.Op, image.UUID = event.OpRefresh, c.uuid
				r.publish(t, image)
				r.await(t, r.watermark(t), s)
			}
			r.same(t, c.ns, []bson.Raw{want.Document})
			s.stop(t)
		})
	}
}
