package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// connected gives a hub whose guest is the returned connection.
func connected(t *testing.T) (*Hub, net.Conn) {
	t.Helper()
	h := NewHub()
	ours, guest := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, ours) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return h, guest
}

func TestHub(t *testing.T) {
	h, guest := connected(t)
	first := h.Subscribe(0)
	if _, err := guest.Write([]byte("boot\n")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := first.Read(buf); err != nil || string(buf[:n]) != "boot\n" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	late := h.Subscribe(3)
	if n, err := late.Read(buf); err != nil || string(buf[:n]) != "ot\n" {
		t.Errorf("replay: %q, %v", buf[:n], err)
	}
	go func() {
		if _, err := h.Write([]byte("ls\n")); err != nil {
			t.Errorf("write to the guest: %v", err)
		}
	}()
	if n, err := guest.Read(buf); err != nil || string(buf[:n]) != "ls\n" {
		t.Errorf("the guest reads %q, %v", buf[:n], err)
	}
	late.Close()
	h.Close()
	for _, s := range []*Stream{first, late, h.Subscribe(0)} {
		if _, err := s.Read(buf); !errors.Is(err, io.EOF) {
			t.Errorf("a stream goes on after the end: %v", err)
		}
	}
}

func TestHubWithoutGuest(t *testing.T) {
	if _, err := NewHub().Write([]byte("x")); !errors.Is(err, ErrNoGuest) {
		t.Errorf("error %v", err)
	}
}

// TestSlowStream writes more than a reader's buffer: the writer never waits, and
// the reader is told what it lost and gets the end.
func TestSlowStream(t *testing.T) {
	h := NewHub()
	s := h.Subscribe(0)
	line := strings.Repeat("x", 1023) + "\n"
	for range 2 * streamBuffer / len(line) {
		h.publish([]byte(line))
	}
	h.publish([]byte("the end"))
	h.Close()
	got, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got[:100], []byte("bytes of console output lost")) || !bytes.HasSuffix(got, []byte("the end")) {
		t.Errorf("begins %.80q, ends %q", got, got[len(got)-20:])
	}
	if len(got) > streamBuffer+200 {
		t.Errorf("%d bytes were kept", len(got))
	}
}

func TestPastIsBounded(t *testing.T) {
	h := NewHub()
	for range 300 {
		h.publish(make([]byte, 1<<10))
	}
	if len(h.past) > 2*Scrollback {
		t.Errorf("%d bytes are kept", len(h.past))
	}
	h.Close()
	got, err := io.ReadAll(h.Subscribe(1 << 30))
	if err != nil || len(got) != Scrollback {
		t.Errorf("replay of %d bytes, %v", len(got), err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("closed") }

func TestCopyOut(t *testing.T) {
	now := time.Now()
	for name, tc := range map[string]struct {
		typed bool
		want  string
	}{
		"filtered when nobody is there": {false, "ab"},
		"raw for who types":             {true, "a\x1b[2Jb"},
	} {
		t.Run(name, func(t *testing.T) {
			h := NewHub()
			s := h.Subscribe(0)
			var p Presence
			if tc.typed {
				p.Touch(now)
			}
			h.publish([]byte("a\x1b[2Jb"))
			h.Close()
			var out bytes.Buffer
			if err := CopyOut(&out, s, &p); err != nil || out.String() != tc.want {
				t.Errorf("%q, %v; want %q", &out, err, tc.want)
			}
		})
	}
	h := NewHub()
	s := h.Subscribe(0)
	h.publish([]byte("x"))
	h.Close()
	if err := CopyOut(failing{}, s, nil); err == nil {
		t.Error("a closed stdout is no error")
	}
}

func TestPresence(t *testing.T) {
	var p Presence
	now := time.Now()
	if p.Here(now) {
		t.Error("somebody is there from the start")
	}
	p.Touch(now)
	if !p.Here(now.Add(time.Minute)) || p.Here(now.Add(time.Hour)) {
		t.Error("presence does not last, or for ever")
	}
}
