package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/route"
	"github.com/tributarydb/tributary/internal/rules"
)

func (c *Config) validateDestinations(r *report) {
	if len(c.Destinations) == 0 && !r.faultAt("destinations") {
		r.add("destinations", "is missing", "list at least one destination with a name and a uri")
	}
	names, hosts := map[string]string{}, map[string]string{}
	for _, h := range withPorts(c.Source.URI) {
		hosts[h] = "source"
	}
	for i := range c.Destinations {
		d, path := &c.Destinations[i], fmt.Sprintf("destinations[%d]", i)
		d.validate(r, path)
		if other, taken := names[d.Name]; taken && d.Name != "" {
			r.add(path+".name", fmt.Sprintf("%q is also the name of %s", d.Name, other), "give each destination a name of its own")
		}
		names[d.Name] = path
		mine := withPorts(d.URI)
		for _, h := range mine {
			if other, taken := hosts[h]; taken && other != path {
				r.add(path+".uri", fmt.Sprintf("names the server %s, which is %s", h, also(other)), "a destination must be a deployment of its own")
				break
			}
		}
		for _, h := range mine {
			if _, taken := hosts[h]; !taken {
				hosts[h] = path
			}
		}
	}
}

func also(other string) string {
	if other == "source" {
		return "also the source"
	}
	return "also " + other
}

func (d *Destination) validate(r *report, path string) {
	at := path + ".name"
	switch {
	case r.faultAt(at):
	case d.Name == "":
		r.add(at, "is missing", "give the destination a short name: its consumer group is called after it")
	case strings.Contains(d.Name, "."):
		r.add(at, fmt.Sprintf("%q has a dot", d.Name), "use letters, digits, _ and -")
	case d.Name == "capture" || d.Name == "snapshot":
		r.add(at, fmt.Sprintf("%q is the name of a service, whose consumer group is called so", d.Name), "choose another name")
	default:
		if err := route.ValidateName("destination", d.Name); err != nil {
			r.add(at, err.Error(), "")
		}
	}
	validateURI(r, path+".uri", d.URI)
	d.validateSync(r, path)
	d.Select.validate(r, path+".select")
	d.Throttle.validate(r, path+".throttle")
	d.Sharding.validate(r, path+".sharding")
	_, err := rules.CompileRename(d.Rename.Databases)
	for _, fault := range split(err) {
		if rename, ok := errors.AsType[*rules.RenameError](fault); ok {
			r.add(path+".rename.databases."+rename.From, rename.Err.Error(), "")
		}
	}
	oneOf(r, path+".exactly_once", d.ExactlyOnce, "auto", "on", "off")
	oneOf(r, path+".indexes.unique", d.Indexes.Unique, IndexesDeferred, IndexesEnforced)
	oneOf(r, path+".indexes.ttl", d.Indexes.TTL, IndexesDeferred, IndexesEnforced)
	oneOf(r, path+".on_error", d.OnError, OnErrorStop, OnErrorDeadLetter)
	oneOf(r, path+".conflicts", d.Conflicts, ConflictsFail, ConflictsKeep, ConflictsOverwrite)
	between(r, path+".index_builds", d.IndexBuilds, 1, 16)
	between(r, path+".batch_documents", d.BatchDocuments, 1, 10_000)
	size(r, path+".batch_bytes", d.BatchBytes, 64*kib, 64*mib)
	size(r, path+".queue", d.Queue, mib, 64*gib)
}

// withPorts returns the hosts of a connection string with their ports, so that
// a missing one and the default are the same; names of mongodb+srv have none.
func withPorts(uri string) []string {
	hosts := mongodb.Hosts(uri)
	if strings.HasPrefix(uri, "mongodb+srv://") {
		return hosts
	}
	for i, h := range hosts {
		if !strings.Contains(h[strings.LastIndexByte(h, ']')+1:], ":") {
			hosts[i] = h + ":27017"
		}
	}
	return hosts
}

// Destination returns the destination of that name.
func (c *Config) Destination(name string) (Destination, error) {
	known := make([]string, len(c.Destinations))
	for i, d := range c.Destinations {
		if d.Name == name {
			return d, nil
		}
		known[i] = d.Name
	}
	return Destination{}, fmt.Errorf("find destination %q: the configuration has no such destination: hint: use one of %s", name, strings.Join(known, ", "))
}

// Selection compiles the pipeline's selection.
func (c *Config) Selection() (*rules.Selection, error) {
	return rules.CompileSelection(c.Select.Include, c.Select.Exclude)
}

// Rules compiles what a destination does with namespaces: the pipeline's
// selection and its own, and its renaming.
func (c *Config) Rules(d Destination) (rules.Destination, error) {
	pipeline, err := c.Selection()
	if err != nil {
		return rules.Destination{}, err
	}
	own, err := rules.CompileSelection(d.Select.Include, d.Select.Exclude)
	if err != nil {
		return rules.Destination{}, err
	}
	rename, err := rules.CompileRename(d.Rename.Databases)
	if err != nil {
		return rules.Destination{}, err
	}
	return rules.Destination{Selection: pipeline.And(own), Rename: rename, Indexes: d.Indexes.policy()}, nil
}

func (i Indexes) policy() rules.IndexPolicy {
	return rules.IndexPolicy{Unique: i.Unique == IndexesEnforced, TTL: i.TTL == IndexesEnforced}
}

// EnforcesUnique returns, by destination, the selections under which unique
// indexes are enforced: capture keeps the order of such collections as a whole.
func (c *Config) EnforcesUnique() (map[string]*rules.Selection, error) {
	enforced := map[string]*rules.Selection{}
	for _, d := range c.Destinations {
		if !d.Indexes.policy().Unique || !d.Syncs(SyncIncremental) {
			continue
		}
		r, err := c.Rules(d)
		if err != nil {
			return nil, err
		}
		enforced[d.Name] = r.Selection
	}
	return enforced, nil
}

// Patterns are the pipeline's selection as it is written.
func (c *Config) Patterns() rules.Patterns {
	return rules.Patterns{Include: c.Select.Include, Exclude: c.Select.Exclude}
}

// Layers are a destination's selection as it is written, the pipeline's first.
func (c *Config) Layers(d Destination) rules.Layers {
	return rules.Layers{c.Patterns(), {Include: d.Select.Include, Exclude: d.Select.Exclude}}
}

// FixedDigest is RulesDigest without the selection, which may change.
func (c *Config) FixedDigest(d Destination) (string, error) {
	fixed := *c
	fixed.Select, d.Select = Select{}, Select{}
	return fixed.RulesDigest(d)
}

// RulesDigest stands for Rules(d): equal for equal rules, whatever the order
// in which patterns are written.
func (c *Config) RulesDigest(d Destination) (string, error) {
	sorted := func(list []string) []string {
		list = slices.Clone(list)
		slices.Sort(list)
		return slices.Compact(list)
	}
	digested := map[string]any{ // keys of maps are written in order
		"pipeline_include": sorted(c.Select.Include), "pipeline_exclude": sorted(c.Select.Exclude),
		"include": sorted(d.Select.Include), "exclude": sorted(d.Select.Exclude),
		"rename_databases": d.Rename.Databases,
	}
	if kinds := sorted(d.Sync); len(kinds) < 3 {
		digested["sync"], digested["start"] = kinds, d.Start
	}
	if p := d.Indexes.policy(); p != (rules.IndexPolicy{}) {
		digested["enforced_unique"], digested["enforced_ttl"] = p.Unique, p.TTL
	}
	text, err := json.Marshal(digested)
	if err != nil {
		return "", fmt.Errorf("digest rules of destination %s: %w", d.Name, err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16]), nil
}
