package tenancy

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// machine is a Cleaner that fails until told otherwise.
type machine struct {
	mu    sync.Mutex
	err   error
	calls int
}

func (m *machine) Clean(context.Context, string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	return m.err
}

func (m *machine) set(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func newKeeper(t *testing.T, m *machine) (*Keeper, chan struct{}) {
	t.Helper()
	changed := make(chan struct{}, 100)
	k := New(Config{Cleaner: m, Changed: func() { changed <- struct{}{} }, Grace: 10 * time.Millisecond, Retry: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { k.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return k, changed
}

func TestCleanUnitsNeedNoWait(t *testing.T) {
	k, _ := newKeeper(t, &machine{})
	if err := k.Wait(t.Context(), []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
}

func TestSoilAndWait(t *testing.T) {
	m := &machine{}
	k, _ := newKeeper(t, m)
	k.Soil("a")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := k.Wait(ctx, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if len(k.Dirty()) != 0 || m.calls != 1 {
		t.Errorf("dirty %v after %d calls", k.Dirty(), m.calls)
	}
}

// TestFaultAndRecovery: a unit that cannot be cleaned becomes a fault, refuses
// starts with the reason, and comes back.
func TestFaultAndRecovery(t *testing.T) {
	m := &machine{}
	m.set(errors.New("0000:01:00.0: does not answer"))
	k, changed := newKeeper(t, m)
	k.Soil("0000:01:00.0")
	<-changed
	if got := k.Faults()["0000:01:00.0"]; got != "0000:01:00.0: does not answer" {
		t.Fatalf("fault %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := k.Wait(ctx, []string{"0000:01:00.0"}); !errors.Is(err, ErrNotClean) {
		t.Fatalf("wait: %v, want %v", err, ErrNotClean)
	}
	m.set(nil)
	long, cancel2 := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel2()
	if err := k.Wait(long, []string{"0000:01:00.0"}); err != nil {
		t.Fatal(err)
	}
	if len(k.Faults()) != 0 {
		t.Errorf("faults stay: %v", k.Faults())
	}
}

func TestForget(t *testing.T) {
	m := &machine{}
	m.set(errors.New("gone"))
	k, _ := newKeeper(t, m)
	k.Soil("a")
	k.Forget("a")
	if err := k.Wait(t.Context(), []string{"a"}); err != nil {
		t.Fatal(err)
	}
}
