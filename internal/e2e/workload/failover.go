package workload

import (
	"errors"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
)

// interrupted reports whether a failover of the source has ended an operation,
// or left behind what a later one stumbles over.
func (l *Live) interrupted(err error) bool {
	if err == nil || !l.cfg.Failover {
		return false
	}
	const (
		namespaceNotFound     = 26
		indexNotFound         = 27
		namespaceExists       = 48
		indexOptionsConflict  = 85 // an index that was said to have failed is there
		indexKeySpecsConflict = 86
		onView                = 166 // CommandNotSupportedOnView
		noSuchTransaction     = 251
		duplicateKey          = 11000
		outIsCapped           = 17152 // the target of $out was converted meanwhile
		backgroundOperation   = 12587 // an index build that a failover has interrupted goes on by itself
	)
	var coded interface{ HasErrorCode(code int) bool }
	if errors.As(err, &coded) {
		for _, code := range []int{
			namespaceNotFound, indexNotFound, namespaceExists, indexOptionsConflict, indexKeySpecsConflict, onView,
			noSuchTransaction, duplicateKey, outIsCapped, backgroundOperation,
		} {
			if coded.HasErrorCode(code) {
				return true
			}
		}
	}
	// The driver hands a write concern's error of a command out as it is, that of
	// an aggregation with $out by itself.
	if concern, ok := errors.AsType[driver.WriteCommandError](err); ok && concern.WriteConcernError != nil {
		return true
	}
	if _, ok := errors.AsType[mongo.WriteConcernError](err); ok {
		return true
	}
	verdict := mongodb.Classify(err)
	return verdict == retry.Now || verdict == retry.Connection
}
