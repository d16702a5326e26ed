package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/event"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/precheck"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// askAgain is how often refresh looks whether its request is satisfied.
const askAgain = 500 * time.Millisecond

// runRefresh is `tributary refresh`.
func runRefresh(ctx context.Context, a *app, args []string) error {
	var (
		path, namespace string
		whole           bool
		wait            time.Duration
	)
	r := &state.Request{Kind: state.RequestRefresh, ID: "operator-" + bson.NewObjectID().Hex(), Reason: "asked for by the operator", Asked: time.Now().UTC()}
	fs := a.flags("refresh")
	fs.StringVar(&path, "config", "", "`FILE` that describes the pipeline (required)")
	fs.StringVar(&namespace, "namespace", "", "`DB.COLLECTION` at the source (required)")
	fs.Func("id", "`JSON` of an _id whose document is published anew, as Extended JSON (\"a\", 7, {\"$oid\": …}); may be repeated", func(text string) error {
		id, err := parseID(text)
		r.IDs = append(r.IDs, id)
		return err
	})
	fs.BoolVar(&whole, "all", false, "reload the whole collection: made anew at the destination, with options and indexes")
	fs.StringVar(&r.Destination, "destination", "", "`NAME` of the destination that is to make the collection anew (with -all; all of them without)")
	fs.DurationVar(&wait, "wait", 0, "how `LONG` to wait until the documents are on the change topic; 0 does not wait")
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	cfg, err := a.load(path)
	if err != nil {
		return err
	}
	if whole {
		r.Kind = state.RequestReload
	}
	if err := complete(r, cfg, namespace); err != nil {
		return err
	}
	return a.ask(ctx, cfg, r, wait)
}

// parseID makes {_id: value} of a value in Extended JSON.
func parseID(text string) ([]byte, error) {
	var doc bson.D
	if err := bson.UnmarshalExtJSON([]byte(`{"_id": `+text+`}`), false, &doc); err != nil || len(doc) != 1 {
		return nil, errors.New(`want an _id as Extended JSON, as 7, "a" (with its quotes) or {"$oid": "…"}`)
	}
	return bson.Marshal(doc)
}

// complete puts what was said on the command line into the request.
func complete(r *state.Request, cfg *config.Config, namespace string) error {
	whole := r.Kind == state.RequestReload
	ns, err := event.ParseNamespace(namespace)
	switch {
	case namespace == "":
		return usageError("refresh: no collection is named: hint: add -namespace DB.COLLECTION")
	case err != nil:
		return usageError(fmt.Sprintf("refresh: %v", err))
	case whole == (len(r.IDs) > 0):
		return usageError("refresh: say which documents: hint: -id once for each of them, or -all for the whole collection")
	case r.Destination != "" && !whole:
		return usageError("refresh: documents are published for every destination: hint: leave -destination out, or reload the collection with -all")
	}
	r.DB, r.Coll = ns.DB, ns.Coll
	if r.Destination != "" {
		if _, err := cfg.Destination(r.Destination); err != nil {
			return usageError(fmt.Sprintf("refresh: %v", err))
		}
	}
	if err := r.Validate(); err != nil {
		return usageError(fmt.Sprintf("refresh: %v", err))
	}
	return nil
}

// ask puts the request on the control topic and, if told to, waits for its end.
func (a *app) ask(ctx context.Context, cfg *config.Config, r *state.Request, wait time.Duration) error {
	brokers, err := kafkaConfig(cfg, zerolog.Nop())
	if err != nil {
		return err
	}
	topic := route.TopicsOf(cfg.Name).State
	view, err := precheck.View(ctx, brokers, topic)
	if err != nil {
		return unknownError{fmt.Errorf("refresh %s.%s: %w", r.DB, r.Coll, err)}
	}
	if view == nil {
		return unknownError{fmt.Errorf("refresh %s.%s: pipeline %s has never run: topic %s does not exist: hint: start it with `tributary run`", r.DB, r.Coll, cfg.Name, topic)}
	}
	offset, err := send(ctx, brokers, cfg.Name, r)
	if err != nil {
		return fmt.Errorf("refresh %s.%s: %w", r.DB, r.Coll, err)
	}
	if err := a.print(fmt.Sprintf("asked for: request %s\n", r.ID)); err != nil || wait <= 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := over(ctx, brokers, topic, r, offset); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return unknownError{fmt.Errorf("refresh %s.%s: request %s is still pending after %s: hint: is capture running? `tributary status` tells; the request stays", r.DB, r.Coll, r.ID, wait)}
		}
		return fmt.Errorf("refresh %s.%s: %w", r.DB, r.Coll, err)
	}
	return a.print("published: destinations have it as soon as they have come that far\n")
}

// send returns the offset of the request's record.
func send(ctx context.Context, brokers kafka.Config, pipeline string, r *state.Request) (int64, error) {
	record, err := state.RequestRecord(pipeline, r)
	if err != nil {
		return 0, err
	}
	client, err := kafka.NewClient(brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	sent, err := client.ProduceSync(ctx, record).First()
	if err != nil {
		return 0, fmt.Errorf("send request id=%s: %w", r.ID, err)
	}
	return sent.Offset, nil
}

// over blocks until capture has taken the request over and it is no longer
// pending; an error says that it was refused.
func over(ctx context.Context, brokers kafka.Config, topic string, r *state.Request, offset int64) error {
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	for {
		view, err := state.Load(ctx, brokers, topic)
		if err != nil {
			return err
		}
		for _, answer := range view.Answers() {
			if answer.ID == r.ID {
				return fmt.Errorf("request %s is not served: %s", r.ID, answer.Cause)
			}
		}
		if _, pending := view.Request(r.ID); !pending && view.ControlOffset() > offset {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
