//go:build !linux

package engine

import "syscall"

// attributes keeps a terminal's Ctrl-C from the child: its parent stops it in
// order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
