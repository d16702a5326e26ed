package capture

import (
	"strings"
	"testing"
	"time"

	"github.com/tributarydb/tributary/internal/testenv"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestOplogWindow(t *testing.T) {
	at := func(hours float64) time.Time { return time.Unix(0, 0).Add(time.Duration(hours * float64(time.Hour))) }
	full := func(hours float64) oplogWindow {
		return oplogWindow{oldest: at(0), newest: at(hours), bytes: 1000, capacity: 1000}
	}
	for _, test := range []struct {
		name   string
		window oplogWindow
		lag    time.Duration
		open   time.Duration
		reach  time.Duration
		want   string
	}{
		{"long", full(48), time.Hour, 0, 48 * time.Hour, ""},
		{"short", full(23), time.Second, 0, 23 * time.Hour, "reaches back 23h0m0s only"},
		{"shorter than three lags", full(48), 17 * time.Hour, 0, 48 * time.Hour, "less than 3 times the lag of 17h0m0s"},
		{"short and lagging", full(2), time.Hour, 0, 2 * time.Hour, "less than 3 times the lag"},
		{"a transaction that is open", full(48), time.Second, 10 * time.Hour, 48 * time.Hour, ""},
		{"a transaction that is open for long", full(48), time.Second, 17 * time.Hour, 48 * time.Hour, "3 times the 17h0m1s from which a restart reads: a transaction is open at the source since 17h0m0s"},
		{"lag before a transaction", full(48), 10 * time.Hour, 10 * time.Hour, 48 * time.Hour, "from which a restart reads"},
		{"lag alone is too much", full(2), time.Hour, time.Hour, 2 * time.Hour, "times the lag of 1h0m0s"},
		{"young and not full", oplogWindow{oldest: at(0), newest: at(1), bytes: 10, capacity: 1000}, 0, 0, 100 * time.Hour, ""},
		{"young and filling quickly", oplogWindow{oldest: at(0), newest: at(1), bytes: 500, capacity: 1000}, 0, 0, 2 * time.Hour, "reaches back 2h0m0s only"},
		{"too young", oplogWindow{oldest: at(0), newest: at(0.1), bytes: 500, capacity: 1000}, time.Hour, 0, 0, ""},
		{"of unknown size", oplogWindow{oldest: at(0), newest: at(30)}, 0, 0, 30 * time.Hour, ""},
		{"empty", oplogWindow{}, 0, 0, 0, "reaches back 0s only"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.window.reach(); got != test.reach {
				t.Errorf("reach %s, want %s", got, test.reach)
			}
			got := test.window.complaint(test.lag, test.open)
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("complaint %q, want %q", got, test.want)
			}
		})
	}
}

func TestOplogIsMeasured(t *testing.T) {
	source := testenv.RequireMongoD(t).NewSource(t)
	if _, err := source.Client.Database("shop").Collection("orders").InsertOne(t.Context(), bson.D{{Key: "_id", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	w, err := measureOplog(t.Context(), source.Client)
	if err != nil {
		t.Fatal(err)
	}
	if w.capacity < 200<<20 || w.bytes <= 0 || w.oldest.IsZero() || w.newest.Before(w.oldest) {
		t.Errorf("measured %+v", w)
	}
}
