package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// errTooLarge is returned, wrapped, when a batch is too much for one
// transaction: it is tried again in halves.
var errTooLarge = errors.New("the batch is too large for one transaction")

const (
	// slowTransaction is how long a transaction may take before a transient
	// failure of it is blamed on its size: servers end transactions after 60 s
	// (transactionLifetimeLimitSeconds).
	slowTransaction = 20 * time.Second
	// maxConflicts is how often in a row a transaction may fail in passing
	// before its size is blamed: before 6.2, servers report what does not fit
	// into their cache as a write conflict, however often it is tried.
	maxConflicts = 6
	// endTimeout bounds the orderly end of a session or a transaction whose
	// context is over.
	endTimeout = 2 * time.Second

	labelTransient     = "TransientTransactionError"
	labelUnknownCommit = "UnknownTransactionCommitResult"
)

// care says what a try may take for granted about what the destination holds.
type care int

const (
	// asSaid: what the events say was there before.
	asSaid care = iota
	// lookFirst: nothing; the try before met something else, and has left no
	// trace.
	lookFirst
	// again: nothing, and the try before may have left half of its writes.
	again
)

// batch is what takes effect in one step: writes, and the partition's record
// from held to next.
type batch struct {
	held, next offsetRecord
	// write does the writes. It is called again for every try.
	write func(ctx context.Context, how care) error
	// before, if set, does the writes that no transaction may hold; it must be
	// idempotent.
	before func(ctx context.Context) error
	// divisible says that errTooLarge helps.
	divisible bool
}

// committer makes batches take effect. It belongs to one worker.
type committer struct {
	client *mongo.Client
	store  *store
	exact  bool
	policy retry.Policy
	// unexpected hears of batches that met other documents than their events
	// said. Its error may quote documents.
	unexpected func(error)
	// session is that of all writes: the next owner of the partition ends it,
	// and with it what a former owner has under way. There is one transaction
	// at a time, so that a new one ends what may be left of the one before.
	session *mongo.Session
}

// open prepares a committer's session.
func (c *committer) open() error {
	session, err := c.client.StartSession(options.Session().SetCausalConsistency(false))
	if err != nil {
		return fmt.Errorf("start session: %w", err)
	}
	c.session = session
	return nil
}

// sessionID names the session to the server; nil before open.
func (c *committer) sessionID() []byte {
	if c.session == nil {
		return nil
	}
	return c.session.ID()
}

func (c *committer) close(ctx context.Context) {
	if c.session != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		c.session.EndSession(end)
	}
}

// commit makes a batch take effect, exactly once where transactions work. It
// blocks until that is done, ctx ends or the retry windows close.
func (c *committer) commit(ctx context.Context, b *batch) error {
	how := asSaid
	verdict := classify(mongodb.Classify)
	if b.divisible {
		verdict = dividing(verdict)
	} else {
		verdict = indivisible(verdict)
	}
	conflicts := 0
	return c.policy.Do(ctx, verdict, func(ctx context.Context) error {
		err := c.try(ctx, b, how)
		if hasLabel(err, labelTransient) && mongodb.Classify(err) == retry.Now {
			if conflicts++; conflicts >= maxConflicts && b.divisible {
				return fmt.Errorf("%w: it failed %d times in a row: %w", errTooLarge, conflicts, sanitize(err))
			}
		}
		differs := how == asSaid && heldDiffers(err)
		if err != nil && !c.exact {
			how = again
		}
		if differs {
			c.unexpected(err)
			how = max(how, lookFirst)
			err = c.try(ctx, b, how)
		}
		return sanitize(err)
	})
}

// heldDiffers reports whether a write failed because the destination holds
// something else than the events say.
func heldDiffers(err error) bool {
	return errors.Is(err, errHeldDiffers) || isDuplicateID(err) || hasCode(err, codePathNotViable)
}

// indivisible retries what only smaller batches would help.
func indivisible(verdict func(error) retry.Verdict) func(error) retry.Verdict {
	return func(err error) retry.Verdict {
		if errors.Is(err, errTooLarge) {
			return retry.Other
		}
		return verdict(err)
	}
}

func (c *committer) try(ctx context.Context, b *batch, how care) error {
	if b.before != nil {
		if err := b.before(mongo.NewSessionContext(ctx, c.session)); err != nil {
			return err
		}
	}
	if c.exact {
		return c.transaction(ctx, b, how)
	}
	return c.plain(ctx, b, how)
}

// transaction writes the batch in one transaction whose first statement moves
// the offset.
func (c *committer) transaction(ctx context.Context, b *batch, how care) error {
	started := time.Now()
	opts := options.Transaction().SetReadConcern(readconcern.Snapshot()).SetWriteConcern(writeconcern.Majority())
	if err := c.session.StartTransaction(opts); err != nil {
		return fmt.Errorf("start transaction: %w", err)
	}
	tx := mongo.NewSessionContext(ctx, c.session)
	moved, err := c.store.move(tx, &b.held, &b.next)
	if err == nil && moved {
		err = b.write(tx, how)
	}
	if err != nil || !moved {
		c.abort(ctx)
	}
	switch {
	case err != nil && tooLarge(err, time.Since(started)):
		return fmt.Errorf("%w: %w", errTooLarge, err)
	case err != nil:
		return err
	case !moved:
		// Either an earlier try of ours was committed after all, or the
		// partition is another's.
		return c.settle(ctx, b)
	}
	return c.finish(ctx, b)
}

// finish commits the transaction. Where the answer is lost it asks again, and
// in the end looks at the offset record, which tells.
func (c *committer) finish(ctx context.Context, b *batch) error {
	err := c.policy.Do(ctx, func(err error) retry.Verdict {
		if !hasLabel(err, labelUnknownCommit) {
			return retry.Stop
		}
		return mongodb.Classify(err)
	}, c.session.CommitTransaction)
	if err == nil {
		return nil
	}
	if hasLabel(err, labelUnknownCommit) && ctx.Err() == nil {
		return c.settle(ctx, b)
	}
	return fmt.Errorf("commit transaction: %w", err)
}

// settle reads the offset record to learn whether the batch took effect. If it
// did not, the error asks for another try.
func (c *committer) settle(ctx context.Context, b *batch) error {
	done, err := c.store.settle(ctx, &b.held, &b.next)
	if err != nil {
		return err
	}
	if !done {
		return errUnsettled
	}
	return nil
}

// errUnsettled is returned when a batch has not taken effect for no reason that
// an error told.
var errUnsettled = errors.New("the batch did not take effect")

// abort ends the transaction. Its result does not matter: the next one in the
// session, or the server's limit, ends it as well.
func (c *committer) abort(ctx context.Context) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	_ = c.session.AbortTransaction(end)
}

// plain writes the batch, then moves the offset; ownership is looked at before.
// A crash in between delivers the batch again.
func (c *committer) plain(ctx context.Context, b *batch, how care) error {
	done, err := c.store.settle(ctx, &b.held, &b.next)
	if err != nil || done {
		return err
	}
	if err := b.write(mongo.NewSessionContext(ctx, c.session), how); err != nil {
		return err
	}
	moved, err := c.store.move(ctx, &b.held, &b.next)
	if err != nil {
		return err
	}
	if !moved {
		return c.settle(ctx, b)
	}
	return nil
}

// move moves the offset without any write, as for events that are not selected.
func (c *committer) move(ctx context.Context, held, next offsetRecord) error {
	b := &batch{held: held, next: next}
	return c.policy.Do(ctx, classify(mongodb.Classify), func(ctx context.Context) error {
		moved, err := c.store.move(ctx, &b.held, &b.next)
		if err == nil && !moved {
			err = c.settle(ctx, b)
		}
		return sanitize(err)
	})
}

// tooLarge reports whether a transaction failed because of its size.
func tooLarge(err error, took time.Duration) bool {
	if hasCode(err, codeTransactionTooLarge, codeTransactionTooLargeFor, codeTransactionLifetime) {
		return true
	}
	return took > slowTransaction && hasLabel(err, labelTransient)
}
