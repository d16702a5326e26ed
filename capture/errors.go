package capture

import (
	"errors"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// ErrHistoryLost is wrapped by the error for a source whose oplog no longer
// reaches back to the position: resuming would leave a gap.
var ErrHistoryLost = errors.New("history lost")

// ErrOtherSource is wrapped by the error for a pipeline that belongs to another
// source.
var ErrOtherSource = errors.New("pipeline belongs to another source")

// ErrOtherMode is wrapped by the error for a pipeline that was begun in another
// mode.
var ErrOtherMode = errors.New("pipeline was begun in another mode")

// errFenced says that another instance obtained the producer id.
var errFenced = errors.New("another capture of this pipeline took over, or a transaction outlived its timeout")

// codeCappedPositionLost is the server's answer to a cursor that was overtaken
// by the oplog's end. The cursor is opened again, which tells whether the
// position itself is still there.
const codeCappedPositionLost = 136

// sourceError marks an error of the source's client.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// finalError marks an error that trying again cannot heal.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// transientError marks a state that passes by itself or ends with the window
// of other errors.
type transientError struct{ err error }

func (e *transientError) Error() string { return e.err.Error() }
func (e *transientError) Unwrap() error { return e.err }

// classify decides about the error that ended a life.
func classify(err error) retry.Verdict {
	var (
		final     *finalError
		transient *transientError
		source    *sourceError
		command   mongo.ServerError
	)
	switch {
	case errors.As(err, &final):
		return retry.Stop
	case errors.As(err, &transient), errors.Is(err, errFenced):
		return retry.Other
	case errors.As(err, &source):
		if errors.As(err, &command) && command.HasErrorCode(codeCappedPositionLost) {
			return retry.Now
		}
		return mongodb.Classify(source.err)
	case errors.Is(err, kerr.MessageTooLarge):
		// The topic takes less than it did: the next life learns how much.
		return retry.Other
	case errors.Is(err, kerr.OperationNotAttempted):
		// The client refused to commit because its producer id had failed
		// before; the position tells what was committed.
		return retry.Connection
	}
	return kafka.Classify(err)
}

// fenced reports whether the broker refuses this producer for good.
func fenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) ||
		errors.Is(err, kerr.TransactionCoordinatorFenced)
}
