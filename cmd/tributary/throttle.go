package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/precheck"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/state"
	"github.com/tributarydb/tributary/internal/throttle"
	"github.com/twmb/franz-go/pkg/kgo"
)

// throttleFlags are those of `tributary throttle`.
type throttleFlags struct {
	config, destination          string
	source, load, changes, reset bool
	set                          state.Throttle
}

func (f *throttleFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.config, "config", "", "`FILE` that describes the pipeline (required)")
	fs.BoolVar(&f.source, "source", false, "what full loads read from the source")
	fs.StringVar(&f.destination, "destination", "", "`NAME` of the destination whose writes are limited, with -load or -changes")
	fs.BoolVar(&f.load, "load", false, "what full loads write to the destination")
	fs.BoolVar(&f.changes, "changes", false, "what changes write to the destination")
	fs.BoolVar(&f.reset, "reset", false, "go back to the limits of the configuration")
	count := func(to **int64, name, what string) {
		fs.Func(name, what+" a second; 0 is unlimited: `N`", func(text string) error {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				return errors.New("want a number that is not negative")
			}
			*to = &n
			return nil
		})
	}
	count(&f.set.Queries, "queries", "queries of the source")
	count(&f.set.Documents, "documents", "documents")
	count(&f.set.Documents, "operations", "operations of changes")
	fs.Func("bytes", "bytes a second, as 20MiB; 0 is unlimited: `SIZE`", func(text string) error {
		size, err := config.ParseBytes(text)
		n := int64(size)
		f.set.Bytes = &n
		return err
	})
}

// empty reports whether no limit is given.
func (f *throttleFlags) empty() bool {
	return f.set.Queries == nil && f.set.Documents == nil && f.set.Bytes == nil
}

// names returns which limits are meant: all where nothing is named.
func (f *throttleFlags) names(cfg *config.Config) ([]string, error) {
	switch {
	case f.source && f.destination != "":
		return nil, usageError("throttle: -source and -destination are two things: hint: set one after the other")
	case f.source && (f.load || f.changes):
		return nil, usageError("throttle: -load and -changes belong to a destination: hint: the source is read by full loads alone")
	case f.source:
		return []string{state.ThrottleSource}, nil
	case f.destination == "" && (f.load || f.changes || f.reset || !f.empty()):
		return nil, usageError("throttle: it is not said what to limit: hint: add -source, or -destination NAME with -load or -changes")
	case f.destination == "":
		return throttleNames(cfg), nil
	}
	if _, err := cfg.Destination(f.destination); err != nil {
		return nil, usageError(fmt.Sprintf("throttle: %v", err))
	}
	if f.set.Queries != nil {
		return nil, usageError("throttle: queries are the source's: hint: a destination is limited by -documents (or -operations) and -bytes")
	}
	both := f.load == f.changes
	if both && !f.empty() {
		return nil, usageError("throttle: loads and changes are limited apart: hint: add -load or -changes")
	}
	var names []string
	if f.load || both {
		names = append(names, state.ThrottleLoad(f.destination))
	}
	if f.changes || both {
		names = append(names, state.ThrottleChanges(f.destination))
	}
	return names, nil
}

// runThrottle is `tributary throttle`.
func runThrottle(ctx context.Context, a *app, args []string) error {
	var f throttleFlags
	fs := a.flags("throttle")
	f.register(fs)
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	cfg, err := a.load(f.config)
	if err != nil {
		return err
	}
	names, err := f.names(cfg)
	if err != nil {
		return err
	}
	if f.reset && !f.empty() {
		return usageError("throttle: -reset takes no limits: hint: give one or the other")
	}
	brokers, err := kafkaConfig(cfg, zerolog.Nop())
	if err != nil {
		return err
	}
	topic := route.TopicsOf(cfg.Name).State
	view, err := precheck.View(ctx, brokers, topic)
	if err != nil {
		return unknownError{fmt.Errorf("throttle: %w", err)}
	}
	if view == nil {
		return unknownError{fmt.Errorf("throttle: pipeline %s has never run: topic %s does not exist: hint: start it with `tributary run`, or write limits into the configuration", cfg.Name, topic)}
	}
	if f.reset || !f.empty() {
		if err := f.write(ctx, brokers, topic, view, names); err != nil {
			return fmt.Errorf("throttle: %w", err)
		}
	}
	var b strings.Builder
	writeTable(&b, limitRows(limitsInForce(cfg, view), names))
	return a.print(b.String())
}

// write puts the limits on the state topic, and into the view.
func (f *throttleFlags) write(ctx context.Context, brokers kafka.Config, topic string, view *state.View, names []string) error {
	client, err := kafka.NewClient(brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, name := range names {
		var value any
		if !f.reset {
			set, _ := view.Throttle(name)
			value = f.over(set)
		}
		record, err := state.Record(topic, state.KeyThrottle(name), value)
		if err != nil {
			return err
		}
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			return fmt.Errorf("set limits of %s: %w", name, err)
		}
		if err := view.Apply(string(record.Key), record.Value); err != nil {
			return err
		}
	}
	return nil
}

// over is what was set before with what is set now.
func (f *throttleFlags) over(set state.Throttle) state.Throttle {
	if f.set.Queries != nil {
		set.Queries = f.set.Queries
	}
	if f.set.Documents != nil {
		set.Documents = f.set.Documents
	}
	if f.set.Bytes != nil {
		set.Bytes = f.set.Bytes
	}
	set.Set = time.Now().UTC()
	return set
}

// limitStatus is what a stage is limited by.
type limitStatus struct {
	throttle.Limits
	// Configured are the limits of the file, where others were set.
	Configured *throttle.Limits `json:"configured,omitempty"`
	// Set says when others were set.
	Set time.Time `json:"set,omitzero"`
}

// limitsInForce are by name: source, load/NAME, changes/NAME.
func limitsInForce(cfg *config.Config, view *state.View) map[string]limitStatus {
	all := map[string]limitStatus{}
	for name, configured := range configuredLimits(cfg) {
		status := limitStatus{Limits: configured}
		if set, ok := view.Throttle(name); ok {
			status = limitStatus{Limits: set.Over(configured), Configured: &configured, Set: set.Set}
		}
		all[name] = status
	}
	return all
}

func limitRows(limits map[string]limitStatus, names []string) [][]string {
	rows := [][]string{{"LIMITS OF", "IN FORCE", "SET BY"}}
	for _, name := range names {
		l := limits[name]
		by := "configuration"
		if l.Configured != nil {
			by = fmt.Sprintf("command at %s (configured: %s)", l.Set.Format(time.RFC3339), limitsText(*l.Configured, name))
		}
		rows = append(rows, []string{name, limitsText(l.Limits, name), by})
	}
	return rows
}
