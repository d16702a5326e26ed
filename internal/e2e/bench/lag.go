package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"golang.org/x/sync/errgroup"
)

const (
	// probeInterval is the time between two documents whose way is timed,
	// probePoll how often the destination is asked for one.
	probeInterval, probePoll = 50 * time.Millisecond, 2 * time.Millisecond
	// loadBatch is how many documents the load writes at one time.
	loadBatch = 100
)

// lag writes to the source at a steady rate, in events per second, and measures
// how long a document takes from the moment before it is written until the
// destination shows it.
func (b *bench) lag(ctx context.Context, rate float64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	written := 0
	loading, stop := context.WithTimeout(ctx, b.cfg.lagTime+time.Minute)
	defer stop()
	began := time.Now()
	g.Go(func() (err error) {
		written, err = b.steady(loading, rate)
		return err
	})
	var lags []time.Duration
	g.Go(func() (err error) {
		defer stop()
		lags, err = b.probe(ctx)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	slices.Sort(lags)
	at := func(share float64) time.Duration {
		return lags[min(int(share*float64(len(lags))), len(lags)-1)].Round(time.Millisecond)
	}
	b.print("\nlag at half of the lowest rate (%.0f of %.0f events/s written): p50 %s, p99 %s, most %s, of %d documents",
		float64(written)/took, rate, at(0.5), at(0.99), at(1), len(lags))
	return nil
}

// steady inserts at a rate until ctx ends, and returns how many documents it
// has written.
func (b *bench) steady(ctx context.Context, rate float64) (int, error) {
	coll := b.source.Database("shop").Collection("steady", options.Collection().SetWriteConcern(writeconcern.Majority()))
	tick := time.NewTicker(time.Duration(loadBatch / rate * float64(time.Second)))
	defer tick.Stop()
	n := 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return n, nil
		}
		docs := make([]any, 0, loadBatch)
		for range loadBatch {
			docs = append(docs, document(n))
			n++
		}
		if _, err := coll.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false)); err != nil {
			if ctx.Err() != nil {
				return n, nil
			}
			return n, fmt.Errorf("write steadily: %w", err)
		}
	}
}

// probe times one document after another. The first seconds, in which the load
// begins, do not count.
func (b *bench) probe(ctx context.Context) ([]time.Duration, error) {
	const settle = 3 * time.Second
	source := b.source.Database("shop").Collection("probe", options.Collection().SetWriteConcern(writeconcern.Majority()))
	target := b.target.Database("shop").Collection("probe")
	began := time.Now()
	var lags []time.Duration
	for n := 0; time.Since(began) < b.cfg.lagTime; n++ {
		id := bson.D{{Key: "_id", Value: int64(n)}}
		sent := time.Now()
		if _, err := source.InsertOne(ctx, id); err != nil {
			return nil, fmt.Errorf("write probe: %w", err)
		}
		if err := appear(ctx, target, id); err != nil {
			return nil, err
		}
		if time.Since(began) > settle {
			lags = append(lags, time.Since(sent))
		}
		if err := rest(ctx, probeInterval); err != nil {
			return nil, err
		}
	}
	if len(lags) == 0 {
		return nil, fmt.Errorf("measure lag: no document came through within %s", b.cfg.lagTime)
	}
	return lags, nil
}

// appear waits until a collection shows a document.
func appear(ctx context.Context, coll *mongo.Collection, filter bson.D) error {
	for {
		err := coll.FindOne(ctx, filter).Err()
		if !errors.Is(err, mongo.ErrNoDocuments) {
			return err
		}
		if err := rest(ctx, probePoll); err != nil {
			return err
		}
	}
}

// rest waits for d or the end of ctx.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
