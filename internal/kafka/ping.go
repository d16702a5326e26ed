package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"golang.org/x/sync/errgroup"
)

// pingTimeout bounds Ping.
const pingTimeout = 10 * time.Second

// Ping asks the seed brokers for an answer, all at once, and returns nil with
// the first one. Otherwise the error names every broker with its cause and the
// likely remedy. It blocks for 10 s at most and does not retry.
func Ping(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	brokers, names := cl.SeedBrokers(), seeds(cl)
	causes := make([]error, len(brokers))
	var (
		asking   errgroup.Group
		answered atomic.Bool
	)
	for i, b := range brokers {
		asking.Go(func() error {
			req := kmsg.NewPtrMetadataRequest()
			req.Topics = []kmsg.MetadataRequestTopic{} // none: brokers only
			_, causes[i] = b.Request(ctx, req)
			if causes[i] == nil {
				answered.Store(true)
				cancel() // one answer is enough
			}
			return causes[i]
		})
	}
	if err := asking.Wait(); err == nil && len(brokers) > 0 || answered.Load() {
		return nil
	}
	return pingError(names, causes, securityOf(cl))
}

func pingError(names []string, causes []error, sec security) error {
	if len(causes) == 0 {
		return errors.New("connect to Kafka: no broker is given: hint: set kafka.brokers to a list of host:port")
	}
	list := make([]string, len(causes))
	for i, err := range causes {
		name := "broker"
		if i < len(names) {
			name = names[i]
		}
		list[i] = name + ": " + err.Error()
	}
	return &unreachableError{message: "connect to Kafka: " + strings.Join(list, "; ") + ": hint: " + pingHint(causes, sec), causes: causes}
}

// security says how a client protects its connections.
type security struct{ tls, sasl bool }

func securityOf(cl *kgo.Client) security {
	mechanisms, _ := cl.OptValue(kgo.SASL).([]sasl.Mechanism)
	return security{tls: cl.OptValue(kgo.DialTLSConfig) != (*tls.Config)(nil), sasl: len(mechanisms) > 0}
}

// unreachableError keeps the causes for Classify while it says each of them
// once.
type unreachableError struct {
	message string
	causes  []error
}

func (e *unreachableError) Error() string   { return e.message }
func (e *unreachableError) Unwrap() []error { return e.causes }

func pingHint(causes []error, sec security) string {
	err := errors.Join(causes...)
	var first *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "the brokers do not know this user and password: check kafka.sasl.username, kafka.sasl.password and kafka.sasl.mechanism"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "the brokers do not offer this mechanism: check kafka.sasl.mechanism"
	case isCertificate(err):
		return "TLS was not agreed: check kafka.tls (is it the TLS port, is kafka.tls.ca_file the authority that signed the broker's certificate, does kafka.tls.server_name match it)"
	case sec.sasl && errors.Is(err, io.EOF):
		return "the broker hung up while it was asked to authenticate: check kafka.sasl.username, kafka.sasl.password and kafka.sasl.mechanism, and that kafka.tls matches the listener of this port"
	case errors.As(err, &first), errors.Is(err, io.EOF):
		return "the broker hung up on the first request: check that kafka.tls and kafka.sasl match the listener of this port"
	case sec.tls && errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %s: is this the TLS port (kafka.tls), and is the broker running?", pingTimeout)
	}
	return fmt.Sprintf("is Kafka running, and are kafka.brokers right (tried for at most %s)?", pingTimeout)
}
