package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/tributarydb/tributary/internal/kafka"
	"github.com/tributarydb/tributary/internal/retry"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/testenv"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const secret = "geheim-4711"

func newClient(t *testing.T, cfg kafka.Config, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cfg.Log = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel)
	cl, err := kafka.NewClient(cfg, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func spec() kafka.TopicSpec {
	return kafka.TopicSpec{Partitions: 4, SnapshotPartitions: 2, ReplicationFactor: 1, MinInsyncReplicas: 1, Retention: time.Hour}
}

func TestEnsureTopics(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		names := route.TopicsOf(testenv.NewPipeline(t))
		// Many processes may start at once.
		var starting errgroup.Group
		for range 3 {
			cl := newClient(t, kafka.Config{Brokers: b.Brokers})
			starting.Go(func() error { return kafka.EnsureTopics(t.Context(), cl, names, spec()) })
		}
		if err := starting.Wait(); err != nil {
			t.Fatal(err)
		}
		admin := kadm.NewClient(newClient(t, kafka.Config{Brokers: b.Brokers}))
		want := map[string]map[string]string{
			names.Changes:  {"cleanup.policy": "delete", "retention.ms": "3600000", "partitions": "4"},
			names.Snapshot: {"cleanup.policy": "delete", "retention.ms": "-1", "partitions": "2"},
			names.Chunks:   {"cleanup.policy": "delete", "retention.ms": "-1", "partitions": "2"},
			names.State:    {"cleanup.policy": "compact", "partitions": "1"},
			names.Control:  {"cleanup.policy": "delete", "retention.ms": "604800000", "partitions": "1"},
		}
		for name, settings := range want {
			settings["message.timestamp.type"] = "LogAppendTime"
			settings["max.message.bytes"] = "25165824"
			settings["min.insync.replicas"] = "1"
			if diff := cmp.Diff(settings, settingsOf(t, admin, name, settings)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}

// settingsOf returns the settings of a topic that want has too.
func settingsOf(t *testing.T, admin *kadm.Client, topic string, want map[string]string) map[string]string {
	t.Helper()
	described, err := admin.DescribeTopicConfigs(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	listed, err := admin.ListTopics(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{"partitions": fmt.Sprint(len(listed[topic].Partitions))}
	for _, d := range described {
		for _, c := range d.Configs {
			if _, ok := want[c.Key]; ok && c.Value != nil {
				got[c.Key] = *c.Value
			}
		}
	}
	return got
}

func TestEnsureTopicsNamesEveryWrongSetting(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		cl := newClient(t, kafka.Config{Brokers: b.Brokers})
		names := route.TopicsOf(testenv.NewPipeline(t))
		create(t, cl, names.State, 3, map[string]string{"cleanup.policy": "delete", "max.message.bytes": "100000"})
		create(t, cl, names.Changes, 4, map[string]string{
			"message.timestamp.type": "LogAppendTime", "retention.ms": "1000", "max.message.bytes": "100000",
		})
		create(t, cl, names.Snapshot, 2, map[string]string{
			"message.timestamp.type": "LogAppendTime", "retention.ms": "-1", "max.message.bytes": "30000000", "min.insync.replicas": "1",
		})
		err := kafka.EnsureTopics(t.Context(), cl, names, spec())
		wrong, ok := errors.AsType[*kafka.WrongTopicsError](err)
		if !ok {
			t.Fatalf("error %v", err)
		}
		var got []string
		for _, s := range wrong.Settings {
			got = append(got, s.Topic+" "+s.Setting)
		}
		want := []string{
			names.Changes + " retention.ms", names.Changes + " max.message.bytes",
			names.State + " cleanup.policy", names.State + " message.timestamp.type", names.State + " max.message.bytes", names.State + " partitions",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, text := range []string{
			"kafka-configs.sh --bootstrap-server " + strings.Join(b.Brokers, ","),
			"--entity-name " + names.Changes + " --add-config retention.ms=3600000,max.message.bytes=262144",
			names.State + " has cleanup.policy=delete, wants compact",
			"delete topic " + names.State,
		} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("error does not hold %q:\n%v", text, err)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("error has several lines: %q", err)
		}
	})
}

func create(t *testing.T, cl *kgo.Client, topic string, partitions int32, settings map[string]string) {
	t.Helper()
	configs := map[string]*string{}
	for k, v := range settings {
		configs[k] = &v
	}
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), partitions, 1, configs, topic); err != nil {
		t.Fatal(err)
	}
}

func TestEnsureTopicsNeedsEnoughBrokers(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		cl := newClient(t, kafka.Config{Brokers: b.Brokers})
		many := spec()
		many.ReplicationFactor = 3
		err := kafka.EnsureTopics(t.Context(), cl, route.TopicsOf(testenv.NewPipeline(t)), many)
		if err == nil || !strings.Contains(err.Error(), "set kafka.replication_factor") || kafka.Classify(err) != retry.Stop {
			t.Errorf("error %v", err)
		}
	})
}

func TestLargestDocumentPasses(t *testing.T) {
	testenv.EachKafka(t, func(t *testing.T, b testenv.Broker) {
		cl := newClient(t, kafka.Config{Brokers: b.Brokers})
		names := route.TopicsOf(testenv.NewPipeline(t))
		if err := kafka.EnsureTopics(t.Context(), cl, names, spec()); err != nil {
			t.Fatal(err)
		}
		value := make([]byte, 23<<20)
		if _, err := rand.Read(value); err != nil {
			t.Fatal(err)
		}
		produced := cl.ProduceSync(t.Context(), &kgo.Record{Topic: names.Changes, Value: value})
		if err := produced.FirstErr(); err != nil {
			t.Fatal(err)
		}
		reader := newClient(t, kafka.Config{Brokers: b.Brokers}, kgo.ConsumeTopics(names.Changes))
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		if got := fetches.Records(); len(got) != 1 || len(got[0].Value) != len(value) {
			t.Errorf("read %d records", len(got))
		}
	})
}

func TestPingSaysWhatIsWrong(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	certificate, roots := selfSigned(t)
	open := cluster(t)
	encrypted := cluster(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}))
	locked := cluster(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "alice", secret))
	for name, test := range map[string]struct {
		cfg     kafka.Config
		want    []string
		verdict retry.Verdict
	}{
		"down":             {kafka.Config{Brokers: []string{closed}}, []string{closed, "refused", "is Kafka running"}, retry.Connection},
		"two down":         {kafka.Config{Brokers: []string{closed, "127.0.0.1:1"}}, []string{closed, "127.0.0.1:1"}, retry.Connection},
		"TLS to plaintext": {kafka.Config{Brokers: open, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}, []string{"kafka.tls"}, retry.Connection},
		"plaintext to TLS": {kafka.Config{Brokers: encrypted}, []string{"kafka.tls"}, retry.Connection},
		"other authority":  {kafka.Config{Brokers: encrypted, TLS: &tls.Config{MinVersion: tls.VersionTLS12}}, []string{"kafka.tls.ca_file"}, retry.Stop},
		"other password":   {kafka.Config{Brokers: locked, SASL: plainAuth("alice", "x-"+secret)}, []string{"kafka.sasl.password"}, retry.Connection},
		"other mechanism":  {kafka.Config{Brokers: locked, SASL: scram256("alice", "x-"+secret)}, []string{"kafka.sasl.mechanism"}, retry.Connection},
		"no password":      {kafka.Config{Brokers: locked}, []string{"kafka.sasl"}, retry.Connection},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			cl := newClient(t, test.cfg)
			err := kafka.EnsureTopics(t.Context(), cl, route.TopicsOf("x"), spec())
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(test.want, "connect to Kafka", "hint: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not hold %q", err, want)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("error %q has the password", err)
			}
			if got := kafka.Classify(err); got != test.verdict {
				t.Errorf("verdict %s, want %s: %v", got, test.verdict, err)
			}
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestSecureConnections(t *testing.T) {
	certificate, roots := selfSigned(t)
	serverTLS := kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	clientTLS := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	for name, test := range map[string]struct {
		server []kfake.Opt
		cfg    kafka.Config
	}{
		"TLS":                 {[]kfake.Opt{serverTLS}, kafka.Config{TLS: clientTLS}},
		"PLAIN":               {[]kfake.Opt{kfake.EnableSASL(), kfake.Superuser("PLAIN", "alice", secret)}, kafka.Config{SASL: plainAuth("alice", secret)}},
		"SCRAM-SHA-256":       {[]kfake.Opt{kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "alice", secret)}, kafka.Config{SASL: scram256("alice", secret)}},
		"SCRAM-SHA-512":       {[]kfake.Opt{kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "alice", secret)}, kafka.Config{SASL: scram.Auth{User: "alice", Pass: secret}.AsSha512Mechanism()}},
		"TLS and SCRAM":       {[]kfake.Opt{serverTLS, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "alice", secret)}, kafka.Config{TLS: clientTLS, SASL: scram.Auth{User: "alice", Pass: secret}.AsSha512Mechanism()}},
		"nothing of the sort": {nil, kafka.Config{}},
	} {
		t.Run(name, func(t *testing.T) {
			test.cfg.Brokers = cluster(t, test.server...)
			cl := newClient(t, test.cfg)
			if err := kafka.EnsureTopics(t.Context(), cl, route.TopicsOf("secure"), spec()); err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "secure.changes", Value: []byte("x")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestClassify(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want retry.Verdict
	}{
		"none":           {nil, retry.Stop},
		"canceled":       {context.Canceled, retry.Stop},
		"client closed":  {kgo.ErrClientClosed, retry.Stop},
		"deadline":       {context.DeadlineExceeded, retry.Connection},
		"refused":        {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, retry.Connection},
		"hang-up":        {fmt.Errorf("x: %w", io.EOF), retry.Connection},
		"record timeout": {kgo.ErrRecordTimeout, retry.Connection},
		"no leader":      {kerr.NotLeaderForPartition, retry.Connection},
		"few replicas":   {kerr.NotEnoughReplicas, retry.Connection},
		"no access":      {kerr.TopicAuthorizationFailed, retry.Stop},
		"password":       {fmt.Errorf("x: %w", kerr.SaslAuthenticationFailed), retry.Stop},
		"too large":      {kerr.MessageTooLarge, retry.Stop},
		"history lost":   {kerr.OffsetOutOfRange, retry.Stop},
		"fenced":         {kerr.ProducerFenced, retry.Stop},
		"rebalance":      {kerr.RebalanceInProgress, retry.Now},
		"authority":      {x509.UnknownAuthorityError{}, retry.Stop},
		"unknown server": {kerr.UnknownServerError, retry.Other},
		"unknown":        {errors.New("x"), retry.Other},
	} {
		if got := kafka.Classify(test.err); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestNewClientNeedsBrokers(t *testing.T) {
	if _, err := kafka.NewClient(kafka.Config{}); err == nil || !strings.Contains(err.Error(), "kafka.brokers") {
		t.Errorf("error %v", err)
	}
}

func cluster(t *testing.T, opts ...kfake.Opt) []string {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

func plainAuth(user, pass string) sasl.Mechanism {
	return plain.Auth{User: user, Pass: pass}.AsMechanism()
}

func scram256(user, pass string) sasl.Mechanism {
	return scram.Auth{User: user, Pass: pass}.AsSha256Mechanism()
}

// selfSigned makes a certificate for 127.0.0.1 and the pool that trusts it.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
