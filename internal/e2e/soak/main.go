// Command soak runs the long variants of the tests that have one, one after
// another, and prints a closing table with their seeds. SOAK=differential,load
// with make chooses among them. It stops by itself; it exits with 1 if a test has
// failed or was not run.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// errFailed says that a test has failed or was not run; the table tells which.
var errFailed = errors.New("a test has failed or was not run")

// entry is a test with a long variant.
type entry struct {
	name, pkg, test string
	// timeout is several times what it takes on two cores.
	timeout time.Duration
	what    string
}

// entries are all of them, short ones first.
func entries() []entry {
	const e2e = "./internal/e2e"
	return []entry{
		{"differential", "./apply", "TestDifferential", 20 * time.Minute, "120 000 random updates held against a real server"},
		{"cycles", "./apply", "TestDropAndRecreate", 30 * time.Minute, "1 000 times drop and create under load"},
		{"cuts", "./apply", "TestDDLCutShort", 20 * time.Minute, "renames and reloads cut off behind every one of their commands"},
		{"sharded", "./apply", "TestShardedWorkload", 30 * time.Minute, "random changes on a sharded destination whose chunks move"},
		{"elections", "./capture", "TestElections", 20 * time.Minute, "elections, kills, freezes and rollbacks of the source"},
		{"collections", e2e, "TestLoadOfManyCollections", 30 * time.Minute, "a load of 2 000 collections"},
		{"disk", e2e, "TestLoadLargerThanKafka", 40 * time.Minute, "2 GiB loaded through 64 MiB of Kafka's disk"},
		{"memory", e2e, "TestMemoryUnderABacklog", 40 * time.Minute, "a backlog of 1 000 000 events in bounded memory"},
		{"load", e2e, "TestLoadUnderFaults", 80 * time.Minute, "20 seeds of a load under writes, DDL and kills"},
		{"faults", e2e, "TestFaults", 100 * time.Minute, "20 seeds of random faults everywhere"},
	}
}

// choose returns the entries with the names that a comma-separated list has, all
// of them if it is empty.
func choose(list string) ([]entry, error) {
	all := entries()
	if strings.TrimSpace(list) == "" {
		return all, nil
	}
	var chosen []entry
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(e entry) bool { return e.name == strings.TrimSpace(name) })
		if i < 0 {
			names := make([]string, len(all))
			for i, e := range all {
				names[i] = e.name
			}
			return nil, fmt.Errorf("choose entries: there is no %q: hint: some of %s", strings.TrimSpace(name), strings.Join(names, ","))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// outcome is one test's line of the table.
type outcome struct {
	entry   entry
	result  string
	seconds float64
	seeds   []string
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	timeout := flags.Duration("timeout", 4*time.Hour, "bound of everything: what has not begun by then is not run")
	logPath := flags.String("log", "soak.log", "`FILE` that takes the tests' output")
	list := flags.String("entries", "", "run only these entries, a comma-separated `LIST` of names")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*list)
	if err != nil {
		return err
	}
	log, err := os.Create(*logPath)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("not done after %s", *timeout))
	defer cancel()
	var all []outcome
	for _, e := range chosen {
		o := outcome{entry: e, result: "not run"}
		if ctx.Err() == nil {
			if _, err := fmt.Fprintf(out, "%s: %s\n", e.name, e.what); err != nil {
				return err
			}
			if o, err = runEntry(ctx, e, log); err != nil {
				return err
			}
		}
		all = append(all, o)
	}
	return report(out, all)
}

// event is what go test -json prints.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

// runEntry runs a test and returns its outcome; that it fails is no error.
func runEntry(ctx context.Context, e entry, log io.Writer) (outcome, error) {
	o := outcome{entry: e, result: "fail"}
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout="+e.timeout.String(), "-run=^"+e.test+"$", e.pkg)
	cmd.Env = append(os.Environ(), "TRIBUTARY_SOAK=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.Stderr = log
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return o, fmt.Errorf("run %s of %s: %w", e.test, e.pkg, err)
	}
	seed := regexp.MustCompile(`(?i)\bseed[ =:]+(\d+)`)
	lines := bufio.NewReader(pipe)
	for {
		line, readErr := lines.ReadBytes('\n')
		var printed event
		if json.Unmarshal(line, &printed) == nil {
			if _, err := io.WriteString(log, printed.Output); err != nil {
				return o, errors.Join(err, cmd.Wait())
			}
			if match := seed.FindStringSubmatch(printed.Output); match != nil && !slices.Contains(o.seeds, match[1]) {
				o.seeds = append(o.seeds, match[1])
			}
			if printed.Test == e.test && slices.Contains([]string{"pass", "fail", "skip"}, printed.Action) {
				o.result, o.seconds = printed.Action, printed.Elapsed
			}
		}
		if readErr != nil {
			break
		}
	}
	if cmd.Wait() != nil {
		o.result = "fail" // also where what follows the test fails
	}
	return o, nil
}

// report prints the table and says whether anything failed.
func report(out io.Writer, all []outcome) error {
	var b strings.Builder
	failed := false
	fmt.Fprintf(&b, "\n%-14s %-28s %-8s %8s  %s\n", "entry", "test", "result", "seconds", "seeds")
	for _, o := range all {
		failed = failed || o.result != "pass" && o.result != "skip"
		fmt.Fprintf(&b, "%-14s %-28s %-8s %8.1f  %s\n", o.entry.name, o.entry.test, o.result, o.seconds, strings.Join(o.seeds, " "))
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return err
	}
	if failed {
		return errFailed
	}
	return nil
}
