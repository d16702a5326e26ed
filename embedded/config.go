package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// config is the command line, checked.
type config struct {
	dir       string
	kafka     string
	mongo     []mongoConfig
	addresses string
	oplogMB   int
	verbose   bool
}

// mongoConfig names one MongoDB-compatible server.
type mongoConfig struct {
	name    string
	address string
	// oplog asks for a local.oplog.rs of oplogMB MiB, which makes the server
	// usable as a source.
	oplog   bool
	oplogMB int
	// dir is its data directory.
	dir string
}

// parse reads the command line and reports every fault of it at once.
func parse(args []string, stderr io.Writer) (config, error) {
	cfg := config{}
	fs := flag.NewFlagSet("embedded serve", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		// Nothing can be done about a closed standard error.
		_, _ = io.WriteString(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&cfg.dir, "dir", "", "data `directory`; created if missing, kept afterwards (required)")
	fs.StringVar(&cfg.kafka, "kafka", "", "`address` of the broker, like 127.0.0.1:0; no broker if empty")
	fs.StringVar(&cfg.addresses, "addresses", "", "also write the line with the addresses to this `file`")
	fs.IntVar(&cfg.oplogMB, "oplog-mb", 64, "how much of each oplog is kept, in `MiB`")
	fs.BoolVar(&cfg.verbose, "verbose", false, "log what the servers do, to stderr")
	var names []string
	oplogs := fs.String("oplog", "", "comma-separated `names` of the servers that get an oplog; all of them if empty, none if \"-\"")
	fs.Func("mongo", "`name=address` of a MongoDB-compatible server, like source=127.0.0.1:0; may be repeated", func(s string) error {
		name, address, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("want name=address")
		}
		cfg.mongo = append(cfg.mongo, mongoConfig{name: name, address: address})
		names = append(names, name)
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return config{}, err
	}
	faults := []error{cfg.applyOplogs(*oplogs, names)}
	if fs.NArg() > 0 {
		faults = append(faults, fmt.Errorf("unexpected argument %q", fs.Arg(0)))
	}
	return cfg, errors.Join(append(faults, cfg.validate())...)
}

// applyOplogs marks the servers that get an oplog.
func (c *config) applyOplogs(list string, names []string) error {
	wanted := names
	switch list {
	case "":
	case "-":
		wanted = nil
	default:
		wanted = strings.Split(list, ",")
	}
	var faults []error
	for _, name := range wanted {
		i := slices.Index(names, name)
		if i < 0 {
			faults = append(faults, fmt.Errorf("--oplog names %q, which no --mongo declares", name))
			continue
		}
		c.mongo[i].oplog, c.mongo[i].oplogMB = true, c.oplogMB
	}
	return errors.Join(faults...)
}

// validate reports every fault.
func (c *config) validate() error {
	var faults []error
	if c.dir == "" {
		faults = append(faults, errors.New("--dir is required"))
	}
	if c.kafka == "" && len(c.mongo) == 0 {
		faults = append(faults, errors.New("nothing to run: give --kafka, --mongo or both"))
	}
	if c.oplogMB < 1 {
		faults = append(faults, fmt.Errorf("--oplog-mb=%d: want at least 1", c.oplogMB))
	}
	legal := regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)
	seen := map[string]bool{}
	for _, m := range c.mongo {
		if !legal.MatchString(m.name) {
			faults = append(faults, fmt.Errorf("--mongo name %q: want letters, digits, - and _", m.name))
		}
		if seen[m.name] {
			faults = append(faults, fmt.Errorf("--mongo name %q is given twice", m.name))
		}
		seen[m.name] = true
	}
	return errors.Join(faults...)
}
