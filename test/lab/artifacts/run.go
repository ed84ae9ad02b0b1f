package artifacts

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// command is an external program with what it needs.
type command struct {
	args  []string
	dir   string
	env   []string // additions to the process's environment
	stdin io.Reader
	// isolated runs it in mount and pid namespaces of its own: whatever happens to it or to us, no process and no mount
	// remains.
	isolated bool
}

// isolation are the arguments before a command that runs in namespaces of its own.
func isolation() []string {
	return []string{"unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL", "--"}
}

func (c command) cmd(ctx context.Context) *exec.Cmd {
	args := c.args
	if c.isolated {
		args = append(isolation(), args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdin = c.stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	if c.isolated {
		// unshare passes no SIGTERM on, but its end kills the child.
		cmd.Cancel = func() error { return cmd.Process.Kill() }
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs the command to its end and answers its output, which is part of the error as well.
func (c command) run(ctx context.Context) (string, error) {
	// The death signal is bound to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := c.cmd(ctx)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(c.args, " "), err, tail(out.String(), 30))
	}
	return out.String(), nil
}

// tail answers the last n lines of a text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
