package mongodb_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// TestListCommitted: a collection that a majority does not have yet, and that an
// election may therefore take back, is not listed before it has.
func TestListCommitted(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t, testenv.Fresh(), testenv.Members(3))
	primary, err := source.ReplicaSet().Primary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var others []*engine.Member
	for _, m := range source.ReplicaSet().Members {
		if m != primary {
			others = append(others, m)
		}
	}
	each := func(do func(*engine.Member) error) {
		for _, s := range others {
			if err := do(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	every := func(string, string) bool { return true }
	if _, err := mongodb.ListCommitted(t.Context(), source.Client, every); err != nil {
		t.Fatal(err)
	}
	each(func(s *engine.Member) error { return s.Freeze() })
	t.Cleanup(func() { each(func(s *engine.Member) error { return s.Thaw() }) })
	orders := source.Client.Database("shop", options.Database().SetWriteConcern(writeconcern.W1())).Collection("orders")
	if _, err := orders.InsertOne(t.Context(), bson.D{{Key: "_id", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if entries, err := mongodb.ListCommitted(short, source.Client, every); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("listed %d collections that no majority has: %v", len(entries), err)
	}
	each(func(s *engine.Member) error { return s.Thaw() })
	testenv.Eventually(t, time.Minute, func() error {
		entries, err := mongodb.ListCommitted(t.Context(), source.Client, every)
		if err == nil && (len(entries) != 1 || entries[0].NS.String() != "shop.orders") {
			err = errors.New("the collection is not listed")
		}
		return err
	})
}
