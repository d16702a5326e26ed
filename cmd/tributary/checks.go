package main

import (
	"context"

	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/precheck"
	"github.com/tributarydb/tributary/internal/route"
)

func (p *process) source() mongodb.Options {
	return mongodb.Options{URI: p.cfg.Source.URI, AppName: "tributary." + p.cfg.Name}
}

func (p *process) target(d config.Destination) mongodb.Options {
	return mongodb.Options{URI: d.URI, AppName: "tributary." + p.cfg.Name}
}

// checkSource checks brokers and source before capture or snapshot.
func (p *process) checkSource(ctx context.Context) error {
	if err := precheck.Brokers(ctx, p.kafka); err != nil {
		return err
	}
	_, err := p.describeSource(ctx)
	return err
}

func (p *process) describeSource(ctx context.Context) (mongodb.Deployment, error) {
	selection, err := p.cfg.Selection()
	if err != nil {
		return mongodb.Deployment{}, err
	}
	return precheck.Source(ctx, p.source(), p.cfg.Source.Mode, selection)
}

// checkDestination checks brokers and one destination before apply, which need
// not reach the source: the pipeline's state says which one that is.
func (p *process) checkDestination(ctx context.Context, d config.Destination) error {
	if err := precheck.Brokers(ctx, p.kafka); err != nil {
		return err
	}
	deployment, err := precheck.Destination(ctx, d.Name, p.target(d))
	if err != nil {
		return err
	}
	return precheck.NotSource(ctx, p.kafka, route.TopicsOf(p.cfg.Name).State, d.Name, deployment)
}

// checkAll checks everything that the configuration names, brokers first.
func (p *process) checkAll(ctx context.Context) (source mongodb.Deployment, destinations map[string]mongodb.Deployment, err error) {
	if err := precheck.Brokers(ctx, p.kafka); err != nil {
		return mongodb.Deployment{}, nil, err
	}
	if source, err = p.describeSource(ctx); err != nil {
		return mongodb.Deployment{}, nil, err
	}
	destinations = map[string]mongodb.Deployment{}
	for _, d := range p.cfg.Destinations {
		if destinations[d.Name], err = precheck.Destination(ctx, d.Name, p.target(d)); err != nil {
			return mongodb.Deployment{}, nil, err
		}
	}
	return source, destinations, precheck.Apart(source, destinations)
}
