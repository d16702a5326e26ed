package apply

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tributarydb/tributary/internal/logfield"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// What an event that can never be applied does to its partition.
const (
	// OnErrorStop stops the partition.
	OnErrorStop = "stop"
	// OnErrorDeadLetter sends the event to the destination's dead-letter topic.
	OnErrorDeadLetter = "dead_letter"
)

// The headers of a dead letter; its key and value are those of the change
// record. Reason never holds content of documents; the _id it may name.
const (
	headerPipeline    = "tributary.pipeline"
	headerDestination = "tributary.destination"
	headerGroup       = "tributary.group"
	headerPartition   = "tributary.partition"
	headerOffset      = "tributary.offset"
	headerPosition    = "tributary.position"
	headerNamespace   = "tributary.ns"
	headerID          = "tributary.id"
	headerReason      = "tributary.reason"
	headerTime        = "tributary.time"
)

// A dead letter is one event of one document that this destination can never
// hold: too large for it, refused by an enforced unique index, a shape that its
// version cannot store. Outages are none, nor is DDL, whose absence would change
// the meaning of everything after it, nor a record that cannot be decoded, which
// may be anything: these stop their partition in either setting.
//
// The letter is produced first, acknowledged by all replicas; then the offset
// moves, in one transaction with the document's entry in the outbox. A crash in
// between produces the letter again: partition and offset in its headers tell.
// The entry asks for one image of the document, and while it is there the
// document's updates follow the letter; an image that can be applied ends that.

// maxDead is how many documents of one partition may be dead letters; one more
// stops the partition, since then something else is wrong.
const maxDead = 1000

// errTooManyDead is returned, wrapped, when a partition has maxDead of them.
var errTooManyDead = fmt.Errorf("more than %d documents of the partition are dead letters already: hint: mend their cause, then `tributary dead retry`", maxDead)

// errBuried is the reason of letters that follow another one.
var errBuried = errors.New("an earlier event of the document is a dead letter")

// letter is an event on its way to the dead-letter topic.
type letter struct {
	change change
	cause  error
}

// sendLetters produces letters and waits for all of them.
func (w *worker) sendLetters(ctx context.Context, letters []letter) error {
	if len(letters) == 0 {
		return nil
	}
	err := w.s.kafkaRetry(ctx, func(ctx context.Context) error {
		records := make([]*kgo.Record, len(letters))
		for i := range letters {
			records[i] = w.letterRecord(&letters[i])
		}
		return w.s.fetcher.client.ProduceSync(ctx, records...).FirstErr()
	})
	if err != nil {
		return fmt.Errorf("send dead letters partition=%s/%d offset=%d: %w", w.tp.topic, w.tp.partition, letters[0].change.offset, err)
	}
	w.s.metrics.letters.Add(float64(len(letters)))
	first := &letters[0]
	w.log.Error().Str(logfield.Namespace, first.change.NS.String()).Int64(logfield.Offset, first.change.offset).Int("letters", len(letters)).
		Str(logfield.Reason, reasonOf(first.cause)).Msg("events went to the dead-letter topic; the first of them")
	return nil
}

func (w *worker) letterRecord(l *letter) *kgo.Record {
	c := &l.change
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	return &kgo.Record{
		Topic: route.DeadTopic(w.s.cfg.Pipeline, w.s.cfg.Destination), Partition: 0, Key: c.record.Key, Value: c.record.Value,
		Headers: []kgo.RecordHeader{
			header(headerPipeline, w.s.cfg.Pipeline),
			header(headerDestination, w.s.cfg.Destination),
			header(headerGroup, w.s.cfg.Group),
			header(headerPartition, strconv.Itoa(int(w.tp.partition))),
			header(headerOffset, strconv.FormatInt(c.offset, 10)),
			header(headerPosition, c.Position.String()),
			header(headerNamespace, c.NS.String()),
			header(headerID, idText(c.docID())),
			header(headerReason, reasonOf(l.cause)),
			header(headerTime, time.Now().UTC().Format(time.RFC3339Nano)),
		},
	}
}

// tellDead brings metric and status up to the outbox.
func (s *Service) tellDead(entries []requestRecord) {
	var n int64
	for i := range entries {
		if entries[i].Dead && !entries[i].Discarded {
			n++
		}
	}
	s.metrics.dead.Set(float64(n))
	s.cfg.Report.Count("dead_documents", n)
}

// reasonOf is an error without the place, which the headers have.
func reasonOf(err error) string {
	var in *eventError
	if errors.As(err, &in) {
		err = in.err
	}
	return sanitize(err).Error()
}

// ofEvent reports whether an error is one of a single event, which no retry and
// no other member mends: not an outage, not a lost partition, not a fault of the
// destination as a whole.
func ofEvent(err error) bool {
	var (
		in      *eventError
		state   *stateError
		write   mongo.WriteException
		command mongo.CommandError
	)
	switch {
	case err == nil, errors.Is(err, errLost), errors.Is(err, errTooLarge), errors.As(err, &state),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &in):
		return true
	case errors.As(err, &write):
		return len(write.WriteErrors) > 0 && !hasLabel(err, labelTransient)
	case errors.As(err, &command):
		return hasCode(err, documentCodes()...)
	}
	return false
}

// documentCodes are the codes of commands that failed because of a document.
func documentCodes() []int {
	return []int{
		2, 9, 14, // BadValue, FailedToParse, TypeMismatch
		codePathNotViable,
		52, 55, 57, 66, // DollarPrefixedFieldName, InvalidDBRef, DottedFieldName, ImmutableField
		121,          // DocumentValidationFailure
		10334, 17419, // BSONObjectTooLarge, too large after an update
		codeDuplicateKey,
	}
}

// collides reports whether a document has a key that another one has in a unique
// index other than that of _id.
func collides(err error) bool { return hasCode(err, codeDuplicateKey) && !isDuplicateID(err) }
