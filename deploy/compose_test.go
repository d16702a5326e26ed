// Package deploy_test holds what deploy/ and docker-compose.yml say against the
// programs, so that they cannot drift apart unseen.
package deploy_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/tributarydb/tributary/internal/config"
	"github.com/tributarydb/tributary/internal/testenv/engine"
)

// compose is the part of a compose file that this project uses; any other key
// is a fault, since nothing would check it.
type compose struct {
	Services map[string]service `yaml:"services"`
	Volumes  map[string]any     `yaml:"volumes"`
	// The anchors that the services share.
	Mongo       any `yaml:"x-mongo"`
	MongoHealth any `yaml:"x-mongo-health"`
	Tributary   any `yaml:"x-tributary"`
}

type service struct {
	Image string `yaml:"image"`
	Build struct {
		Context    string `yaml:"context"`
		Dockerfile string `yaml:"dockerfile"`
		Target     string `yaml:"target"`
	} `yaml:"build"`
	Command     []string             `yaml:"command"`
	Environment map[string]string    `yaml:"environment"`
	Ports       []string             `yaml:"ports"`
	Volumes     []string             `yaml:"volumes"`
	Restart     string               `yaml:"restart"`
	Profiles    []string             `yaml:"profiles"`
	DependsOn   map[string]condition `yaml:"depends_on"`
	Health      struct {
		Test     []string `yaml:"test"`
		Interval string   `yaml:"interval"`
		Timeout  string   `yaml:"timeout"`
		Retries  int      `yaml:"retries"`
	} `yaml:"healthcheck"`
}

type condition struct {
	Condition string `yaml:"condition"`
}

const (
	root          = ".."
	programImage  = "tributary:demo"
	writerImage   = "tributary-writer:demo"
	containerFile = "/etc/tributary/pipeline.yml"
)

func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	if err := yaml.UnmarshalWithOptions([]byte(read(t, "docker-compose.yml")), &c, yaml.Strict()); err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return c
}

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// build builds a program of the repository.
func build(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := engine.Build(t.Context(), name, ".", pkg)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// flagsOf asks a program for the flags of a command.
func flagsOf(t *testing.T, program string, command ...string) []string {
	t.Helper()
	// Asking for help ends with 0 or 2, depending on the program.
	out, err := exec.CommandContext(t.Context(), program, append(command, "-h")...).CombinedOutput()
	var flags []string
	for _, match := range regexp.MustCompile(`(?m)^\s+--?([a-z-]+)`).FindAllStringSubmatch(string(out), -1) {
		flags = append(flags, match[1])
	}
	if len(flags) == 0 {
		t.Fatalf("%s %v -h prints no flags (%v):\n%s", filepath.Base(program), command, err, out)
	}
	return flags
}

// using returns the services that run an image, by name.
func (c compose) using(image string) map[string]service {
	found := map[string]service{}
	for name, s := range c.Services {
		if s.Image == image {
			found[name] = s
		}
	}
	return found
}

// arguments splits a command line into words and flags.
func arguments(command []string) (words []string, flags map[string]string) {
	flags = map[string]string{}
	for i := 0; i < len(command); i++ {
		name, isFlag := strings.CutPrefix(command[i], "-")
		if !isFlag {
			words = append(words, command[i])
			continue
		}
		if i+1 < len(command) && !strings.HasPrefix(command[i+1], "-") {
			i++
			flags[name] = command[i]
		} else {
			flags[name] = ""
		}
	}
	return words, flags
}

func TestCommandsAreTheProgramsOwn(t *testing.T) {
	c := readCompose(t)
	tributary := build(t, "tributary", "./cmd/tributary")
	seen := map[string]bool{}
	for name, s := range c.using(programImage) {
		words, flags := arguments(s.Command)
		if len(words) != 1 {
			t.Errorf("service %s: command %v does not begin with one command of tributary", name, s.Command)
			continue
		}
		seen[words[0]] = true
		known := flagsOf(t, tributary, words[0])
		for flag := range flags {
			if !slices.Contains(known, flag) {
				t.Errorf("service %s: tributary %s has no flag -%s (it has %v)", name, words[0], flag, known)
			}
		}
		if flags["config"] != containerFile {
			t.Errorf("service %s: -config is %q, the file is mounted at %s", name, flags["config"], containerFile)
		}
	}
	for _, command := range []string{"capture", "snapshot", "apply"} {
		if !seen[command] {
			t.Errorf("no service runs tributary %s", command)
		}
	}
	known := flagsOf(t, build(t, "writer", "./internal/e2e/writer"))
	for name, s := range c.using(writerImage) {
		_, flags := arguments(s.Command)
		for flag := range flags {
			if !slices.Contains(known, flag) {
				t.Errorf("service %s: the writer has no flag -%s (it has %v)", name, flag, known)
			}
		}
	}
}

func TestConfigurationFits(t *testing.T) {
	c := readCompose(t)
	text := read(t, "deploy/compose/pipeline.yml")
	var used []string
	for _, match := range regexp.MustCompile(`\$\{([A-Z_]+)\}`).FindAllStringSubmatch(text, -1) {
		used = append(used, match[1])
	}
	slices.Sort(used)
	for name, s := range c.using(programImage) {
		var given []string
		for variable := range s.Environment {
			given = append(given, variable)
		}
		slices.Sort(given)
		if diff := cmp.Diff(used, given); diff != "" {
			t.Errorf("service %s: variables that pipeline.yml uses and that are set (-want +got):\n%s", name, diff)
		}
		if !slices.Contains(s.Volumes, "./deploy/compose/pipeline.yml:"+containerFile+":ro") {
			t.Errorf("service %s does not mount deploy/compose/pipeline.yml at %s: %v", name, containerFile, s.Volumes)
		}
		cfg, err := config.Load(filepath.Join(root, "deploy/compose/pipeline.yml"), func(variable string) (string, bool) {
			value, ok := s.Environment[variable]
			return value, ok
		})
		if err != nil {
			t.Fatalf("service %s: %v", name, err)
		}
		checkConfiguration(t, c, name, s, cfg)
	}
}

// checkConfiguration holds the configuration of a service against the other
// services.
func checkConfiguration(t *testing.T, c compose, name string, s service, cfg *config.Config) {
	t.Helper()
	uris := map[string]string{"source": cfg.Source.URI}
	var destinations []string
	for _, d := range cfg.Destinations {
		uris[d.Name] = d.URI
		destinations = append(destinations, d.Name)
	}
	if _, flags := arguments(s.Command); flags["destination"] != "" && !slices.Contains(destinations, flags["destination"]) {
		t.Errorf("service %s: destination %s is not one of %v", name, flags["destination"], destinations)
	}
	for _, uri := range uris {
		checkReplicaSet(t, c, uri)
	}
	for _, broker := range cfg.Kafka.Brokers {
		if want := "PLAINTEXT://" + broker; c.Services["kafka"].Environment["KAFKA_ADVERTISED_LISTENERS"] != want {
			t.Errorf("service %s: broker is %s, kafka advertises %s", name, broker, c.Services["kafka"].Environment["KAFKA_ADVERTISED_LISTENERS"])
		}
	}
	_, port, err := net.SplitHostPort(cfg.HTTP.Address)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(read(t, "deploy/Dockerfile"), "\nEXPOSE "+port+"\n") {
		t.Errorf("the Dockerfile does not expose port %s of http.address", port)
	}
	if words, _ := arguments(s.Command); slices.Contains([]string{"capture", "snapshot", "apply"}, words[0]) {
		if target := "- " + name + ":" + port + "\n"; !strings.Contains(read(t, "deploy/compose/prometheus.yml"), target) {
			t.Errorf("prometheus.yml has no target %s:%s", name, port)
		}
	}
	for dependency, on := range s.DependsOn {
		if len(c.Services[dependency].Health.Test) == 0 || on.Condition != "service_healthy" {
			t.Errorf("service %s: depends on %s (%s), which has no health check", name, dependency, on.Condition)
		}
	}
}

// checkReplicaSet holds a connection string against the server that it names.
func checkReplicaSet(t *testing.T, c compose, uri string) {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	set := u.Query().Get("replicaSet")
	s, ok := c.Services[u.Hostname()]
	if !ok {
		t.Errorf("%s: there is no service %s", uri, u.Hostname())
		return
	}
	if i := slices.Index(s.Command, "--replSet"); i < 0 || s.Command[i+1] != set {
		t.Errorf("%s: service %s runs %v", uri, u.Hostname(), s.Command)
	}
	health := strings.Join(s.Health.Test, " ")
	if want := fmt.Sprintf("rs.initiate({_id: '%s', members: [{_id: 0, host: '%s'}]})", set, u.Host); !strings.Contains(health, want) {
		t.Errorf("%s: the health check of %s does not %s", uri, u.Hostname(), want)
	}
}

func TestFilesAndVolumes(t *testing.T) {
	c := readCompose(t)
	for name, s := range c.Services {
		for _, volume := range s.Volumes {
			from, _, _ := strings.Cut(volume, ":")
			if !strings.HasPrefix(from, "./") {
				if _, ok := c.Volumes[from]; !ok {
					t.Errorf("service %s: volume %s is not declared", name, from)
				}
				continue
			}
			if _, err := os.Stat(filepath.Join(root, from)); err != nil {
				t.Errorf("service %s: %v", name, err)
			}
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("service %s: port %s is not bound to loopback, and nothing here has a password", name, port)
			}
		}
	}
}

func TestDockerfile(t *testing.T) {
	text := read(t, "deploy/Dockerfile")
	for name, s := range readCompose(t).Services {
		if s.Build.Context == "" {
			continue
		}
		if s.Build.Context != "." || s.Build.Dockerfile != "deploy/Dockerfile" {
			t.Errorf("service %s: builds %+v", name, s.Build)
		}
		if s.Build.Target != "" && !strings.Contains(text, " AS "+s.Build.Target+"\n") {
			t.Errorf("service %s: the Dockerfile has no target %s", name, s.Build.Target)
		}
	}
	for _, match := range regexp.MustCompile(` (\./(?:cmd|internal)/\S+)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(root, match[1])); err != nil {
			t.Errorf("the Dockerfile builds %s: %v", match[1], err)
		}
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))[1]
	if !strings.Contains(text, "FROM golang:"+version+" AS") {
		t.Errorf("the Dockerfile does not build with Go %s, which go.mod asks for", version)
	}
	// The version is set through the linker: the variable must be there.
	path := filepath.Join(t.TempDir(), "tributary")
	flags := regexp.MustCompile(`-X (\S+)=`).FindStringSubmatch(text)[1] + "=from-the-linker"
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", root, "-ldflags", "-X "+flags, "-o", path, "./cmd/tributary").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), path, "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "from-the-linker") {
		t.Errorf("tributary version says %q (%v), not what the linker set with %s", out, err, flags)
	}
}
