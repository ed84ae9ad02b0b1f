package supervise

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("timed out waiting until %s", what)
}

func TestRestartStopAndStartAgain(t *testing.T) {
	s := New(t.Logf)
	var out lockedBuffer
	spec := Spec{Name: "p", Argv: []string{"/bin/sh", "-c", "echo hi; exec sleep 60"}, Output: &out, RestartDelay: time.Millisecond}
	if err := s.Start(spec); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(spec); !errors.Is(err, ErrRunning) {
		t.Fatalf("second start: %v", err)
	}
	// Before it is killed: a shell may not have come to its first command yet.
	eventually(t, "its output arrived", func() bool { return out.String() != "" })
	if err := s.Signal("p", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was restarted", func() bool { l := s.List(); return l[0].Starts == 2 && l[0].Running })
	if err := s.Stop(t.Context(), "p", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if l := s.List(); l[0].Running || l[0].LastExit == "" {
		t.Fatalf("after stop: %+v", l)
	}
	if err := s.Signal("p", syscall.SIGKILL); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("signal to a stopped process: %v", err)
	}
	if err := s.StartAgain("p"); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context(), "p", 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context(), "nobody", 0); !errors.Is(err, ErrUnknown) {
		t.Fatalf("stop of an unknown process: %v", err)
	}
}

// The reaper must not take the exit status of a process that Run waits for.
func TestReapLeavesOwnChildren(t *testing.T) {
	s := New(t.Logf)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go s.Reap(ctx)
	for range 50 {
		err := s.Run(exec.Command("/bin/sh", "-c", "exit 3"))
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 {
			t.Fatalf("got %v, want exit status 3", err)
		}
	}
	// A child nobody waits for is an orphan in the reaper's eyes.
	cmd := exec.Command("/bin/true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the orphan was reaped", func() bool { return syscall.Kill(cmd.Process.Pid, 0) != nil })
}
