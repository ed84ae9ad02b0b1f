package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBootWatch(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	stall := "[   24.9] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n"
	at := func(d time.Duration) time.Time { return start.Add(d) }
	console := filepath.Join(t.TempDir(), "console.log")
	w := bootWatch{console: console, started: start}

	check := func(when time.Duration, want string) {
		t.Helper()
		got := w.hung(at(when))
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("after %s: hung says %q, want %q", when, got, want)
		}
	}
	check(time.Second, "") // no console yet
	if err := os.WriteFile(console, []byte("[ 1.0] booting\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(2*time.Second, "")
	if err := os.WriteFile(console, []byte("[ 1.0] booting\n"+stall), 0o600); err != nil {
		t.Fatal(err)
	}
	check(30*time.Second, "") // it may still get on
	check(49*time.Second, "")
	check(51*time.Second, "timer")
	w.restart(at(62 * time.Second))
	if w.resets != 1 {
		t.Errorf("resets = %d, want 1", w.resets)
	}
	check(200*time.Second, "") // what the former boot said does not count
	check(62*time.Second+silentLimit+time.Second, "not ready")
}
