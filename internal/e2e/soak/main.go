// Command soak runs the long variants of the tests that have one, one package
// after another, and prints a closing table with their seeds. A test has one if
// its file reads TRIBUTARY_SOAK. It stops by itself; it exits with 1 if a test
// has failed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
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

// errFailed says that a test has failed; the table tells which.
var errFailed = errors.New("a test has failed")

// outcome is one test's line of the table.
type outcome struct {
	pkg, test, result string
	seconds           float64
	seeds             []string
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	timeout := flags.Duration("timeout", 90*time.Minute, "bound of one package's tests")
	logPath := flags.String("log", "soak.log", "`FILE` that takes the tests' output")
	only := flags.String("run", "", "run only tests that match this `EXPRESSION`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	filter, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("read -run: %w", err)
	}
	packages, err := find(".", filter)
	if err != nil {
		return err
	}
	log, err := os.Create(*logPath)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	var all []outcome
	for _, pkg := range slices.Sorted(maps.Keys(packages)) {
		if _, err := fmt.Fprintf(out, "%s: %s\n", pkg, strings.Join(packages[pkg], " ")); err != nil {
			return err
		}
		found, err := runPackage(ctx, pkg, packages[pkg], *timeout, log)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	return report(out, all)
}

// find returns the tests with a long variant by package directory.
func find(root string, filter *regexp.Regexp) (map[string][]string, error) {
	declaration := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	packages := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "embedded") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.Contains(string(source), "TRIBUTARY_SOAK") {
			return nil
		}
		pkg := "./" + filepath.Dir(path)
		for _, match := range declaration.FindAllSubmatch(source, -1) {
			if name := string(match[1]); name != "TestMain" && filter.MatchString(name) {
				packages[pkg] = append(packages[pkg], name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for tests: %w", err)
	}
	return packages, nil
}

// event is what go test -json prints.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

// runPackage runs tests of one package and returns their outcomes; that a test
// fails is no error.
func runPackage(ctx context.Context, pkg string, tests []string, timeout time.Duration, log io.Writer) ([]outcome, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout="+timeout.String(), "-run=^("+strings.Join(tests, "|")+")$", pkg)
	cmd.Env = append(os.Environ(), "TRIBUTARY_SOAK=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = log
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("run tests of %s: %w", pkg, err)
	}
	seed := regexp.MustCompile(`(?i)\bseed[ =:]+(\d+)`)
	found, seeds := []outcome{}, map[string][]string{}
	lines := bufio.NewReader(pipe)
	for {
		line, readErr := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			if _, err := io.WriteString(log, e.Output); err != nil {
				return nil, errors.Join(err, cmd.Wait())
			}
			top, _, _ := strings.Cut(e.Test, "/")
			if match := seed.FindStringSubmatch(e.Output); match != nil && !slices.Contains(seeds[top], match[1]) {
				seeds[top] = append(seeds[top], match[1])
			}
			if e.Test == top && slices.Contains([]string{"pass", "fail", "skip"}, e.Action) {
				name := top
				if name == "" {
					name = "(package)"
				}
				found = append(found, outcome{pkg: pkg, test: name, result: e.Action, seconds: e.Elapsed, seeds: seeds[top]})
			}
		}
		if readErr != nil {
			break
		}
	}
	_, failed := errors.AsType[*exec.ExitError](cmd.Wait())
	if failed && !slices.ContainsFunc(found, func(o outcome) bool { return o.result == "fail" }) {
		found = append(found, outcome{pkg: pkg, test: "(package)", result: "fail"})
	}
	return found, context.Cause(ctx)
}

// report prints the table and says whether anything failed.
func report(out io.Writer, all []outcome) error {
	var b strings.Builder
	failed := 0
	fmt.Fprintf(&b, "\n%-22s %-46s %-6s %8s  %s\n", "package", "test", "result", "seconds", "seeds")
	for _, o := range all {
		if o.result == "fail" {
			failed++
		}
		fmt.Fprintf(&b, "%-22s %-46s %-6s %8.1f  %s\n", o.pkg, o.test, o.result, o.seconds, strings.Join(o.seeds, " "))
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return err
	}
	if failed > 0 {
		return errFailed
	}
	return nil
}
