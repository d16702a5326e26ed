package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The types of synchronisation.
const (
	// SyncSchema brings collections, their options, views and indexes.
	SyncSchema = "schema"
	// SyncFull brings the documents that are there.
	SyncFull = "full"
	// SyncIncremental follows the changes, DDL among them, for ever.
	SyncIncremental = "incremental"
)

// StartNow begins an incremental synchronisation at the present.
const StartNow = "now"

// Syncs reports whether the destination has a type of synchronisation.
func (d *Destination) Syncs(kind string) bool { return slices.Contains(d.Sync, kind) }

// Loads reports whether the destination takes part in runs of snapshot.
func (d *Destination) Loads() bool { return d.Syncs(SyncSchema) || d.Syncs(SyncFull) }

// StartTime is the cluster time behind which a destination without a load takes
// changes; zero for the present.
func (d *Destination) StartTime() (bson.Timestamp, error) {
	if d.Start == "" || d.Start == StartNow {
		return bson.Timestamp{}, nil
	}
	return parseStart(d.Start)
}

// parseStart reads an RFC 3339 time or a cluster time, as 1700000000.3.
func parseStart(text string) (bson.Timestamp, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		if t.Unix() <= 0 || t.Unix() > int64(^uint32(0)) {
			return bson.Timestamp{}, errors.New("lies outside of what a cluster time can say")
		}
		return bson.Timestamp{T: uint32(t.Unix())}, nil
	}
	seconds, ordinal, _ := strings.Cut(text, ".")
	t, err := strconv.ParseUint(seconds, 10, 32)
	if err != nil || t == 0 {
		return bson.Timestamp{}, errors.New("is no time")
	}
	i, err := strconv.ParseUint(ordinal, 10, 32)
	if err != nil && ordinal != "" {
		return bson.Timestamp{}, errors.New("is no time")
	}
	return bson.Timestamp{T: uint32(t), I: uint32(i)}, nil
}

// FirstStart is the earliest time from which a destination wants changes; zero
// where the present does for all.
func (c *Config) FirstStart() (first bson.Timestamp, err error) {
	for i := range c.Destinations {
		at, err := c.Destinations[i].StartTime()
		if err != nil {
			return bson.Timestamp{}, err
		}
		if !at.IsZero() && (first.IsZero() || at.T < first.T || at.T == first.T && at.I < first.I) {
			first = at
		}
	}
	return first, nil
}

// Loads reports whether any destination takes part in runs of snapshot.
func (c *Config) Loads() bool {
	return slices.ContainsFunc(c.Destinations, func(d Destination) bool { return d.Loads() })
}

// LoadsDocuments reports whether any destination takes the source's documents.
func (c *Config) LoadsDocuments() bool {
	return slices.ContainsFunc(c.Destinations, func(d Destination) bool { return d.Syncs(SyncFull) })
}

// LoadingDocuments names the destinations that take the source's documents.
func (c *Config) LoadingDocuments() (names []string) {
	for _, d := range c.Destinations {
		if d.Syncs(SyncFull) {
			names = append(names, d.Name)
		}
	}
	return names
}

// OneOff reports whether no destination follows changes: then the pipeline ends
// by itself.
func (c *Config) OneOff() bool {
	return !slices.ContainsFunc(c.Destinations, func(d Destination) bool { return d.Syncs(SyncIncremental) })
}

// validateSync refuses what makes no sense.
func (d *Destination) validateSync(r *report, path string) {
	if at := path + ".sync"; !r.faultAt(at) {
		if len(d.Sync) == 0 {
			r.add(at, "is empty", "list some of schema, full, incremental, or remove the key for all of them")
			return
		}
		for i, kind := range d.Sync {
			element := fmt.Sprintf("%s[%d]", at, i)
			oneOf(r, element, kind, SyncSchema, SyncFull, SyncIncremental)
			if slices.Index(d.Sync, kind) < i {
				r.add(element, fmt.Sprintf("%q is there twice", kind), "remove one of them")
			}
		}
	}
	if r.faultAt(path+".sync") || r.faultAt(path+".start") {
		return
	}
	d.validateStart(r, path+".start")
}

func (d *Destination) validateStart(r *report, at string) {
	alone := d.Syncs(SyncIncremental) && !d.Loads()
	switch {
	case d.Start == "" && alone:
		r.add(at, "is missing", "changes alone begin somewhere: say now, a time as 2026-01-31T08:00:00Z, or a cluster time as 1769846400.1")
	case d.Start == "":
	case !alone:
		r.add(at, "is for sync: [incremental] alone", "remove it: the changes begin where the load does")
	case d.Start != StartNow:
		if _, err := parseStart(d.Start); err != nil {
			r.add(at, fmt.Sprintf("%q %v", d.Start, err), "say now, a time as 2026-01-31T08:00:00Z, or a cluster time as 1769846400.1")
		}
	}
}
