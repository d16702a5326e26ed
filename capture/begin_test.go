package capture

import (
	"errors"
	"strings"
	"testing"

	"github.com/tributarydb/tributary/internal/event"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// TestOldestFor judges oplogs that begin behind the time at which capture shall.
func TestOldestFor(t *testing.T) {
	oldest := bson.Timestamp{T: 1_700_000_000, I: 2}
	for name, test := range map[string]struct {
		entry bson.D
		lost  bool
	}{
		"rolled over":        {bson.D{{Key: "op", Value: "i"}, {Key: "o", Value: bson.D{{Key: "_id", Value: 1}}}}, true},
		"a note":             {bson.D{{Key: "op", Value: "n"}, {Key: "o", Value: bson.D{{Key: "msg", Value: "periodic noop"}}}}, true},
		"made with its set":  {bson.D{{Key: "op", Value: "n"}, {Key: "o", Value: bson.D{{Key: "msg", Value: "initiating set"}}}}, false},
		"without an object?": {bson.D{{Key: "op", Value: "n"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := bson.Marshal(append(bson.D{{Key: "ts", Value: oldest}, {Key: "t", Value: int64(1)}, {Key: "v", Value: int64(2)}}, test.entry...))
			if err != nil {
				t.Fatal(err)
			}
			at, err := oldestFor(raw, bson.Timestamp{T: 1_600_000_000})
			if !test.lost && (err != nil || at != event.Position{Time: oldest, Term: 1}) {
				t.Errorf("position %s, error %v", at, err)
			}
			if test.lost && (!errors.Is(err, ErrHistoryLost) || !strings.Contains(err.Error(), "begins at 1700000000.2") || !strings.Contains(err.Error(), "hint:")) {
				t.Errorf("error %v", err)
			}
		})
	}
}
