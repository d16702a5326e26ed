package stack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/tributarydb/tributary/internal/testenv/engine"
)

// Servers are a broker, a source and destinations on loopback.
type Servers struct {
	Brokers []string
	// Source and Destinations are connection strings; the latter by name.
	Source       string
	Destinations map[string]string
	// Kafka and MongoDB say what runs: "kafka" or "kfake", "mongod" or
	// "embedded".
	Kafka, MongoDB string
	// Missing are the real engines that were not found.
	Missing []*engine.MissingError

	stops []func() error
}

// Choice says which engines to use.
type Choice string

// The choices.
const (
	// Auto uses a real engine where it is found.
	Auto Choice = "auto"
	// StandIns uses none.
	StandIns Choice = "embedded"
	// Real refuses to run without both.
	Real Choice = "real"
)

// sourceName names the source among the servers; no destination may have it.
const sourceName = "source"

// StartServers starts one broker, a source and the named destinations, with
// their data under dir. The caller stops what it returns.
func StartServers(ctx context.Context, dir string, choice Choice, destinations ...string) (*Servers, error) {
	s := &Servers{Destinations: map[string]string{}, Kafka: "kfake", MongoDB: "embedded"}
	kafka, kafkaErr := engine.FindKafka()
	mongod, mongodErr := engine.FindMongoD()
	for _, err := range []error{kafkaErr, mongodErr} {
		if missing, ok := errors.AsType[*engine.MissingError](err); ok {
			s.Missing = append(s.Missing, missing)
		} else if err != nil {
			return nil, err
		}
	}
	if choice == Real && len(s.Missing) > 0 {
		return nil, s.Missing[0]
	}
	names := append([]string{sourceName}, destinations...)
	g, ctx := errgroup.WithContext(ctx)
	standIns := engine.EmbeddedConfig{Dir: filepath.Join(dir, "embedded")}
	var broker *engine.Broker
	if kafkaErr == nil && choice != StandIns {
		s.Kafka = "kafka"
		g.Go(func() (err error) {
			broker, err = kafka.Start(ctx, engine.KafkaConfig{Dir: filepath.Join(dir, "kafka")})
			return err
		})
	} else {
		standIns.Kafka = true
	}
	sets := make([]*engine.ReplicaSet, len(names))
	if mongodErr == nil && choice != StandIns {
		s.MongoDB = "mongod"
		for i, name := range names {
			g.Go(func() (err error) {
				sets[i], err = engine.StartReplicaSet(ctx, engine.ReplicaSetConfig{
					MongoD: mongod, Dir: filepath.Join(dir, name), Name: name, OplogMB: 990,
				})
				return err
			})
		}
	} else {
		standIns.Servers = names
	}
	var embedded *engine.Embedded
	if standIns.Kafka || len(standIns.Servers) > 0 {
		g.Go(func() (err error) {
			embedded, err = engine.StartEmbedded(ctx, standIns)
			return err
		})
	}
	err := g.Wait()
	s.take(names, broker, sets, embedded)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start servers: %w", err), s.Stop())
	}
	return s, nil
}

// take notes the addresses of what runs and how to stop it.
func (s *Servers) take(names []string, broker *engine.Broker, sets []*engine.ReplicaSet, embedded *engine.Embedded) {
	addresses := map[string]string{}
	if running(embedded) {
		s.stops = append(s.stops, embedded.Kill)
		s.Brokers = embedded.Brokers
		for name, uri := range embedded.MongoDB {
			addresses[name] = uri
		}
	}
	if broker != nil && broker.Server != nil && broker.Process != nil {
		s.stops = append(s.stops, broker.Kill)
		s.Brokers = broker.Brokers
	}
	for i, set := range sets {
		if set != nil {
			s.stops = append(s.stops, set.Stop)
			addresses[names[i]] = set.URI
		}
	}
	for name, uri := range addresses {
		if name == sourceName {
			s.Source = uri
		} else {
			s.Destinations[name] = uri
		}
	}
}

func running(e *engine.Embedded) bool { return e != nil && e.Server != nil && e.Process != nil }

// Real reports whether both engines are real.
func (s *Servers) Real() bool { return s.Kafka == "kafka" && s.MongoDB == "mongod" }

// Standin reports whether the MongoDB servers are stand-ins.
func (s *Servers) Standin() bool { return s.MongoDB == "embedded" }

// Stop ends every server at once: their data is thrown away by the caller.
func (s *Servers) Stop() error {
	var errs []error
	for _, stop := range slices.Backward(s.stops) {
		errs = append(errs, stop())
	}
	s.stops = nil
	return errors.Join(errs...)
}
