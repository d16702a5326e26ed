package engine

import "syscall"

// attributes asks the kernel to kill the child when its parent ends, and keeps
// a terminal's Ctrl-C from it: its parent stops it in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
