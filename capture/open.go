package capture

import (
	"encoding/hex"
	"time"

	"github.com/tributarydb/tributary/capture/oplog"
	"github.com/tributarydb/tributary/internal/state"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// openAt tells of the open transactions behind the entry of that time; nil where
// there are none. One that is being handed out is open until its last operation.
func (a *assembler) openAt(last bson.Timestamp) *state.OpenTransactions {
	count, first := a.open.Open(), a.open.First()
	if a.replay != nil {
		count++
		if first == nil || a.replay.txn.First.Compare(first.First) < 0 {
			first = a.replay.txn
		}
	}
	if first == nil {
		return nil
	}
	return &state.OpenTransactions{
		Count: int64(count), HeldBytes: a.open.Bytes(), Oldest: time.Unix(int64(first.First.Time.T), 0).UTC(),
		AgeSeconds: max(float64(last.T)-float64(first.First.Time.T), 0),
		Session:    sessionOf(first), Number: first.Number, Prepared: first.Prepared(),
	}
}

// sessionOf is the session's id in hex; empty for a server's own transaction.
func sessionOf(t *oplog.Transaction) string {
	if t.LSID == nil {
		return ""
	}
	if _, id, ok := t.LSID.Lookup("id").BinaryOK(); ok {
		return hex.EncodeToString(id)
	}
	return ""
}

// tellOpen reports the open transactions behind what is committed; nil for none.
func (s *Service) tellOpen(open *state.OpenTransactions) {
	count, age := 0.0, 0.0
	if open != nil {
		count, age = float64(open.Count), open.AgeSeconds
	}
	s.metrics.open.Set(count)
	s.metrics.openAge.Set(age)
	s.cfg.Report.Update(func(status *state.Status) { status.Open = open })
}
