package testenv_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/tributarydb/tributary/internal/testenv"
)

func TestStandInAuthenticates(t *testing.T) {
	broker := testenv.StandIn(
		t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "anna", "secret"),
		kfake.Superuser("SCRAM-SHA-256", "bert", "secret"), kfake.Superuser("SCRAM-SHA-512", "carl", "secret"),
	)
	tests := map[string]struct {
		mechanism sasl.Mechanism
		ok        bool
	}{
		"plain":          {plain.Auth{User: "anna", Pass: "secret"}.AsMechanism(), true},
		"scram-sha-256":  {scram.Auth{User: "bert", Pass: "secret"}.AsSha256Mechanism(), true},
		"scram-sha-512":  {scram.Auth{User: "carl", Pass: "secret"}.AsSha512Mechanism(), true},
		"wrong password": {scram.Auth{User: "carl", Pass: "guess"}.AsSha512Mechanism(), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, broker, kgo.SASL(test.mechanism))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := client.Ping(ctx); (err == nil) != test.ok {
				t.Errorf("ping: %v, want success: %t", err, test.ok)
			}
		})
	}
}

func TestStandInSpeaksTLS(t *testing.T) {
	certificate := testenv.NewCertificate(t)
	broker := testenv.StandIn(t, kfake.TLS(certificate.Server))
	authority, err := os.ReadFile(certificate.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		t.Fatal("authority's file holds no certificate")
	}
	client := newClient(t, broker, kgo.DialTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}))
	if err := client.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
}
