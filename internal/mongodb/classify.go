package mongodb

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"slices"

	"github.com/tributarydb/tributary/internal/retry"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"
)

// Labels that the server or the driver puts on errors (MongoDB drivers:
// "Transactions", "Retryable Writes").
const (
	labelNetwork       = "NetworkError"
	labelTransient     = "TransientTransactionError"
	labelUnknownCommit = "UnknownTransactionCommitResult"
	labelRetryable     = "RetryableWriteError"
)

// Classify is the one place that decides about an error of a MongoDB client.
// Lost history and duplicate keys are Stop: their owners look for them before
// they ask.
func Classify(err error) retry.Verdict {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, mongo.ErrClientDisconnected) {
		return retry.Stop
	}
	// The driver hands what a DDL command's write concern says through as it
	// is.
	var bare driver.WriteCommandError
	if errors.As(err, &bare) && bare.WriteConcernError != nil {
		if verdict, known := classifyCode(int(bare.WriteConcernError.Code)); known {
			return verdict
		}
	}
	var coded interface{ ErrorCodes() []int }
	if errors.As(err, &coded) {
		if verdict, known := classifyCodes(coded.ErrorCodes()); known {
			return verdict
		}
	}
	switch {
	case unsuitable(err), isMalformed(err):
		return retry.Stop
	case isConnection(err):
		return retry.Connection
	case hasLabel(err, labelTransient), hasLabel(err, labelUnknownCommit):
		return retry.Now
	case hasLabel(err, labelRetryable):
		return retry.Connection
	}
	return retry.Other
}

// classifyCodes decides by the server's error codes; of several, the gravest
// counts. It reports false where none is known.
func classifyCodes(codes []int) (retry.Verdict, bool) {
	known := false
	gravest := retry.Now
	for _, code := range codes {
		verdict, ok := classifyCode(code)
		if !ok {
			continue
		}
		if !known || graver(verdict, gravest) {
			gravest = verdict
		}
		known = true
	}
	return gravest, known
}

// graver orders verdicts: stop, other, connection, now.
func graver(a, b retry.Verdict) bool {
	order := []retry.Verdict{retry.Stop, retry.Other, retry.Connection, retry.Now}
	return slices.Index(order, a) < slices.Index(order, b)
}

// classifyCode knows the codes of the server's error_codes.yml that matter
// here; the comments give their names.
func classifyCode(code int) (retry.Verdict, bool) {
	switch code {
	case 11, // UserNotFound
		codeUnauthorized, codeAuthenticationFailed,
		334,  // MechanismUnavailable
		8000: // AtlasError: authentication and limits of hosted deployments
		return retry.Stop, true
	case 2, 9, 14, // BadValue, FailedToParse, TypeMismatch
		20, 59, 115, 238, // IllegalOperation, CommandNotFound, CommandNotSupported, NotImplemented
		48, 72, 73, 85, 86, // NamespaceExists, InvalidOptions, InvalidNamespace, IndexOptionsConflict, IndexKeySpecsConflict
		52, 55, 57, 66, // DollarPrefixedFieldName, InvalidDBRef, DottedFieldName, ImmutableField
		67,            // CannotCreateIndex
		121,           // DocumentValidationFailure
		136, 280, 286, // CappedPositionLost, ChangeStreamFatalError, ChangeStreamHistoryLost
		166, 167, 168, // CommandNotSupportedOnView, OptionNotSupportedOnView, InvalidPipelineOperator
		361,          // CollectionUUIDMismatch
		10334, 17419, // BSONObjectTooLarge, document too large after an update
		11000, 11001, // DuplicateKey
		13297: // DatabaseDifferCase
		return retry.Stop, true
	case 6, 7, 89, 9001, // HostUnreachable, HostNotFound, NetworkTimeout, SocketException
		91, 11600, 11602, // ShutdownInProgress, InterruptedAtShutdown, InterruptedDueToReplStateChange
		189, 10058, 10107, 13435, 13436, // PrimarySteppedDown, LegacyNotPrimary, NotWritablePrimary, NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary
		64, 133, 134, // WriteConcernTimeout, FailedToSatisfyReadPreference, ReadConcernMajorityNotAvailableYet
		262, 317, 365, 384, // ExceededTimeLimit, ConnectionPoolExpired, TemporarilyUnavailable, ConnectionError
		462: // IngressRequestRateLimitExceeded
		return retry.Connection, true
	case 24, 46, 112, // LockTimeout, LockBusy, WriteConflict
		43, 175, 237, // CursorNotFound, QueryPlanKilled, CursorKilled
		225, 244, 246, 251, 290, // TransactionTooOld, TransactionAborted, SnapshotUnavailable, NoSuchTransaction, TransactionExceededLifetimeLimitSeconds
		11601: // Interrupted
		return retry.Now, true
	case 50, 100: // MaxTimeMSExpired, UnsatisfiableWriteConcern
		return retry.Other, true
	}
	return retry.Other, false
}

func isConnection(err error) bool {
	var (
		selection topology.ServerSelectionError
		conn      topology.ConnectionError
		pool      topology.WaitQueueTimeoutError
		network   net.Error
	)
	return hasLabel(err, labelNetwork) || mongo.IsTimeout(err) || errors.As(err, &selection) || errors.As(err, &conn) ||
		errors.As(err, &pool) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.DeadlineExceeded)
}

// isMalformed reports whether the request could not even be sent: a connection
// string that cannot be read, a file that it names, a value that is no BSON.
func isMalformed(err error) bool {
	var (
		marshal  mongo.MarshalError
		argument mongo.InvalidArgumentError
		file     *fs.PathError // looks like a network error to errors.As
		parse    *ConnectError
	)
	if errors.As(err, &parse) && len(parse.Hosts) == 0 {
		return true
	}
	return errors.As(err, &marshal) || errors.As(err, &argument) || errors.As(err, &file)
}

func unsuitable(err error) bool {
	var kind *UnsuitableError
	return errors.As(err, &kind)
}

func hasLabel(err error, label string) bool {
	var labelled mongo.LabeledError
	return errors.As(err, &labelled) && labelled.HasErrorLabel(label)
}

// hasCode reports whether err carries one of the server's error codes.
func hasCode(err error, codes ...int) bool {
	var coded interface{ ErrorCodes() []int }
	if !errors.As(err, &coded) {
		return false
	}
	return slices.ContainsFunc(coded.ErrorCodes(), func(code int) bool { return slices.Contains(codes, code) })
}
