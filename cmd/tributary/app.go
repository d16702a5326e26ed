package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/verify"
)

// app is what a command may use of the world.
type app struct {
	stdout, stderr io.Writer
	// screen is stderr where that is a terminal, else nil.
	screen *screen
	// env is where references in the configuration look.
	env     func(string) (string, bool)
	version string
}

// command is a subcommand.
type command struct {
	name, arguments, summary string
	run                      func(ctx context.Context, a *app, args []string) error
}

func commands() []command {
	return []command{
		{"run", "-config FILE", "capture, snapshot and apply (all destinations) in one process", runAll},
		{"capture", "-config FILE", "follow the source's oplog into Kafka", runCapture},
		{"snapshot", "-config FILE", "load the source's documents into Kafka, once; ends when done", runSnapshot},
		{"apply", "-config FILE -destination NAME", "write a destination from Kafka", runApply},
		{"status", "-config FILE [-json]", "show what every service of the pipeline is doing", runStatus},
		{"verify", "-config FILE -destination NAME", "compare a destination with the source, document by document", runVerify},
		{"finalize", "-config FILE -destination NAME [-dry-run]", "restore the unique and TTL indexes that a destination has deferred", runFinalize},
		{"dead list", "-config FILE -destination NAME [-all] [-json]", "list the events that a destination could not hold", runDeadList},
		{"dead show", "-config FILE -destination NAME -letter NUMBER [-document]", "show one of them", runDeadShow},
		{"dead retry", "-config FILE -destination NAME (-letter NUMBER | -all)", "ask the source for their documents again", runDeadRetry},
		{"dead discard", "-config FILE -destination NAME (-letter NUMBER | -all)", "mark them as known", runDeadDiscard},
		{"refresh", "-config FILE -namespace DB.COLLECTION (-id JSON… | -all)", "publish documents or a whole collection anew, beside the running stream", runRefresh},
		{"throttle", "-config FILE [-source | -destination NAME (-load | -changes)] [-queries N] [-documents N] [-bytes SIZE] [-reset]", "show or replace limits while services run", runThrottle},
		{"config check", "-config FILE [-connect]", "check a configuration, and with -connect all that it names", runConfigCheck},
		{"config example", "", "print a commented configuration to start from", runConfigExample},
		{"version", "", "print the version", runVersion},
	}
}

// main runs a command and returns the process's exit code. Its last line on
// stderr says what went wrong, if anything did.
func (a *app) main(ctx context.Context, args []string) int {
	err := a.dispatch(ctx, args)
	var silent verdictError
	if err != nil && !errors.As(err, &silent) {
		a.say("tributary: %s", message(err))
	}
	return exitCode(err)
}

// exitCode is the one place that chooses it.
func exitCode(err error) int {
	var (
		verdict verdictError
		usage   usageError
		faults  *config.FaultsError
		unknown unknownError
		// unfinished: done in part; what is left has been printed.
		unfinished incompleteError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &verdict): // verify: 0 equal, 1 different, 2 could not tell
		return verify.Verdict(verdict).ExitCode()
	case errors.As(err, &usage), errors.As(err, &faults): // the operator must change something
		return 2
	case errors.As(err, &unfinished):
		return 1
	case errors.As(err, &unknown): // nothing can be said: status, verify
		return 2
	default: // a service failed
		return 1
	}
}

// verdictError ends verify with the exit code of its verdict; the verdict has
// been printed.
type verdictError verify.Verdict

func (e verdictError) Error() string { return "verdict: " + string(e) }

// incompleteError ends a command that could do a part of its work.
type incompleteError string

func (e incompleteError) Error() string { return string(e) }

// usageError is a wrong command line.
type usageError string

func (e usageError) Error() string { return string(e) }

// unknownError says that a question could not be answered.
type unknownError struct{ err error }

func (e unknownError) Error() string { return e.err.Error() }
func (e unknownError) Unwrap() error { return e.err }

// message is an error on one line; only a list of faults keeps its lines.
func message(err error) string {
	var faults *config.FaultsError
	if errors.As(err, &faults) {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(err.Error()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "; ")
}

// dispatch finds the command and runs it.
func (a *app) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		a.say("%s", usage())
		return usageError("no command is given: hint: start with one of the above")
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		return a.print(usage())
	case "-version", "--version":
		args = []string{"version"}
	}
	name, rest := args[0], args[1:]
	if (name == "config" || name == "dead") && len(rest) > 0 {
		name, rest = name+" "+rest[0], rest[1:]
	}
	var known []string
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, a, rest)
		}
		known = append(known, c.name)
	}
	hint := "`tributary help` lists the commands"
	if near := config.Nearest(name, known); near != "" {
		hint = fmt.Sprintf("did you mean `tributary %s`?", near)
	} else if name == "config" || strings.HasPrefix(name, "config ") {
		hint = "use `tributary config check` or `tributary config example`"
	}
	if name == "dead" || strings.HasPrefix(name, "dead ") {
		hint = "use `tributary dead list`, `dead show`, `dead retry` or `dead discard`"
	}
	return usageError(fmt.Sprintf("unknown command %q: hint: %s", name, hint))
}

// say writes a line to stderr, where nothing can be done about a fault.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stderr, format+"\n", args...)
}

// print writes a text to stdout.
func (a *app) print(text string) error {
	if _, err := io.WriteString(a.stdout, text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printJSON writes a value to stdout.
func (a *app) printJSON(v any) error {
	encoder := json.NewEncoder(a.stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// usage is the text of `tributary help`.
func usage() string {
	var list strings.Builder
	for _, c := range commands() {
		fmt.Fprintf(&list, "  %-15s %s\n", c.name, c.summary)
	}
	return `Tributary keeps MongoDB deployments in step with each other through Kafka.

Usage:
  tributary COMMAND [flags]

Commands:
` + list.String() + `
To begin:
  tributary config example > pipeline.yml     then fill in source, kafka, destinations
  tributary config check -config pipeline.yml -connect
  tributary run -config pipeline.yml

"tributary COMMAND -h" explains the flags of a command. A first SIGINT or SIGTERM
lets a service finish what it has in hand and commit; a second one aborts it.

Exit codes: 0 success, 1 failed (verify: different; finalize: some remain), 2 wrong usage or
configuration, or could not tell.
`
}

// flags is the flag set of a command. Parse it with parse.
func (a *app) flags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // faults are reported once, by main
	return fs
}

// parse reads the flags; done means that help was asked for and given.
func (a *app) parse(fs *flag.FlagSet, args []string) (done bool, err error) {
	err = fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return true, a.print(help(fs))
	case err != nil:
		return false, usageError(fmt.Sprintf("%s: %v: hint: `tributary %s -h` lists the flags%s", fs.Name(), err, fs.Name(), nearFlag(fs, err)))
	case fs.NArg() > 0:
		return false, usageError(fmt.Sprintf("%s: unexpected argument %q: hint: flags begin with -, as -config FILE", fs.Name(), fs.Arg(0)))
	}
	return false, nil
}

// nearFlag suggests a flag for one that is not defined.
func nearFlag(fs *flag.FlagSet, err error) string {
	_, name, ok := strings.Cut(err.Error(), "not defined: -")
	if !ok {
		return ""
	}
	var known []string
	fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
	if near := config.Nearest(name, known); near != "" {
		return fmt.Sprintf("; did you mean -%s?", near)
	}
	return ""
}

// help is the text of `tributary COMMAND -h`.
func help(fs *flag.FlagSet) string {
	var text strings.Builder
	for _, c := range commands() {
		if c.name == fs.Name() {
			fmt.Fprintf(&text, "%s: %s.\n\nUsage:\n  tributary %s %s\n\nFlags:\n", c.name, c.summary, c.name, c.arguments)
		}
	}
	fs.SetOutput(&text)
	fs.PrintDefaults()
	return text.String()
}
