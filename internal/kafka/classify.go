package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"

	"github.com/tributarydb/tributary/internal/retry"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Classify is the one place that decides about an error of a Kafka client.
// Lost history (an offset out of range) and fencing are Stop: their owners look
// for them before they ask.
func Classify(err error) retry.Verdict {
	var broker *kerr.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
		return retry.Stop
	case errors.As(err, &broker):
		return classifyBroker(broker)
	case isCertificate(err):
		return retry.Stop
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrRecordRetries):
		return retry.Connection
	case errors.Is(err, kgo.ErrAborting):
		return retry.Now
	case isNetwork(err):
		return retry.Connection
	}
	return retry.Other
}

func classifyBroker(err *kerr.Error) retry.Verdict {
	is := func(list ...*kerr.Error) bool { return slices.Contains(list, err) }
	switch {
	case is(kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState,
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.TransactionalIDAuthorizationFailed, kerr.SecurityDisabled):
		return retry.Stop
	case is(kerr.UnsupportedVersion, kerr.InvalidTopicException, kerr.PolicyViolation, kerr.InvalidConfig,
		kerr.InvalidReplicationFactor, kerr.InvalidPartitions, kerr.InvalidRequest, kerr.InvalidGroupID,
		kerr.InvalidTransactionTimeout, kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRequiredAcks,
		kerr.InvalidRecord, kerr.UnsupportedForMessageFormat):
		return retry.Stop
	case is(kerr.OffsetOutOfRange, kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.FencedInstanceID,
		kerr.TransactionCoordinatorFenced):
		return retry.Stop
	case is(kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.MemberIDRequired,
		kerr.FencedMemberEpoch, kerr.StaleMemberEpoch, kerr.ConcurrentTransactions, kerr.TransactionAbortable):
		return retry.Now
	case err.Retriable:
		return retry.Connection
	}
	return retry.Other
}

func isNetwork(err error) bool {
	var (
		network net.Error
		first   *kgo.ErrFirstReadEOF
	)
	return errors.As(err, &network) || errors.As(err, &first) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded)
}

// isCertificate reports whether the two sides do not agree about TLS, which no
// time heals.
func isCertificate(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
		unknown      x509.UnknownAuthorityError
		host         x509.HostnameError
		alert        tls.AlertError
	)
	return errors.As(err, &verification) || errors.As(err, &record) || errors.As(err, &unknown) ||
		errors.As(err, &host) || errors.As(err, &alert)
}
