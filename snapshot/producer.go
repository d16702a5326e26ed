package snapshot

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// transactionTimeout is how long the broker keeps the open transaction of a
	// process that has died; the next owner of the partition ends it at once.
	transactionTimeout = 15 * time.Second
	// maxCommitInterval leaves a transaction time to end before that.
	maxCommitInterval = 5 * time.Second
)

// producer is the transactional producer of one partition's owner. After an
// error it must be closed: a new one begins from what was committed. It belongs
// to one goroutine.
type producer struct {
	client *kgo.Client
	// limits are those of the pipeline's topics.
	limits *kafka.Limits

	mu sync.Mutex
	// failed is the first error of a record of the open transaction.
	failed error
}

// openProducer obtains the producer id, which fences every other producer of
// that transactional id and ends what it left open, and learns what the topics
// take. It blocks on the broker.
func openProducer(ctx context.Context, cfg kafka.Config, transactionalID string, topics ...string) (*producer, error) {
	limits := &kafka.Limits{}
	client, err := kafka.NewClient(cfg,
		kgo.TransactionalID(transactionalID),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RecordDeliveryTimeout(transactionTimeout),
		// Records are large; waiting for company gains nothing.
		kgo.ProducerLinger(0),
		limits.Option(),
	)
	if err != nil {
		return nil, fmt.Errorf("open producer id=%s: %w", transactionalID, err)
	}
	if _, _, err = client.ProducerID(ctx); err == nil {
		err = limits.Learn(ctx, client, topics...)
	}
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("open producer id=%s: %w", transactionalID, err)
	}
	return &producer{client: client, limits: limits}, nil
}

// close drops an open transaction; the next owner's start ends it at the
// broker.
func (p *producer) close() { p.client.Close() }

// begin starts a transaction.
func (p *producer) begin() error {
	p.mu.Lock()
	p.failed = nil
	p.mu.Unlock()
	if err := p.client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	return nil
}

// send adds a record to the transaction and returns without waiting for the
// broker, unless the client's buffer is full. The record's bytes are the
// client's until acked is called, which must not block; nil is allowed.
func (p *producer) send(ctx context.Context, record *kgo.Record, acked func()) {
	p.client.Produce(ctx, record, func(_ *kgo.Record, err error) {
		if err != nil {
			p.mu.Lock()
			if p.failed == nil {
				p.failed = err
			}
			p.mu.Unlock()
		}
		if acked != nil {
			acked()
		}
	})
}

// commit waits for every record and ends the transaction. Only after it has
// returned nil are its records there for readers.
func (p *producer) commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	if err := p.client.Flush(ctx); err != nil {
		return fmt.Errorf("flush transaction: %w", err)
	}
	p.mu.Lock()
	failed := p.failed
	p.mu.Unlock()
	if failed != nil {
		return fmt.Errorf("produce: %w", failed)
	}
	if err := p.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	return nil
}

// transact commits records in one transaction.
func (p *producer) transact(ctx context.Context, records []*kgo.Record) error {
	if err := p.begin(); err != nil {
		return err
	}
	for _, r := range records {
		p.send(ctx, r, nil)
	}
	return p.commit(ctx)
}

// fenced reports whether err says that the producer's transaction no longer is
// its own: another owner has begun, or the broker has given up waiting for the
// transaction's end. Both are cured by a new producer, if the partition still
// is ours.
func fenced(err error) bool {
	for _, e := range []*kerr.Error{
		kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.TransactionCoordinatorFenced, kerr.InvalidTxnState,
		kerr.InvalidProducerIDMapping, kerr.UnknownProducerID, kerr.TransactionAbortable, kerr.OperationNotAttempted,
		kerr.OutOfOrderSequenceNumber,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
