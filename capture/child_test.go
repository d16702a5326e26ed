package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/tributarydb/tributary/internal/testenv/engine"
)

// childEnv holds the childConfig of a test binary that is to be a capture
// process.
const childEnv = "CAPTURE_TEST_CHILD"

// childConfig is what a child needs to know.
type childConfig struct {
	Pipeline, Instance, URI string
	Brokers                 []string
	Topics                  kafka.TopicSpec
}

// childMain runs a service with the product's own times until it ends.
func childMain() int {
	var c childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	s, err := New(Config{
		Pipeline: c.Pipeline, Instance: c.Instance, Kafka: kafka.Config{Brokers: c.Brokers, Log: zerolog.Nop()}, Topics: c.Topics,
		Source: mongodb.Options{URI: c.URI},
		Retry:  retry.Policy{Connection: 5 * time.Minute, Other: 2 * time.Minute},
		Log:    zerolog.New(os.Stderr).With().Timestamp().Logger(),
	})
	if err == nil {
		err = s.Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

// startChild starts a capture process of its own.
func startChild(t testing.TB, cfg Config, instance string) *engine.Process {
	t.Helper()
	config, err := json.Marshal(childConfig{Pipeline: cfg.Pipeline, Instance: instance, URI: cfg.Source.URI, Brokers: cfg.Kafka.Brokers, Topics: cfg.Topics})
	if err != nil {
		t.Fatal(err)
	}
	return testenv.StartSelf(t, "capture "+instance, childEnv+"="+string(config))
}
