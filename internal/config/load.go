package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Load reads the file at path. The environment is what env says
// (os.LookupEnv). A file that can be read but is faulty gives a *FaultsError
// with every fault.
func Load(path string, env func(string) (string, bool)) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w: hint: give the file with -config; `tributary config example` prints one to start from", err)
	}
	return parse(path, text, env)
}

// parse is Load for a text; path names it and is where relative files start.
func parse(path string, text []byte, env func(string) (string, bool)) (*Config, error) {
	r := &report{lines: map[string]int{}}
	cfg := defaults()
	body := document(r, text)
	if body == nil {
		return nil, r.err(path)
	}
	d := decoder{report: r, refs: references{env: env, dir: filepath.Dir(path)}, anchors: map[string]ast.Node{}}
	d.structure("", body, reflect.ValueOf(&cfg).Elem())
	cfg.Kafka.TLS.relativeTo(filepath.Dir(path))
	cfg.validate(r)
	if err := r.err(path); err != nil {
		return nil, err
	}
	return &cfg, nil
}

// document returns the one document of a text, or reports why there is none.
func document(r *report, text []byte) ast.Node {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		r.faults = append(r.faults, syntaxFault(err))
		return nil
	}
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil && d.Body.Type() != ast.NullType {
			bodies = append(bodies, d.Body)
		}
	}
	switch len(bodies) {
	case 0:
		r.add("", "the file is empty", "`tributary config example` prints one to start from")
		return nil
	case 1:
		return bodies[0]
	}
	r.add("", "the file has several YAML documents", "one file describes one pipeline: remove the others and the --- between them")
	return nil
}

// syntaxFault takes message and line from the parser's error, not the excerpt
// of the file that it shows: that may hold a secret.
func syntaxFault(err error) Fault {
	var syntax yaml.Error
	if !errors.As(err, &syntax) {
		return Fault{Message: "not a YAML document"}
	}
	f := Fault{Message: "not YAML: " + syntax.GetMessage()}
	if token := syntax.GetToken(); token != nil && token.Position != nil {
		f.Line = token.Position.Line
	}
	return f
}

// Environment is where references look in shipped programs: the environment of
// the process.
func Environment(name string) (string, bool) { return os.LookupEnv(name) }
