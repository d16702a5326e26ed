package apply

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/mongo"
)

// The server's error codes that apply branches on (error_codes.yml).
const (
	codePathNotViable          = 28
	codeNamespaceNotFound      = 26
	codeIndexNotFound          = 27
	codeNamespaceExists        = 48
	codeMaxTimeMSExpired       = 50
	codeIndexOptionsConflict   = 85
	codeIndexKeySpecsConflict  = 86
	codeOperationNotSupported  = 263 // OperationNotSupportedInTransaction
	codeTransactionTooLarge    = 257
	codeIndexBuildAborted      = 276
	codeTransactionLifetime    = 290
	codeTransactionTooLargeFor = 388 // TransactionTooLargeForCache
	codeIndexAlreadyExists     = 68
	codeCollectionUUIDMismatch = 361
	codeDuplicateKey           = 11000
	// Before 5.0, a sharded collection can neither be renamed nor be replaced by
	// a rename.
	codeRenameOfSharded = 13138
	codeRenameRefused   = 20 // IllegalOperation: so later routers say it, before they could
	codeRenameToSharded = 13139
)

// serverError is an answer of the destination without the parts that quote
// documents: servers put key values, and for some index errors whole documents,
// into their messages.
type serverError struct {
	err  error
	text string
}

// Error is the server's code and the beginning of its message.
func (e *serverError) Error() string { return e.text }

// Unwrap returns the driver's error, for classification alone.
func (e *serverError) Unwrap() error { return e.err }

// sanitize replaces errors that may quote documents.
func sanitize(err error) error {
	var (
		write   mongo.WriteException
		command mongo.CommandError
		already *serverError
	)
	switch {
	case err == nil, errors.As(err, &already):
		return err
	case errors.As(err, &write):
		return &serverError{err: err, text: writeText(&write)}
	case errors.As(err, &command):
		return &serverError{err: err, text: fmt.Sprintf("destination answered (%s, code %d) %s", command.Name, command.Code, unquoted(command.Message))}
	}
	return err
}

func writeText(e *mongo.WriteException) string {
	if len(e.WriteErrors) > 0 {
		w := &e.WriteErrors[0]
		text := fmt.Sprintf("destination refused a write (code %d) %s", w.Code, unquoted(w.Message))
		if index, ok := indexOf(w.Message); ok && w.Code == codeDuplicateKey {
			text += ": index " + index
		}
		return text
	}
	if e.WriteConcernError != nil {
		return fmt.Sprintf("destination did not confirm a write (%s, code %d) %s", e.WriteConcernError.Name, e.WriteConcernError.Code, unquoted(e.WriteConcernError.Message))
	}
	return "destination refused a write"
}

// unquoted cuts a server's message where it may begin to quote.
func unquoted(message string) string {
	if i := strings.IndexAny(message, "{:'\""); i >= 0 {
		message = message[:i]
	}
	return strings.TrimSpace(message)
}

// indexOf reads the index's name from a duplicate key message: "E11000 …
// collection: db.coll index: name dup key: …".
func indexOf(message string) (string, bool) {
	_, rest, ok := strings.Cut(message, " index: ")
	if !ok {
		return "", false
	}
	name, _, ok := strings.Cut(rest, " dup key:")
	return name, ok
}

// hasCode reports whether err carries one of the server's error codes.
func hasCode(err error, codes ...int) bool {
	var coded interface{ ErrorCodes() []int }
	if !errors.As(err, &coded) {
		return false
	}
	return slices.ContainsFunc(coded.ErrorCodes(), func(code int) bool { return slices.Contains(codes, code) })
}

func hasLabel(err error, label string) bool {
	var labelled mongo.LabeledError
	return errors.As(err, &labelled) && labelled.HasErrorLabel(label)
}

// isDuplicateID reports whether a write failed because its _id is there
// already. A stand-in does not name the index; it has no other unique one that
// apply made.
func isDuplicateID(err error) bool {
	var write mongo.WriteException
	if !errors.As(err, &write) {
		return false
	}
	for _, w := range write.WriteErrors {
		if w.Code != codeDuplicateKey {
			return false
		}
		if index, ok := indexOf(w.Message); ok && index != "_id_" {
			return false
		}
	}
	return len(write.WriteErrors) > 0
}
