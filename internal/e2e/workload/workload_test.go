package workload_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/tributarydb/tributary/internal/e2e/workload"
	"github.com/tributarydb/tributary/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestLoadAndLive(t *testing.T) {
	testenv.EachMongoDB(t, func(t *testing.T, m testenv.MongoDB) {
		source := m.NewSource(t)
		cfg := workload.Config{
			Client: source.Client, Seed: rand.Uint64(), Documents: 2000,
			Standin: !m.Exact, DDL: true, Rate: 2000,
		}
		t.Logf("seed %d", cfg.Seed)
		if err := workload.Load(t.Context(), cfg, nil); err != nil {
			t.Fatal(err)
		}
		if n := count(t, source.Client, "shop", "orders"); n != 800 {
			t.Errorf("%d orders were loaded, want 800", n)
		}
		live := workload.NewLive(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- live.Run(ctx) }()
		testenv.Eventually(t, time.Minute, func() error {
			select {
			case err := <-done:
				t.Fatalf("live workload: %v", err)
			default:
			}
			if s := live.Stats(); s.Inserts > 100 && s.Updates > 300 && s.Deletes > 30 && (cfg.Standin || s.DDL > 20 && s.Transactions > 10) {
				return nil
			}
			return fmt.Errorf("only %+v was done", live.Stats())
		})
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if n := count(t, source.Client, "stats", "searches"); n == 0 {
			t.Error("the live workload made no new collection")
		}
		// A second run with another seed goes on where the first one stopped.
		cfg.Seed++
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := workload.NewLive(cfg).Run(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

func count(t *testing.T, client *mongo.Client, db, coll string) int64 {
	t.Helper()
	n, err := client.Database(db).Collection(coll).CountDocuments(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
