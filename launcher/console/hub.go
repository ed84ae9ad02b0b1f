package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Sizes and times of a [Hub].
const (
	// Scrollback is how many bytes of the past a new stream may begin with.
	Scrollback = 64 << 10
	// streamBuffer is how many bytes a slow reader may lag behind.
	streamBuffer = 256 << 10
	// writeTimeout is how long input may wait for a guest that does not read
	// its serial port.
	writeTimeout = 5 * time.Second
)

// ErrNoGuest says that no guest's console is connected.
var ErrNoGuest = errors.New("no guest console is connected")

// Hub is the one place where the guest's console is read and written. Its
// methods are safe for concurrent use.
type Hub struct {
	mu      sync.Mutex
	past    []byte
	streams map[*Stream]struct{}
	closed  bool

	connMu sync.Mutex // one writer at a time, so that input is not mixed in mid-write
	conn   net.Conn
}

// NewHub makes a hub without a guest.
func NewHub() *Hub { return &Hub{streams: map[*Stream]struct{}{}} }

// Run copies what QEMU writes to conn into the hub until conn ends or ctx is
// done, and closes conn. While it runs, [Hub.Write] reaches the guest. The end
// of the stream is no error.
func (h *Hub) Run(ctx context.Context, conn net.Conn) error {
	h.connMu.Lock()
	h.conn = conn
	h.connMu.Unlock()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		stop()
		conn.Close()
		h.connMu.Lock()
		if h.conn == conn {
			h.conn = nil
		}
		h.connMu.Unlock()
	}()
	buf := make([]byte, 8<<10)
	for {
		n, err := conn.Read(buf)
		h.publish(buf[:n])
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
			return nil
		default:
			return fmt.Errorf("read the guest's console: %w", err)
		}
	}
}

// publish hands bytes to all streams; it never blocks.
func (h *Hub) publish(p []byte) {
	if len(p) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.past = append(h.past, p...)
	if over := len(h.past) - Scrollback; over > 0 {
		// Let it grow to twice the size, so that not every byte moves the rest.
		if len(h.past) > 2*Scrollback {
			h.past = append(h.past[:0:0], h.past[over:]...)
		}
	}
	for s := range h.streams {
		s.put(p)
	}
}

// Write sends input to the guest. It waits a few seconds at most for a guest
// that does not read; [ErrNoGuest] says that there is none.
func (h *Hub) Write(p []byte) (int, error) {
	h.connMu.Lock()
	defer h.connMu.Unlock()
	if h.conn == nil {
		return 0, ErrNoGuest
	}
	if err := h.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, fmt.Errorf("write to the guest's console: %w", err)
	}
	n, err := h.conn.Write(p)
	if err != nil {
		return n, fmt.Errorf("write to the guest's console: %w", err)
	}
	return n, nil
}

// Subscribe makes a stream of everything that the guest writes from now on,
// beginning with at most replay bytes of the past ([Scrollback] at most).
func (h *Hub) Subscribe(replay int) *Stream {
	s := &Stream{hub: h}
	s.cond = sync.NewCond(&s.mu)
	h.mu.Lock()
	defer h.mu.Unlock()
	if past := h.past[max(0, len(h.past)-min(replay, Scrollback)):]; len(past) > 0 && replay > 0 {
		s.put(past)
	}
	if h.closed {
		s.closed = true
		return s
	}
	h.streams[s] = struct{}{}
	return s
}

// Close ends all streams after what they still hold.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.streams {
		s.end()
	}
	clear(h.streams)
}

// Stream is one reader's view of the console.
type Stream struct {
	hub *Hub

	mu      sync.Mutex
	cond    *sync.Cond
	buf     []byte
	dropped int
	closed  bool
}

func (s *Stream) put(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = append(s.buf, p...)
	if over := len(s.buf) - streamBuffer; over > 0 {
		// Drop a whole half: a reader that is this slow would otherwise cost a
		// move of the buffer with every byte.
		over = max(over, streamBuffer/2)
		s.dropped += over
		s.buf = append(s.buf[:0], s.buf[over:]...)
	}
	s.cond.Signal()
}

func (s *Stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cond.Broadcast()
}

// Read waits for bytes. Where some were lost since the last call it first gives
// a line that says how many. After the end it gives io.EOF.
func (s *Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buf) == 0 && !s.closed {
		s.cond.Wait()
	}
	if s.dropped > 0 {
		mark := fmt.Sprintf("\r\n[kubevfio: %d bytes of console output lost: the reader is too slow]\r\n", s.dropped)
		s.dropped = 0
		s.buf = append([]byte(mark), s.buf...)
	}
	if len(s.buf) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	if len(s.buf) == 0 {
		s.buf = nil
	}
	return n, nil
}

// Close ends the stream; a waiting Read returns.
func (s *Stream) Close() {
	s.hub.mu.Lock()
	delete(s.hub.streams, s)
	s.hub.mu.Unlock()
	s.end()
}
