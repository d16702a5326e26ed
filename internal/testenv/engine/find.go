package engine

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// modulePath is the root module's, by which Root knows its directory.
const modulePath = "github.com/tributarydb/tributary"

// MissingError says that this machine lacks an engine.
type MissingError struct {
	// Engine is the name that TRIBUTARY_REQUIRE uses.
	Engine string
	// Why says what was looked for, and Remedy how to get it.
	Why, Remedy string
	// Untested says what stays untested without it.
	Untested string
}

// Error says all of it.
func (e *MissingError) Error() string {
	return fmt.Sprintf("engine %s is missing: %s. Remedy: %s. Untested without it: %s", e.Engine, e.Why, e.Remedy, e.Untested)
}

// Root is the directory of the repository, found upwards from the working
// directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find repository: %w", err)
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(content, []byte("module "+modulePath+"\n")) {
			return dir, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("find repository: %w", err)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find repository: no go.mod of %s above the working directory", modulePath)
		}
		dir = parent
	}
}

// cache is a directory under the repository's .engines, made when missing.
func cache(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".engines", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create cache: %w", err)
	}
	return dir, nil
}

// freePorts returns n ports of 127.0.0.1 that are free now. Somebody else may
// take one before the server does; a start that fails is tried again.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find free port: %w", err)
		}
		// Open until all are chosen, so that no port comes twice.
		defer func() { _ = l.Close() }()
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("find free port: unexpected address %s", l.Addr())
		}
		ports = append(ports, addr.Port)
	}
	return ports, nil
}
