package stack

import (
	"fmt"
	"os"

	"github.com/goccy/go-yaml"
)

// Pipeline is what a configuration file says of a pipeline on one broker.
type Pipeline struct {
	Name         string
	Brokers      []string
	Source       string
	Destinations []Destination
	// Partitions of the change and the snapshot topic; 0 leaves the defaults.
	Partitions int
	// ChunkBytes and BatchBytes make the full load's chunks and records
	// smaller, so that there is more to interrupt; 0 leaves the defaults.
	ChunkBytes, BatchBytes int
	// ReadDocuments bounds what the full load reads, in documents per second;
	// SnapshotDisk what of it waits in Kafka, in bytes. 0 leaves the defaults.
	ReadDocuments, SnapshotDisk int
	// LogLevel is "info" if empty.
	LogLevel string
	// Mode is how capture follows the source; empty leaves the default.
	Mode string
	// Include and Exclude select namespaces; nothing selects all.
	Include, Exclude []string
}

// Destination is one destination of a pipeline.
type Destination struct {
	Name string
	URI  string
	// Databases are renamed: the source's name to the destination's.
	Databases map[string]string
	// ExactlyOnce is "auto", "on" or "off"; empty leaves the default.
	ExactlyOnce string
}

// Write writes the configuration file.
func (p Pipeline) Write(path string) error {
	destinations := make([]any, 0, len(p.Destinations))
	for _, d := range p.Destinations {
		entry := yaml.MapSlice{{Key: "name", Value: d.Name}, {Key: "uri", Value: d.URI}}
		if len(d.Databases) > 0 {
			entry = append(entry, yaml.MapItem{Key: "rename", Value: map[string]any{"databases": d.Databases}})
		}
		if d.ExactlyOnce != "" {
			entry = append(entry, yaml.MapItem{Key: "exactly_once", Value: d.ExactlyOnce})
		}
		destinations = append(destinations, entry)
	}
	kafka := yaml.MapSlice{
		{Key: "brokers", Value: p.Brokers}, {Key: "replication_factor", Value: 1}, {Key: "min_insync_replicas", Value: 1},
	}
	if p.Partitions > 0 {
		kafka = append(kafka, yaml.MapItem{Key: "partitions", Value: p.Partitions}, yaml.MapItem{Key: "snapshot_partitions", Value: p.Partitions})
	}
	if p.SnapshotDisk > 0 {
		kafka = append(kafka, yaml.MapItem{Key: "snapshot_disk", Value: p.SnapshotDisk})
	}
	level := p.LogLevel
	if level == "" {
		level = "info"
	}
	source := yaml.MapSlice{{Key: "uri", Value: p.Source}}
	if p.Mode != "" {
		// Comparing the catalogue every second keeps tests short.
		source = append(source, yaml.MapItem{Key: "mode", Value: p.Mode}, yaml.MapItem{Key: "catalog_interval", Value: "1s"})
	}
	if p.ReadDocuments > 0 {
		source = append(source, yaml.MapItem{Key: "throttle", Value: map[string]int{"documents": p.ReadDocuments}})
	}
	document := yaml.MapSlice{
		{Key: "name", Value: p.Name},
		{Key: "source", Value: source},
		{Key: "kafka", Value: kafka},
		{Key: "destinations", Value: destinations},
		{Key: "log", Value: map[string]string{"level": level}},
	}
	if len(p.Include)+len(p.Exclude) > 0 {
		document = append(document, yaml.MapItem{Key: "select", Value: map[string][]string{"include": p.Include, "exclude": p.Exclude}})
	}
	if p.ChunkBytes > 0 {
		document = append(document, yaml.MapItem{Key: "snapshot", Value: map[string]int{"chunk": p.ChunkBytes, "batch": p.BatchBytes, "workers": 1}})
	}
	text, err := yaml.Marshal(document)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}
