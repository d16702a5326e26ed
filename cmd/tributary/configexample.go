package main

import (
	"context"

	"github.com/tributarydb/tributary/internal/config"
)

// runConfigExample is `tributary config example`.
func runConfigExample(_ context.Context, a *app, args []string) error {
	if done, err := a.parse(a.flags("config example"), args); done || err != nil {
		return err
	}
	return a.print(config.Example())
}
