package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// runVersion is `tributary version`.
func runVersion(_ context.Context, a *app, args []string) error {
	if done, err := a.parse(a.flags("version"), args); done || err != nil {
		return err
	}
	commit := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				commit = " commit " + s.Value[:12]
			}
		}
	}
	return a.print(fmt.Sprintf("tributary %s%s %s %s/%s\n", a.version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH))
}
