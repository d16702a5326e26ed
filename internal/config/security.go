package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

func (k *Kafka) validateSecurity(r *report) {
	if !k.TLS.Enabled && (k.TLS.CAFile != "" || k.TLS.CertFile != "" || k.TLS.KeyFile != "" || k.TLS.ServerName != "") {
		r.add("kafka.tls", "is set up but not enabled", "add enabled: true, or remove the section")
	}
	if !r.faultAt("kafka.tls") {
		if _, err := k.TLSConfig(); err != nil {
			r.add("kafka.tls", err.Error(), "")
		}
	}
	if r.faultAt("kafka.sasl") {
		return
	}
	if _, err := k.SASLMechanism(); err != nil {
		r.add("kafka.sasl", err.Error(), "")
	}
}

// relativeTo makes the paths relative to a directory.
func (t *TLS) relativeTo(dir string) {
	for _, path := range []*string{&t.CAFile, &t.CertFile, &t.KeyFile} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}

// TLSConfig returns the settings of TLS to the brokers, or nil where it is not
// enabled. It reads the files that the configuration names.
func (k *Kafka) TLSConfig() (*tls.Config, error) {
	if !k.TLS.Enabled {
		return nil, nil //nolint:nilnil // No TLS is an answer that kafka.Config takes.
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: k.TLS.ServerName}
	if k.TLS.CAFile != "" {
		pem, err := os.ReadFile(k.TLS.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ca_file %s: it holds no certificate in PEM form", k.TLS.CAFile)
		}
	}
	if (k.TLS.CertFile == "") != (k.TLS.KeyFile == "") {
		return nil, errors.New("cert_file and key_file belong together: hint: give both or none")
	}
	if k.TLS.CertFile != "" {
		certificate, err := tls.LoadX509KeyPair(k.TLS.CertFile, k.TLS.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read cert_file and key_file: %w", err)
		}
		cfg.Certificates = []tls.Certificate{certificate}
	}
	return cfg, nil
}

// SASLMechanism returns how to authenticate to the brokers, or nil where the
// configuration has no mechanism.
func (k *Kafka) SASLMechanism() (sasl.Mechanism, error) {
	s := k.SASL
	if s.Mechanism == "" {
		if s.Username != "" || s.Password != "" {
			return nil, errors.New("has a user but no mechanism: hint: set mechanism to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
		}
		return nil, nil //nolint:nilnil // No SASL is an answer that kafka.Config takes.
	}
	if s.Username == "" || s.Password == "" {
		return nil, errors.New("has a mechanism but no username or no password")
	}
	switch s.Mechanism {
	case MechanismPlain:
		return plain.Auth{User: s.Username, Pass: s.Password}.AsMechanism(), nil
	case MechanismScram256:
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha256Mechanism(), nil
	case MechanismScram512:
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("mechanism %q is not known: hint: use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", s.Mechanism)
}
