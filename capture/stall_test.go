package capture

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestStall(t *testing.T) {
	at := func(t uint32) bson.Timestamp { return bson.Timestamp{T: t, I: 1} }
	start := time.Unix(1_767_225_600, 0)
	var (
		majority bson.Timestamp
		asked    int
	)
	s := stall{patience: 10 * time.Second, majority: func(context.Context) (bson.Timestamp, error) {
		asked++
		return majority, nil
	}}
	check := func(seconds int) error { return s.check(t.Context(), start.Add(time.Duration(seconds)*time.Second)) }
	s.moved(at(5), start)
	majority = at(5)
	for _, seconds := range []int{1, 9, 10, 19, 20, 29, 30} { // idle: nothing to come
		if err := check(seconds); err != nil {
			t.Fatalf("idle source after %d s: %v", seconds, err)
		}
	}
	if asked != 3 {
		t.Errorf("the primary was asked %d times in 30 s, want 3", asked)
	}
	majority = at(7)
	if err := check(40); err != nil { // it may be on its way
		t.Fatal(err)
	}
	s.moved(at(8), start.Add(45*time.Second))
	if err := check(55); err != nil {
		t.Fatalf("it came: %v", err)
	}
	majority = at(9)
	if err := errors.Join(check(65), check(74)); err != nil {
		t.Fatal(err)
	}
	if _, transient := errors.AsType[*transientError](check(75)); !transient {
		t.Error("a tail that stands still is not found out")
	}
}

func TestStallWithoutPrimary(t *testing.T) {
	s := stall{majority: func(context.Context) (bson.Timestamp, error) { return bson.Timestamp{}, context.DeadlineExceeded }}
	if _, fromSource := errors.AsType[*sourceError](s.check(t.Context(), time.Now())); !fromSource {
		t.Error("the source's own error is not told apart")
	}
}
