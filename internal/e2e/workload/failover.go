package workload

import (
	"errors"

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
		namespaceNotFound = 26
		namespaceExists   = 48
		noSuchTransaction = 251
		duplicateKey      = 11000
	)
	var coded interface{ HasErrorCode(code int) bool }
	if errors.As(err, &coded) {
		for _, code := range []int{namespaceNotFound, namespaceExists, noSuchTransaction, duplicateKey} {
			if coded.HasErrorCode(code) {
				return true
			}
		}
	}
	verdict := mongodb.Classify(err)
	return verdict == retry.Now || verdict == retry.Connection
}
