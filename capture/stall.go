package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// stallPatience is how long a tail may bring nothing before the primary is asked
// whether there is something. A member that nobody writes to logs a no-op every
// ten seconds.
const stallPatience = 15 * time.Second

// stall finds a tail that brings nothing although the source moves. A cursor
// outlives its member's time as primary; on one that the others no longer reach
// it stays open and silent, and looks like an idle source.
type stall struct {
	// majority is what a majority has, as the present primary knows it.
	majority func(context.Context) (bson.Timestamp, error)
	patience time.Duration

	// last is the time of the last entry, expected that of one that must come;
	// next is when to look again.
	last, expected bson.Timestamp
	next           time.Time
}

// moved notes an entry.
func (s *stall) moved(last bson.Timestamp, now time.Time) { s.last, s.next = last, now.Add(s.patience) }

// check is called when nothing came. It asks the primary now and then, and fails
// if what was there at one time has not come until the next. It blocks on the
// source then.
func (s *stall) check(ctx context.Context, now time.Time) error {
	if now.Before(s.next) {
		return nil
	}
	s.next = now.Add(s.patience)
	if event.CompareTimes(s.expected, s.last) > 0 {
		return &transientError{errors.New("read oplog: the member that is read stands still while the primary goes on")}
	}
	var err error
	if s.expected, err = s.majority(ctx); err != nil {
		return &sourceError{fmt.Errorf("compare with the primary: %w", err)}
	}
	return nil
}
