package e2e_test

import (
	"context"
	"time"

	"github.com/tributarydb/tributary/internal/verify"
)

// pendingWait bounds how long a pending case may take to come through.
const pendingWait = 10 * time.Second

// pendingModes are the modes that are not built, with the reason.
func pendingModes() map[string]string {
	return map[string]string{}
}

// pending lists the cases that do not work, with the reason: in every mode, or in
// the one that the name begins with ("oplog:name"). One that does work fails the
// suite, so that the list shrinks.
func pending() map[string]string {
	return map[string]string{
		// No request helps: nothing says that there was a change.
		modeStream + ":apply_ops_command": "change streams do not show what a user's applyOps writes",
	}
}

// newerServers lists what the servers at hand cannot do, with the version that
// it needs: it is tested from documented shapes only.
func newerServers() []string {
	return []string{
		"time-series collections (5.0, refused by name)", "field names that begin with $ at the top (5.0)", "clustered collections (5.3)",
		"pre- and post-images of change streams (6.0)", "indexes with prepareUnique (6.0)", "expanded change stream events (6.0)",
		"split change stream events (6.0.9)", "vectored inserts in one entry (8.0)", "bulkWrite command (8.0)",
	}
}

// pendingReason is why a case does not work in a mode; empty if it does.
func pendingReason(mode, name string) string {
	if reason := pending()[name]; reason != "" {
		return reason
	}
	return pending()[mode+":"+name]
}

// tryPending runs each case that is pending everywhere with a pipeline of its
// own, and fails the test if it works. An operation is done once: a case that is
// pending in one mode alone has been done for the other.
func (s *suite) tryPending() {
	s.t.Helper()
	modes := map[string]bool{}
	for _, w := range s.ways {
		modes[w.mode] = true
	}
	for _, o := range s.operations {
		done := false
		for _, mode := range []string{modeOplog, modeStream} {
			reason := pendingReason(mode, o.name)
			if reason == "" || !modes[mode] {
				continue
			}
			works := !done && s.pendingEverywhere(o) && s.tryAlone(mode, o)
			done = true
			for _, w := range s.ways {
				if w.mode == mode {
					s.table.set(o.name, w.column, "pending")
					s.table.pending[o.name] = reason
				}
			}
			if works {
				s.t.Errorf("%s works in mode %s: take it off the list of pending cases", o.name, mode)
			}
		}
	}
}

// tryAlone reports whether a case works, exactly once where that is possible.
func (s *suite) tryAlone(mode string, o operation) bool {
	s.t.Helper()
	delivery := exactlyOnce
	if !s.pair.Exact {
		delivery = atLeastOnce
	}
	var include []string
	for _, db := range o.databaseNames() {
		include = append(include, db+".*")
	}
	w := s.launch(mode, []string{delivery}, include, nil)[0]
	works := func(wait time.Duration) bool {
		r, err := w.compare(s.ctx, s.source.Client, wait)
		return err == nil && r.Verdict == verify.Equal
	}
	if !works(conformanceWait) {
		return false
	}
	if o.do == nil {
		return true
	}
	o.do(s.scene(o))
	ctx, cancel := context.WithTimeout(s.ctx, conformanceWait)
	defer cancel()
	return works(pendingWait) && w.sameOrder(ctx, s.source.Client, o) == nil
}
