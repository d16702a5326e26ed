package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/rules"
)

// validate reports every fault of a decoded configuration. Where decoding has
// already found one it adds none.
func (c *Config) validate(r *report) {
	c.validateName(r)
	c.validateLabels(r)
	validateURI(r, "source.uri", c.Source.URI)
	oneOf(r, "source.mode", c.Source.Mode, ModeAuto, ModeOplog, ModeChangeStream)
	lasts(r, "source.catalog_interval", c.Source.CatalogInterval, time.Second)
	c.Source.Throttle.validate(r, "source.throttle")
	c.Kafka.validate(r)
	c.Select.validate(r, "select")
	c.validateTuning(r)
	c.validateDestinations(r)
	if c.HTTP.Address != AddressOff {
		validateAddress(r, "http.address", c.HTTP.Address)
	}
	oneOf(r, "log.level", c.Log.Level, "trace", "debug", "info", "warn", "error")
	oneOf(r, "log.format", c.Log.Format, FormatConsole, FormatJSON)
}

func (c *Config) validateName(r *report) {
	if r.faultAt("name") {
		return
	}
	if c.Name == "" {
		r.add("name", "is missing", "give the pipeline a name: its topics are called after it")
		return
	}
	if err := route.ValidateName("pipeline", c.Name); err != nil {
		r.add("name", err.Error(), "")
	}
}

// validateLabels keeps to what Prometheus allows and away from the labels that
// the metrics have already.
func (c *Config) validateLabels(r *report) {
	own := []string{"pipeline", "service", "destination", "partition", "topic", "op", "state", "phase", "reason", "le", "quantile"}
	for name := range c.Labels {
		at := join("labels", name)
		switch {
		case slices.Contains(own, name):
			r.add(at, "is the name of a label that Tributary sets", "choose another name")
		case !legalLabel(name):
			r.add(at, "is no legal label name", "use letters, digits and _, and a letter first")
		}
	}
}

func legalLabel(name string) bool {
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return name != ""
}

func validateURI(r *report, path, uri string) {
	if r.faultAt(path) {
		return
	}
	if uri == "" {
		r.add(path, "is missing", "give a MongoDB connection string, as mongodb://host:27017/?replicaSet=rs0")
		return
	}
	if err := mongodb.CheckURI(uri); err != nil {
		r.add(path, err.Error(), "")
	}
}

func (k *Kafka) validate(r *report) {
	if len(k.Brokers) == 0 && !r.faultAt("kafka.brokers") {
		r.add("kafka.brokers", "is missing", "list at least one broker as host:port")
	}
	for i, b := range k.Brokers {
		validateAddress(r, fmt.Sprintf("kafka.brokers[%d]", i), b)
	}
	between(r, "kafka.replication_factor", k.ReplicationFactor, 1, 1000)
	between(r, "kafka.min_insync_replicas", k.MinInsyncReplicas, 1, 1000)
	if k.MinInsyncReplicas > k.ReplicationFactor && !r.faultAt("kafka.min_insync_replicas") {
		r.add("kafka.min_insync_replicas", fmt.Sprintf("%d is more than the replication factor %d", k.MinInsyncReplicas, k.ReplicationFactor),
			"nothing could be written: lower it, or raise kafka.replication_factor; a single broker wants 1 and 1")
	}
	between(r, "kafka.partitions", k.Partitions, 1, 10_000)
	between(r, "kafka.snapshot_partitions", k.SnapshotPartitions, 1, 10_000)
	size(r, "kafka.snapshot_disk", k.SnapshotDisk, 64*mib, 1<<20*gib)
	lasts(r, "kafka.retention", k.Retention, time.Hour)
	lasts(r, "kafka.max_retention", k.MaxRetention, 0)
	k.validateSecurity(r)
}

func (s *Select) validate(r *report, path string) {
	_, err := rules.CompileSelection(s.Include, s.Exclude)
	for _, fault := range split(err) {
		if pattern, ok := errors.AsType[*rules.PatternError](fault); ok {
			r.add(fmt.Sprintf("%s.%s[%d]", path, pattern.List, pattern.Index), fmt.Sprintf("pattern %q: %v", pattern.Pattern, pattern.Err), "")
		}
	}
}

// split takes joined errors apart.
func split(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

func (c *Config) validateTuning(r *report) {
	lasts(r, "capture.commit_interval", c.Capture.CommitInterval, time.Millisecond)
	if c.Capture.CommitInterval > 5*time.Second {
		r.add("capture.commit_interval", fmt.Sprintf("%s is too long", c.Capture.CommitInterval), "a Kafka transaction lives for 15s: use 5s at most")
	}
	between(r, "capture.commit_events", c.Capture.CommitEvents, 1, 1_000_000)
	size(r, "capture.queue", c.Capture.Queue, mib, 64*gib)
	size(r, "snapshot.batch", c.Snapshot.Batch, 16*kib, 12*mib)
	size(r, "snapshot.chunk", c.Snapshot.Chunk, mib, 64*gib)
	between(r, "snapshot.chunk_documents", c.Snapshot.ChunkDocuments, 1000, 1_000_000_000)
	between(r, "snapshot.retain_runs", c.Snapshot.RetainRuns, 0, 10)
	between(r, "snapshot.workers", c.Snapshot.Workers, 1, 256)
	c.Snapshot.validateReads(r)
	c.Retry.validate(r)
}

// validateAddress checks host:port.
func validateAddress(r *report, path, address string) {
	if r.faultAt(path) {
		return
	}
	host, port, err := net.SplitHostPort(address)
	number, bad := strconv.ParseUint(port, 10, 16)
	if err != nil || bad != nil || host == "" && path != "http.address" || number == 0 && path != "http.address" {
		r.add(path, fmt.Sprintf("%q is no address", address), "write host:port")
	}
}

func oneOf(r *report, path, value string, allowed ...string) {
	if r.faultAt(path) || slices.Contains(allowed, value) {
		return
	}
	hint := "use one of " + strings.Join(allowed, ", ")
	if near := Nearest(value, allowed); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	r.add(path, fmt.Sprintf("%q is not known", value), hint)
}

func between(r *report, path string, n, low, high int) {
	if (n < low || n > high) && !r.faultAt(path) {
		r.add(path, fmt.Sprintf("%d is out of range", n), fmt.Sprintf("use %d to %d", low, high))
	}
}

func size(r *report, path string, n, low, high Bytes) {
	if (n < low || n > high) && !r.faultAt(path) {
		r.add(path, fmt.Sprintf("%d bytes is out of range", n), fmt.Sprintf("use %s to %s", low, high))
	}
}

func lasts(r *report, path string, d, least time.Duration) {
	if d < least && !r.faultAt(path) {
		r.add(path, fmt.Sprintf("%s is too short", d), fmt.Sprintf("use %s or more", least))
	}
}

// String writes a size with the largest unit that divides it.
func (b Bytes) String() string {
	switch {
	case b >= gib && b%gib == 0:
		return fmt.Sprintf("%dGiB", b/gib)
	case b >= mib && b%mib == 0:
		return fmt.Sprintf("%dMiB", b/mib)
	case b >= kib && b%kib == 0:
		return fmt.Sprintf("%dKiB", b/kib)
	}
	return strconv.FormatInt(int64(b), 10)
}
