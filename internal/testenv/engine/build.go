package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Build makes the program of a package and returns its path under .engines/bin.
// module is the module's directory inside the repository ("." or "embedded"),
// pkg the package inside the module. Test processes that build the same program
// at one time wait for each other; an unchanged program is not linked again.
func Build(ctx context.Context, name, module, pkg string) (path string, err error) {
	bin, err := cache("bin")
	if err != nil {
		return "", err
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(bin, name+".lock"))
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()

	path = filepath.Join(bin, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(root, module), "-o", path, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// lockFile waits for an exclusive lock, which ends with the process at latest.
func lockFile(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f.Close, nil
}
