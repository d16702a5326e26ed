package main

import (
	"context"
	"fmt"

	"github.com/tributarydb/tributary/internal/config"
)

// runConfigExample is `tributary config example`.
func runConfigExample(_ context.Context, a *app, args []string) error {
	if done, err := a.parse(a.flags("config example"), args); done || err != nil {
		return err
	}
	if _, err := fmt.Fprint(a.stdout, config.Example()); err != nil {
		return fmt.Errorf("print example: %w", err)
	}
	return nil
}
