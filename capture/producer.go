package capture

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// abortTimeout bounds the attempt to abort what a failed life left open, which
// only saves readers the wait for the transaction timeout.
const abortTimeout = 3 * time.Second

const (
	// sweepKey is the key of records that are always aborted.
	sweepKey = "sweep"
	// sweepTimeout bounds one sweep, which the next life tries again.
	sweepTimeout = time.Minute
)

// producer is the transactional producer of one life. It is used from one
// goroutine; only fail is called from the client's. After the first error it is
// of no further use: the position in the state topic says what was committed.
type producer struct {
	client  *kgo.Client
	limits  *kafka.Limits
	topics  route.Topics
	timeout time.Duration
	// partitions is the change topic's partition count.
	partitions int32

	// open says that a transaction is, since began.
	open  bool
	began time.Time
	// expiry calls expired when the open transaction outlives its timeout: the
	// broker does not acknowledge, and then aborts what it has.
	expiry  *time.Timer
	expired func(error)

	once sync.Once
	// fenced says that another instance has the producer id.
	fenced bool
	// failed closes after err was set.
	failed chan struct{}
	err    error
}

// newProducer obtains the producer id: from here on no older instance can
// commit, and what it had open is aborted.
func newProducer(ctx context.Context, cfg *Config, topics route.Topics) (*producer, error) {
	limits := &kafka.Limits{}
	client, err := kafka.NewClient(cfg.Kafka,
		kgo.TransactionalID(route.CaptureTransactionalID(cfg.Pipeline)),
		kgo.TransactionTimeout(cfg.TransactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RecordDeliveryTimeout(cfg.TransactionTimeout),
		kgo.ProducerLinger(0),
		limits.Option(),
	)
	if err != nil {
		return nil, err
	}
	p := &producer{client: client, limits: limits, topics: topics, timeout: cfg.TransactionTimeout, failed: make(chan struct{})}
	if cfg.seams.producer != nil {
		cfg.seams.producer(client)
	}
	if _, _, err := client.ProducerID(ctx); err != nil {
		client.Close()
		return nil, p.describe("obtain producer id", err)
	}
	if p.partitions, err = partitionsOf(ctx, client, topics.Changes); err == nil {
		err = limits.Learn(ctx, client, topics.Changes, topics.State)
	}
	if err == nil {
		err = p.sweep(ctx)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return p, nil
}

// sweep aborts a transaction of one record in every partition that a life writes
// to. Obtaining the producer id ends what an older instance left open wherever
// the broker knows of it. In a partition that never got the mark of its end (a
// hanging transaction, KIP-664: a broker died while it wrote the marks) readers
// of committed records would wait for ever, or see its records come back with
// the next commit of this producer id. The mark of this abort closes it there.
func (p *producer) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	if err := p.client.BeginTransaction(); err != nil {
		return p.describe("begin transaction", err)
	}
	records := []*kgo.Record{{Topic: p.topics.State, Key: []byte(sweepKey)}}
	for partition := range p.partitions {
		records = append(records, &kgo.Record{Topic: p.topics.Changes, Partition: partition, Key: []byte(sweepKey)})
	}
	if err := p.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return p.describe("produce", err)
	}
	if err := p.client.EndTransaction(ctx, kgo.TryAbort); err != nil {
		return p.describe("abort transaction", err)
	}
	return nil
}

func partitionsOf(ctx context.Context, client *kgo.Client, topic string) (int32, error) {
	listed, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	if err := listed[topic].Err; err != nil {
		return 0, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	if n := len(listed[topic].Partitions); n > 0 {
		return int32(n), nil
	}
	return 0, fmt.Errorf("describe topic %s: it has no partitions", topic)
}

// begin opens a transaction unless one is open.
func (p *producer) begin() error {
	if p.open {
		return nil
	}
	if err := p.client.BeginTransaction(); err != nil {
		return p.describe("begin transaction", err)
	}
	p.open, p.began = true, time.Now()
	p.expiry = time.AfterFunc(p.timeout, func() {
		p.expired(fmt.Errorf("transaction was not acknowledged within %s: %w", p.timeout, context.DeadlineExceeded))
	})
	return nil
}

// produce hands a record to the client; it blocks while the client's buffers
// are full. Promise is called on the client's goroutine once the record is
// acknowledged or has failed.
func (p *producer) produce(ctx context.Context, r *kgo.Record, promise func(*kgo.Record, error)) {
	p.client.Produce(ctx, r, promise)
}

// acknowledge is the promise of records that belong to no batch.
func (p *producer) acknowledge(_ *kgo.Record, err error) {
	if err != nil {
		p.fail(err)
	}
}

// fail notes the first error of a record.
func (p *producer) fail(err error) {
	p.once.Do(func() {
		p.err = err
		close(p.failed)
	})
}

// failure returns the first error of a record.
func (p *producer) failure() error {
	select {
	case <-p.failed:
		return p.describe("produce", p.err)
	default:
		return nil
	}
}

// commit puts the position into the open transaction and ends it. The position
// counts with the transaction: it is written after every record that it covers,
// and all of them are acknowledged before the end is asked for. An error leaves
// open whether the transaction was committed; the next life reads it.
func (p *producer) commit(ctx context.Context, position state.CapturePosition, more ...*kgo.Record) error {
	record, err := state.Record(p.topics.State, state.KeyPosition(), position)
	if err != nil {
		return err
	}
	for _, r := range append(more, record) {
		p.produce(ctx, r, p.acknowledge)
	}
	if err := p.client.Flush(ctx); err != nil {
		return p.describe("flush transaction", err)
	}
	if err := p.failure(); err != nil {
		return err
	}
	if err := p.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return p.describe("commit transaction", err)
	}
	p.expiry.Stop()
	p.open = false
	return nil
}

// describe names the step that failed, and a fence by its meaning.
func (p *producer) describe(step string, err error) error {
	if fenced(err) {
		p.fenced = true
		return fmt.Errorf("%s: %w: %w", step, errFenced, err)
	}
	return fmt.Errorf("%s: %w", step, err)
}

// close aborts an open transaction as far as that can be done quickly and
// closes the client. Once fenced it leaves the transactional id alone, which is
// another's.
func (p *producer) close() {
	if p.open {
		p.expiry.Stop()
	}
	if p.open && !p.fenced {
		ctx, cancel := context.WithTimeout(context.Background(), abortTimeout)
		// What cannot be aborted is ended by the next instance's fence or by
		// the transaction timeout.
		if err := p.client.AbortBufferedRecords(ctx); err == nil {
			_ = p.client.EndTransaction(ctx, kgo.TryAbort)
		}
		cancel()
	}
	p.client.Close()
}
