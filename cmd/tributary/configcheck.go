package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/mongodb"
)

// runConfigCheck is `tributary config check`.
func runConfigCheck(ctx context.Context, a *app, args []string) error {
	var (
		path    string
		connect bool
	)
	fs := a.flags("config check")
	fs.StringVar(&path, "config", "", "`FILE` to check (required)")
	fs.BoolVar(&connect, "connect", false, "also reach the source, Kafka and every destination, and check what they are")
	if done, err := a.parse(fs, args); done || err != nil {
		return err
	}
	cfg, err := a.load(path)
	if err != nil {
		return err
	}
	var names []string
	for _, d := range cfg.Destinations {
		names = append(names, d.Name)
	}
	for _, w := range cfg.Warnings() {
		a.say("%s: warning: %s", path, w)
	}
	err = a.print(fmt.Sprintf("%s: good: pipeline %s, destinations %s\n", path, cfg.Name, strings.Join(names, ", ")))
	if err != nil || !connect {
		return err
	}
	return a.checkConnections(ctx, cfg)
}

func (a *app) checkConnections(ctx context.Context, cfg *config.Config) error {
	brokers, err := kafkaConfig(cfg, zerolog.Nop())
	if err != nil {
		return err
	}
	p := &process{app: a, cfg: cfg, kafka: brokers}
	source, destinations, err := p.checkAll(ctx)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("kafka: answers\nsource: %s\n", describe(source))
	for _, d := range cfg.Destinations {
		text += fmt.Sprintf("destination %s: %s\n", d.Name, describe(destinations[d.Name]))
	}
	return a.print(text)
}

// describe is a deployment in a few words.
func describe(d mongodb.Deployment) string {
	switch {
	case d.Standin:
		return fmt.Sprintf("stand-in that says it is MongoDB %s", d.Version)
	case d.Standalone:
		return fmt.Sprintf("standalone MongoDB %s (without transactions: at least once)", d.Version)
	case d.Sharded:
		return fmt.Sprintf("sharded cluster, MongoDB %s", d.Version)
	}
	return fmt.Sprintf("replica set %s, MongoDB %s", d.SetName, d.Version)
}
