package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/verify"
)

const (
	// progressEvery is how often verify says how far it is.
	progressEvery = 5 * time.Second
	// disconnectTimeout bounds the good-bye to a deployment.
	disconnectTimeout = 3 * time.Second
)

// runVerify is `tributary verify`.
func runVerify(ctx context.Context, a *app, args []string) error {
	var (
		path, destination string
		asJSON            bool
		cfg               verify.Config
	)
	fs := a.flags("verify")
	fs.StringVar(&path, "config", "", "`FILE` that describes the pipeline (required)")
	fs.StringVar(&destination, "destination", "", "`NAME` of the destination to compare (required where there are several)")
	fs.DurationVar(&cfg.Wait, "wait", time.Minute, "how `LONG` the destination may take to pass the source's present cluster time")
	fs.IntVar(&cfg.Workers, "workers", 4, "`NUMBER` of ranges compared at one time")
	fs.IntVar(&cfg.Listed, "listed", 100, "`NUMBER` of differences of each kind that are listed; all are counted")
	fs.BoolVar(&asJSON, "json", false, "print the result as JSON")
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	file, err := a.load(path)
	if err != nil {
		return err
	}
	d, err := pick(file, "verify", destination)
	if err != nil {
		return err
	}
	cfg.Pipeline, cfg.Destination, cfg.Progress = file.Name, d.Name, a.progress()
	if cfg.Rules, err = file.Rules(d); err != nil {
		return err
	}
	p := &process{app: a, cfg: file}
	result, err := compare(ctx, cfg, p.source(), p.target(d))
	if err != nil {
		return unknownError{err}
	}
	if asJSON {
		err = a.printJSON(result)
	} else {
		err = verify.WriteTable(a.stdout, result)
	}
	if err != nil {
		return err
	}
	if result.Verdict.ExitCode() == 0 {
		return nil
	}
	return verdictError(result.Verdict)
}

// compare connects both sides for the length of a verification.
func compare(ctx context.Context, cfg verify.Config, source, target mongodb.Options) (result *verify.Result, err error) {
	disconnect := func(close func(context.Context) error) {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), disconnectTimeout)
		defer cancel()
		err = errors.Join(err, close(end))
	}
	if cfg.Source, err = mongodb.Connect(ctx, source); err != nil {
		return nil, fmt.Errorf("verify source: %w", err)
	}
	defer disconnect(cfg.Source.Disconnect)
	if cfg.Target, err = mongodb.Connect(ctx, target); err != nil {
		return nil, fmt.Errorf("verify destination %s: %w", cfg.Destination, err)
	}
	defer disconnect(cfg.Target.Disconnect)
	return verify.Run(ctx, cfg)
}

// progress returns a function that says on stderr, every few seconds, how far
// the verification is.
func (a *app) progress() func(verify.Progress) {
	var (
		mu   sync.Mutex
		said = time.Now()
	)
	return func(p verify.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(said) < progressEvery {
			return
		}
		said = time.Now()
		switch {
		case p.Behind != "":
			a.say("verify: %s: %s", p.Phase, p.Behind)
		case p.Total > 0:
			a.say("verify: %s: %d of %d documents", p.Phase, p.Documents, p.Total)
		default:
			a.say("verify: %s", p.Phase)
		}
	}
}
