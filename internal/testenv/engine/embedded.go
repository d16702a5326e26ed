package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// EmbeddedConfig says which stand-ins to run in one process.
type EmbeddedConfig struct {
	// Dir holds their data; a directory of an earlier run is taken up.
	Dir string
	// Kafka asks for a broker.
	Kafka bool
	// Servers names the MongoDB-compatible servers. All of them have an oplog.
	Servers []string
}

// Embedded is a running process of the nested module embedded.
type Embedded struct {
	*Server
	// Brokers and MongoDB say where the stand-ins listen; MongoDB maps names to
	// connection strings. A restart keeps them.
	Brokers []string
	MongoDB map[string]string
}

// StartEmbedded builds the stand-ins, starts them and waits until they answer.
func StartEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) {
	path, err := Build(ctx, "embedded", "embedded", ".")
	if err != nil {
		return nil, err
	}
	e := &Embedded{}
	err = onFreePorts(len(cfg.Servers)+1, func(ports []int) error {
		file := filepath.Join(cfg.Dir, "addresses.json")
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove old addresses: %w", err)
		}
		args := []string{"serve", "--dir", cfg.Dir, "--addresses", file}
		if cfg.Kafka {
			args = append(args, "--kafka", fmt.Sprintf("127.0.0.1:%d", ports[len(cfg.Servers)]))
		}
		for i, name := range cfg.Servers {
			args = append(args, "--mongo", fmt.Sprintf("%s=127.0.0.1:%d", name, ports[i]))
		}
		command := Command{Name: "embedded", Path: path, Args: args, Log: filepath.Join(cfg.Dir, "embedded.log")}
		e.Server, err = launch(ctx, command, func(context.Context) error { return e.readAddresses(file) })
		return err
	})
	return e, err
}

// readAddresses takes what the process has announced, once: a restarted process
// announces the same again.
func (e *Embedded) readAddresses(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var said struct {
		Brokers []string          `json:"brokers"`
		MongoDB map[string]string `json:"mongodb"`
	}
	if err := json.Unmarshal(content, &said); err != nil {
		return fmt.Errorf("decode addresses: %w", err)
	}
	e.Brokers, e.MongoDB = said.Brokers, said.MongoDB
	// The next start waits for a new file.
	return os.Remove(file)
}
