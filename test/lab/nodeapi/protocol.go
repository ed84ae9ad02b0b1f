package nodeapi

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Operations of a [Request].
const (
	OpExec     = "exec"     // run Argv, stream its output, end with a Result
	OpStart    = "start"    // start the stopped process Name
	OpStop     = "stop"     // stop the process Name and keep it down
	OpRestart  = "restart"  // stop and start the process Name
	OpKill     = "kill"     // send SIGKILL to the process Name; init starts it again
	OpList     = "list"     // Result.Output is JSON: []supervise.Status
	OpReboot   = "reboot"   // stop the processes, sync, reboot
	OpPoweroff = "poweroff" // stop the processes, sync, switch off
)

// Request opens a connection to the control port: one JSON line.
type Request struct {
	Token string   `json:"token"`
	Op    string   `json:"op"`
	Name  string   `json:"name,omitempty"`
	Argv  []string `json:"argv,omitempty"`
	// Stdin says that the client sends StdinFrame frames, the last one empty.
	Stdin bool `json:"stdin,omitempty"`
}

// Result ends a connection.
type Result struct {
	// Code is the exit code of OpExec, 128+n for a command killed by signal n.
	Code int `json:"code"`
	// Error says why the operation could not be carried out.
	Error  string `json:"error,omitempty"`
	Output string `json:"output,omitempty"`
}

// Frame types.
const (
	StdinFrame  = 0
	StdoutFrame = 1
	StderrFrame = 2
	ResultFrame = 3
)

const maxFrame = 1 << 20

// ErrFrame says that the other side does not speak the protocol.
var ErrFrame = errors.New("malformed frame")

// FrameWriter writes frames; it may be used from several goroutines.
type FrameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// NewFrameWriter returns a writer of frames to w.
func NewFrameWriter(w io.Writer) *FrameWriter { return &FrameWriter{w: w} }

// Write writes one frame: a type byte, the length as four bytes big endian, the data.
func (f *FrameWriter) Write(kind byte, data []byte) error {
	head := make([]byte, 5, 5+len(data))
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(data)))
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.w.Write(append(head, data...))
	return err
}

// Stream returns an io.Writer whose writes become frames of one type.
func (f *FrameWriter) Stream(kind byte) io.Writer { return stream{f, kind} }

type stream struct {
	f    *FrameWriter
	kind byte
}

func (s stream) Write(p []byte) (int, error) {
	for off := 0; off < len(p); {
		n := min(len(p)-off, maxFrame)
		if err := s.f.Write(s.kind, p[off:off+n]); err != nil {
			return off, err
		}
		off += n
	}
	return len(p), nil
}

// ReadFrame reads one frame. It returns io.EOF only between frames.
func ReadFrame(r io.Reader) (kind byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame || head[0] > ResultFrame {
		return 0, nil, fmt.Errorf("%w: type %d, %d bytes", ErrFrame, head[0], n)
	}
	data = make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrFrame, io.ErrUnexpectedEOF)
	}
	return head[0], data, nil
}

// Call carries out one request over conn, which it closes. stdin may be nil.
func Call(ctx context.Context, conn net.Conn, req Request, stdin io.Reader, stdout, stderr io.Writer) (Result, error) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req.Stdin = stdin != nil
	line, err := json.Marshal(req)
	if err != nil {
		return Result{}, err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return Result{}, fmt.Errorf("node control port: %w", err)
	}
	if stdin != nil {
		go func() {
			w := NewFrameWriter(conn)
			// An error here shows as an error of reading, too: the connection is one.
			_, _ = io.Copy(w.Stream(StdinFrame), stdin)
			_ = w.Write(StdinFrame, nil)
		}()
	}
	r := bufio.NewReader(conn)
	for {
		kind, data, err := ReadFrame(r)
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return Result{}, fmt.Errorf("node control port: %w", err)
		}
		switch kind {
		case StdoutFrame:
			_, err = stdout.Write(data)
		case StderrFrame:
			_, err = stderr.Write(data)
		case ResultFrame:
			var res Result
			if err := json.Unmarshal(data, &res); err != nil {
				return Result{}, fmt.Errorf("node control port: result: %w", err)
			}
			return res, nil
		}
		if err != nil {
			return Result{}, err
		}
	}
}
