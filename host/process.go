package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/kubevfio/kubevfio/topology"
	"golang.org/x/sys/unix"
)

// AttrWriter writes one attribute of the host's sysfs. The address is the
// device that the write may block on; name is relative to the host's root,
// "sys/bus/pci/drivers_probe".
//
// Errors of the kernel are [unix.Errno]; a write that does not return in time
// is of class [ErrStuck].
type AttrWriter interface {
	WriteAttr(ctx context.Context, a topology.Address, name, value string) error
}

// ProcessWriter is the [AttrWriter] of a running host: each write is made by a
// process of its own, because a write that the kernel holds up cannot be
// interrupted and would hold a thread of the agent for ever.
type ProcessWriter struct {
	root    string
	command []string
	timeout time.Duration

	mu    sync.Mutex
	stuck map[topology.Address]string
}

// WriteAttrCommand is the first argument after the command's own: the hidden
// verb that a binary hands to [WriteAttrMain].
const WriteAttrCommand = "write-attr"

// NewProcessWriter writes below root by running command with the arguments
// "write-attr FILE VALUE"; the binary must hand them to [WriteAttrMain]. A write
// that takes longer than timeout is given up as stuck; its process goes on
// until the kernel answers.
func NewProcessWriter(root string, command []string, timeout time.Duration) *ProcessWriter {
	return &ProcessWriter{root: root, command: command, timeout: timeout, stuck: map[topology.Address]string{}}
}

// Stuck are the writes that have not returned, by device.
func (w *ProcessWriter) Stuck() map[topology.Address]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[topology.Address]string, len(w.stuck))
	for a, n := range w.stuck {
		out[a] = n
	}
	return out
}

// WriteAttr implements [AttrWriter].
func (w *ProcessWriter) WriteAttr(ctx context.Context, a topology.Address, name, value string) error {
	w.mu.Lock()
	held, ok := w.stuck[a]
	w.mu.Unlock()
	if ok {
		return refuse(a, ErrStuck, "an earlier write to "+held+" has not returned")
	}
	args := append(append([]string{}, w.command[1:]...), WriteAttrCommand, path.Join(w.root, name), value)
	// Not CommandContext: killing the process would not end the write, and
	// waiting for its end would block us as well.
	cmd := exec.Command(w.command[0], args...)
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start writer for %s: %w", name, err)
	}
	ended := make(chan struct{})
	var result error
	go func() {
		defer close(ended)
		result = cmd.Wait()
	}()
	timer := time.NewTimer(w.timeout)
	defer timer.Stop()
	select {
	case <-ended:
		return writeResult(name, result, &out)
	case <-ctx.Done():
	case <-timer.C:
	}
	w.mu.Lock()
	w.stuck[a] = name
	w.mu.Unlock()
	go func() {
		<-ended // whatever its result: it is no longer stuck
		w.mu.Lock()
		delete(w.stuck, a)
		w.mu.Unlock()
	}()
	return refuse(a, ErrStuck, fmt.Sprintf("writing %q to %s has not returned", strings.TrimSpace(value), name))
}

// writeResult turns the writer process' end into an error.
func writeResult(name string, err error, out *bytes.Buffer) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return fmt.Errorf("write %s: %w", name, unix.Errno(exit.ExitCode()))
	}
	return fmt.Errorf("write %s: writer process: %w: %s", name, err, strings.TrimSpace(out.String()))
}

// WriteAttrMain is the body of the writer process: args are FILE and VALUE. The
// result is the exit status: 0, or the error number of the kernel.
func WriteAttrMain(args []string) int {
	if len(args) != 2 {
		fmt.Fprintln(os.Stderr, "want FILE VALUE")
		return int(unix.EINVAL)
	}
	err := writeFile(args[0], args[1])
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	var no unix.Errno
	if errors.As(err, &no) && no > 0 && no < 126 {
		return int(no)
	}
	return int(unix.EIO)
}

func writeFile(name, value string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_TRUNC, 0)
	if err != nil {
		return err
	}
	// sysfs takes an attribute in one write; a short one is an error.
	n, err := unix.Write(fd, []byte(value))
	if err == nil && n != len(value) {
		err = unix.EIO
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}
