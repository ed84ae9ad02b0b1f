package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strconv"
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

// ProcessWriter is the [AttrWriter] of a running host: writes are made by
// processes of their own, because a write that the kernel holds up cannot be
// interrupted and would hold a thread of the agent for ever. A process makes one
// write after the other, for starting one takes much longer than a write; it is
// left to its fate when a write does not return, and ended when there has been
// nothing to write for a while.
type ProcessWriter struct {
	root    string
	command []string
	timeout time.Duration

	mu    sync.Mutex
	stuck map[topology.Address]string
	idle  []*writerProcess
}

// WriteAttrCommand is the first argument after the command's own: the hidden
// verb that a binary hands to [WriteAttrMain].
const WriteAttrCommand = "write-attr"

// writerIdle is how long a writer process waits for its next write.
const writerIdle = 10 * time.Second

// NewProcessWriter writes below root by running command with the argument
// "write-attr"; the binary must call [WriteAttrMain]. A write that takes longer
// than timeout is given up as stuck; its process goes on until the kernel
// answers.
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
	p, err := w.take()
	if err != nil {
		return fmt.Errorf("start writer for %s: %w", name, err)
	}
	returned := make(chan struct{})
	var result error
	go func() {
		defer close(returned)
		result = p.write(path.Join(w.root, name), value)
		if result == nil || errors.As(result, new(unix.Errno)) {
			w.give(p)
		} else {
			p.end()
		}
	}()
	timer := time.NewTimer(w.timeout)
	defer timer.Stop()
	select {
	case <-returned:
		if result != nil {
			return fmt.Errorf("write %s: %w", name, result)
		}
		return nil
	case <-ctx.Done():
	case <-timer.C:
	}
	w.mu.Lock()
	w.stuck[a] = name
	w.mu.Unlock()
	go func() {
		<-returned // with whatever result: the write is no longer stuck
		w.mu.Lock()
		delete(w.stuck, a)
		w.mu.Unlock()
	}()
	return refuse(a, ErrStuck, fmt.Sprintf("writing %q to %s has not returned", strings.TrimSpace(value), name))
}

// take is an idle writer process, or a new one.
func (w *ProcessWriter) take() (*writerProcess, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.idle); n > 0 {
		p := w.idle[n-1]
		w.idle = w.idle[:n-1]
		if p.timer.Stop() {
			return p, nil
		}
		// Its time has just run out, and expire waits for the lock to end it.
	}
	return startWriter(w.command)
}

// give puts a writer process aside for the next write.
func (w *ProcessWriter) give(p *writerProcess) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.timer = time.AfterFunc(writerIdle, func() { w.expire(p) })
	w.idle = append(w.idle, p)
}

func (w *ProcessWriter) expire(p *writerProcess) {
	w.mu.Lock()
	for i, other := range w.idle {
		if other == p {
			w.idle = append(w.idle[:i], w.idle[i+1:]...)
			break
		}
	}
	w.mu.Unlock()
	p.end()
}

// writerProcess is one process of [WriteAttrMain]. One caller at a time uses it.
type writerProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	timer *time.Timer
}

func startWriter(command []string) (*writerProcess, error) {
	cmd := exec.Command(command[0], append(append([]string{}, command[1:]...), WriteAttrCommand)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &writerProcess{cmd: cmd, in: in, out: bufio.NewReader(out)}, nil
}

// write makes one write; a kernel's error is a [unix.Errno], any other means
// that the process is of no more use.
func (p *writerProcess) write(file, value string) error {
	if _, err := io.WriteString(p.in, frame(file)+frame(value)); err != nil {
		return fmt.Errorf("writer process: %w", err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("writer process: %w", err)
	}
	no, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
	if err != nil || no < 0 {
		return fmt.Errorf("writer process: it answers %q", line)
	}
	if no > 0 {
		return unix.Errno(no)
	}
	return nil
}

// end closes the process' input, which ends it, and reaps it when it has ended.
func (p *writerProcess) end() {
	_ = p.in.Close()
	go func() { _ = p.cmd.Wait() }()
}

// frame is a text with its length in bytes before it: values may have any bytes.
func frame(s string) string { return strconv.Itoa(len(s)) + ":" + s }

// maxFrame bounds what [readFrame] takes: a path or an attribute's value.
const maxFrame = 1 << 16

// readFrame reads one [frame]; [io.EOF] when there is none any more.
func readFrame(r *bufio.Reader) (string, error) {
	head, err := r.ReadString(':')
	if err != nil {
		if errors.Is(err, io.EOF) && head != "" {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(head, ":"))
	if err != nil || n < 0 || n > maxFrame {
		return "", fmt.Errorf("%w: length %q", unix.EINVAL, head)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
	}
	return string(b), nil
}

// WriteAttrMain is the body of the writer process: it reads pairs of frames
// (LENGTH:FILE, LENGTH:VALUE) until the end of in, makes each write, and answers
// each with the kernel's error number in a line, 0 for none. The result is the
// exit status.
func WriteAttrMain(in io.Reader, out io.Writer) int {
	r := bufio.NewReader(in)
	for {
		file, err := readFrame(r)
		if errors.Is(err, io.EOF) {
			return 0
		}
		var value string
		if err == nil {
			value, err = readFrame(r)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "write-attr: want LENGTH:FILE LENGTH:VALUE on the standard input:", err)
			return int(unix.EINVAL)
		}
		if _, err := fmt.Fprintln(out, int(errno(writeFile(file, value)))); err != nil {
			return int(unix.EPIPE)
		}
	}
}

// errno is the number of a write's error.
func errno(err error) unix.Errno {
	if err == nil {
		return 0
	}
	var no unix.Errno
	if errors.As(err, &no) && no > 0 {
		return no
	}
	return unix.EIO
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
