package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/apply"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/precheck"
	"github.com/tributarydb/tributary/internal/route"
)

// runFinalize is `tributary finalize`.
func runFinalize(ctx context.Context, a *app, args []string) error {
	var (
		path, destination string
		asJSON            bool
		cfg               apply.FinalizeConfig
	)
	fs := a.flags("finalize")
	fs.StringVar(&path, "config", "", "`FILE` that describes the pipeline (required)")
	fs.StringVar(&destination, "destination", "", "`NAME` of the destination to finalize (required where there are several)")
	fs.BoolVar(&cfg.DryRun, "dry-run", false, "show what would be done, and duplicates that stand against it; change nothing")
	fs.BoolVar(&cfg.Force, "force", false, "go on although the destination has not caught up")
	fs.DurationVar(&cfg.Wait, "wait", 30*time.Second, "how `LONG` the destination may take to catch up")
	fs.BoolVar(&asJSON, "json", false, "print the result as JSON")
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	file, err := a.load(path)
	if err != nil {
		return err
	}
	d, err := pick(file, "finalize", destination)
	if err != nil {
		return err
	}
	if !asJSON {
		cfg.Progress = func(ix apply.FinalizedIndex) { a.say("finalize: %s index %s (%s) …", ix.NS, ix.Index, ix.Reason) }
	}
	report, err := finalize(ctx, a, file, d, cfg)
	if err != nil {
		return unknownError{err}
	}
	if asJSON {
		err = a.printJSON(report)
	} else {
		err = a.print(finalizeText(report))
	}
	if err == nil && !report.Complete() {
		return incompleteError("finalize: some indexes could not be restored")
	}
	return err
}

// finalize connects the destination for the length of the work. Where capture
// stands comes from the pipeline's state; it need not run.
func finalize(ctx context.Context, a *app, file *config.Config, d config.Destination, cfg apply.FinalizeConfig) (report *apply.FinalizeReport, err error) {
	brokers, err := kafkaConfig(file, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	topics := route.TopicsOf(file.Name)
	view, err := precheck.View(ctx, brokers, topics.State)
	if err != nil {
		return nil, fmt.Errorf("finalize destination %s: %w", d.Name, err)
	}
	if view == nil {
		return nil, fmt.Errorf("finalize destination %s: pipeline %s has never run: topic %s does not exist", d.Name, file.Name, topics.State)
	}
	if position, ok := view.Position(); ok {
		cfg.Through = position.Watermark
	}
	p := &process{app: a, cfg: file}
	if cfg.Client, err = mongodb.Connect(ctx, p.target(d)); err != nil {
		return nil, fmt.Errorf("finalize destination %s: %w", d.Name, err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), disconnectTimeout)
		defer cancel()
		err = errors.Join(err, cfg.Client.Disconnect(end))
	}()
	cfg.Pipeline, cfg.Destination, cfg.Topic, cfg.Retry = file.Name, d.Name, topics.Changes, p.retry()
	return apply.Finalize(ctx, cfg)
}

// finalizeText is the result for people.
func finalizeText(r *apply.FinalizeReport) string {
	var b strings.Builder
	if r.Behind != "" {
		fmt.Fprintf(&b, "forced although %s\n", r.Behind)
	}
	if len(r.Indexes) == 0 {
		b.WriteString("nothing is deferred\n")
		return b.String()
	}
	rows := [][]string{{"COLLECTION", "INDEX", "DEFERRED AS", "OUTCOME"}}
	for _, ix := range r.Indexes {
		rows = append(rows, []string{ix.NS, ix.Index, ix.Reason, strings.TrimSpace(ix.Outcome + prefixed(": ", ix.Detail))})
	}
	writeTable(&b, rows)
	for _, ix := range r.Indexes {
		for _, dup := range ix.Duplicates {
			fmt.Fprintf(&b, "%s index %s: key %s is shared by _id %s\n", ix.NS, ix.Index, dup.Key, strings.Join(dup.IDs, ", "))
		}
	}
	return b.String()
}
