package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/apply"
	"github.com/tributarydb/tributary/internal/mongodb"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// deadFlags are those of the commands about dead letters.
type deadFlags struct {
	config, destination string
	letter              int64
	all, json, document bool
}

// runDeadList is `tributary dead list`.
func runDeadList(ctx context.Context, a *app, args []string) error {
	return runDead(ctx, a, "dead list", args, func(ctx context.Context, cfg apply.DeadConfig, f deadFlags) error {
		list, err := apply.DeadLetters(ctx, cfg)
		if err != nil {
			return unknownError{err}
		}
		shown := []apply.DeadLetter{}
		for _, l := range list {
			if f.all || l.State == apply.DeadAsked || l.State == apply.DeadGivenUp {
				shown = append(shown, l)
			}
		}
		if f.json {
			return a.printJSON(shown)
		}
		return a.print(deadText(shown, len(list)))
	})
}

// runDeadShow is `tributary dead show`.
func runDeadShow(ctx context.Context, a *app, args []string) error {
	return runDead(ctx, a, "dead show", args, func(ctx context.Context, cfg apply.DeadConfig, f deadFlags) error {
		list, err := apply.DeadLetters(ctx, cfg)
		if err != nil {
			return unknownError{err}
		}
		for _, l := range list {
			if l.Letter == f.letter {
				if f.document {
					return a.printJSON(letterOf(l))
				}
				return a.printJSON(shownLetter{DeadLetter: l})
			}
		}
		return unknownError{fmt.Errorf("show dead letter %d: destination %s has no such letter: hint: `tributary dead list -all` lists them", f.letter, cfg.Destination)}
	})
}

// runDeadRetry is `tributary dead retry`.
func runDeadRetry(ctx context.Context, a *app, args []string) error {
	return markDead(ctx, a, "dead retry", args, apply.RetryDead, "are asked for again")
}

// runDeadDiscard is `tributary dead discard`.
func runDeadDiscard(ctx context.Context, a *app, args []string) error {
	return markDead(ctx, a, "dead discard", args, apply.DiscardDead, "are discarded")
}

// markDead changes one letter's document, or all.
func markDead(ctx context.Context, a *app, name string, args []string, mark func(context.Context, apply.DeadConfig, []int64) (int, error), done string) error {
	return runDead(ctx, a, name, args, func(ctx context.Context, cfg apply.DeadConfig, f deadFlags) error {
		var letters []int64
		switch {
		case f.letter >= 0 && f.all, f.letter < 0 && !f.all:
			return usageError(name + ": give either -letter NUMBER or -all")
		case f.letter >= 0:
			letters = []int64{f.letter}
		}
		n, err := mark(ctx, cfg, letters)
		if err != nil {
			return unknownError{err}
		}
		if f.json {
			return a.printJSON(map[string]int{"documents": n})
		}
		return a.print(fmt.Sprintf("%d documents %s\n", n, done))
	})
}

// runDead reads the flags and connects the destination for the length of run.
func runDead(ctx context.Context, a *app, name string, args []string, run func(context.Context, apply.DeadConfig, deadFlags) error) (err error) {
	var f deadFlags
	fs := a.flags(name)
	fs.StringVar(&f.config, "config", "", "`FILE` that describes the pipeline (required)")
	fs.StringVar(&f.destination, "destination", "", "`NAME` of the destination (required where there are several)")
	fs.BoolVar(&f.json, "json", false, "print the result as JSON")
	switch name {
	case "dead list":
		fs.BoolVar(&f.all, "all", false, "show settled and discarded letters too")
	case "dead show":
		fs.Int64Var(&f.letter, "letter", 0, "`NUMBER` of the letter, as the list shows it")
		fs.BoolVar(&f.document, "document", false, "print the document or the update as well, as Extended JSON")
	default:
		fs.Int64Var(&f.letter, "letter", -1, "`NUMBER` of a letter whose document is meant")
		fs.BoolVar(&f.all, "all", false, "mean the documents of all letters")
	}
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	file, err := a.load(f.config)
	if err != nil {
		return err
	}
	d, err := pick(file, name, f.destination)
	if err != nil {
		return err
	}
	cfg := apply.DeadConfig{Pipeline: file.Name, Destination: d.Name}
	if cfg.Kafka, err = kafkaConfig(file, zerolog.Nop()); err != nil {
		return err
	}
	p := &process{app: a, cfg: file}
	if cfg.Client, err = mongodb.Connect(ctx, p.target(d)); err != nil {
		return unknownError{fmt.Errorf("%s: destination %s: %w", name, d.Name, err)}
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), disconnectTimeout)
		defer cancel()
		err = errors.Join(err, cfg.Client.Disconnect(end))
	}()
	return run(ctx, cfg, f)
}

// shownLetter is a letter with its event.
type shownLetter struct {
	apply.DeadLetter
	Document string `json:"document,omitempty"`
	Update   string `json:"update,omitempty"`
}

// letterOf shows a letter with what it would have written.
func letterOf(l apply.DeadLetter) shownLetter {
	shown := shownLetter{DeadLetter: l}
	if l.Event == nil {
		return shown
	}
	if l.Event.Document != nil {
		shown.Document = l.Event.Document.String()
	}
	if raw := l.Event.Delta.Raw(); len(raw) > 0 {
		shown.Update = bson.Raw(raw).String()
	}
	return shown
}

// deadText is the list for people.
func deadText(list []apply.DeadLetter, total int) string {
	var b strings.Builder
	if len(list) == 0 {
		fmt.Fprintf(&b, "no letter is open (%d in the topic; -all shows them)\n", total)
		return b.String()
	}
	rows := [][]string{{"LETTER", "TIME", "STATE", "OPERATION", "COLLECTION", "_ID", "PARTITION/OFFSET", "REASON"}}
	for _, l := range list {
		rows = append(rows, []string{
			fmt.Sprint(l.Letter), l.Time.Format(time.RFC3339), l.State, dash(l.Op), l.NS, l.ID, fmt.Sprintf("%d/%d", l.Partition, l.Offset), l.Reason,
		})
	}
	writeTable(&b, rows)
	return b.String()
}
