package console

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// attachedFor is how long after the last key a terminal counts as attached.
// kubectl attach does not tell the container that it went away.
const attachedFor = 15 * time.Minute

// Presence remembers whether somebody types at a terminal.
type Presence struct {
	last atomic.Int64 // unix nanoseconds
}

// Touch says that a key was pressed now.
func (p *Presence) Touch(now time.Time) { p.last.Store(now.UnixNano()) }

// Here says whether somebody typed within the last quarter of an hour.
func (p *Presence) Here(now time.Time) bool {
	last := p.last.Load()
	return last != 0 && now.Sub(time.Unix(0, last)) < attachedFor
}

// CopyOut copies a stream to the container's stdout until the stream ends:
// filtered, except while somebody is present. A writer that fails is not written
// to again, but the stream is read on, so that it does not fill.
// The first write error is returned at the end.
func CopyOut(w io.Writer, s *Stream, somebody *Presence) error {
	var (
		filter Filter
		failed error
		in     = make([]byte, 8<<10)
		out    []byte
	)
	for {
		n, err := s.Read(in)
		if n > 0 && failed == nil {
			out = out[:0]
			if somebody != nil && somebody.Here(time.Now()) {
				out = append(out, in[:n]...)
			} else {
				out = filter.Append(out, in[:n])
			}
			if _, werr := w.Write(out); werr != nil {
				failed = fmt.Errorf("write the guest's console to stdout: %w", werr)
			}
		}
		if errors.Is(err, io.EOF) {
			return failed
		}
		if err != nil {
			return err
		}
	}
}

// CopyIn sends what is typed to the guest until r ends. Input that comes while
// no guest is connected, or that the guest does not take in time, is dropped.
func CopyIn(h *Hub, r io.Reader, somebody *Presence) error {
	buf := make([]byte, 1<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			somebody.Touch(time.Now())
			if _, werr := h.Write(buf[:n]); werr != nil && !errors.Is(werr, ErrNoGuest) {
				// The guest does not read: typing goes nowhere, as on a real line.
				continue
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read stdin: %w", err)
		}
	}
}
