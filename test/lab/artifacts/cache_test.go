package artifacts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestHashKey(t *testing.T) {
	if hashKey("ab", "c") == hashKey("a", "bc") {
		t.Error("the borders between inputs do not count")
	}
	if key := hashKey("a"); key != "6a9960c7d65c78b67d91" || strings.ContainsAny(key, "/ ") {
		t.Errorf("key is %q; it must be stable, and a file name", key)
	}
}

func fillWith(text string) func(string) error {
	return func(dir string) error { return os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644) }
}

func TestCacheMakesAnEntryOnce(t *testing.T) {
	dir := t.TempDir()
	var fills atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			// Each with a cache of its own, as processes have.
			l, _, err := (&cache{dir: dir}).get(t.Context(), "kind", "key", func(d string) error {
				fills.Add(1)
				time.Sleep(20 * time.Millisecond)
				return fillWith("x")(d)
			})
			if err != nil {
				t.Error(err)
				return
			}
			if b, err := os.ReadFile(filepath.Join(l.path, "f")); err != nil || string(b) != "x" {
				t.Errorf("entry has %q, %v", b, err)
			}
			l.release()
		})
	}
	wg.Wait()
	if n := fills.Load(); n != 1 {
		t.Errorf("the entry was made %d times", n)
	}
}

func TestCacheForgetsFailedAndInterruptedEntries(t *testing.T) {
	c := &cache{dir: t.TempDir()}
	boom := errors.New("boom")
	if _, _, err := c.get(t.Context(), "kind", "key", func(d string) error {
		return errors.Join(fillWith("half")(d), boom)
	}); !errors.Is(err, boom) {
		t.Fatalf("error is %v", err)
	}
	tmp := filepath.Join(c.dir, "kind", "key.tmp")
	if _, err := os.Stat(tmp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed entry left its folder: %v", err)
	}
	// As a killed build leaves it.
	if err := os.MkdirAll(filepath.Join(tmp, "old"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, cached, err := c.get(t.Context(), "kind", "key", fillWith("whole"))
	if err != nil || cached {
		t.Fatalf("cached %t, error %v", cached, err)
	}
	if _, err := os.Stat(filepath.Join(l.path, "old")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the entry has a file of the interrupted build")
	}
	l.release()
	if _, cached, err := c.get(t.Context(), "kind", "key", fillWith("again")); err != nil || !cached {
		t.Errorf("cached %t, error %v", cached, err)
	}
}

func TestCacheWaitsOnlyAsLongAsItsContext(t *testing.T) {
	c := &cache{dir: t.TempDir()}
	started, finish := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _, err := c.get(context.Background(), "kind", "key", func(d string) error {
			close(started)
			<-finish
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := c.get(ctx, "kind", "key", fillWith("")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	close(finish)
	wg.Wait()
}

// TestHold hands a set to a second holder and lets the first one go.
func TestHold(t *testing.T) {
	b := &builder{cache: &cache{dir: t.TempDir()}, set: &Set{}}
	path, _, err := b.get(t.Context(), "kind", "key", fillWith("x"))
	if err != nil {
		t.Fatal(err)
	}
	second := &Set{Entries: b.set.Entries}
	if err := second.Hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.set.Release()
	for _, want := range []bool{true, false} {
		if err := b.cache.prune(t.Context(), "kind", 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("entry is there: %t, want %t", err == nil, want)
		}
		second.Release()
	}
	if err := second.Hold(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("holding what was pruned: %v", err)
	}
}

func TestPruneSparesWhatIsUsedAndNew(t *testing.T) {
	c := &cache{dir: t.TempDir()}
	leases := map[string]lease{}
	for i, key := range []string{"a", "b", "c", "d", "e"} {
		l, _, err := c.get(t.Context(), "kind", key, fillWith(key))
		if err != nil {
			t.Fatal(err)
		}
		leases[key] = l
		when := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(l.path+".lock", when, when); err != nil {
			t.Fatal(err)
		}
		if key != "a" {
			l.release()
		}
	}
	if err := os.MkdirAll(filepath.Join(c.dir, "kind", "x.tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "kind", "x.lock"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.prune(t.Context(), "kind", 3); err != nil {
		t.Fatal(err)
	}
	// a is old but in use, b is old, c goes for the interrupted x, which counts as the newest.
	for key, want := range map[string]bool{"a": true, "b": false, "c": false, "d": true, "e": true, "x": false, "x.tmp": false, "x.lock": false, "b.lock": false} {
		_, err := os.Stat(filepath.Join(c.dir, "kind", key))
		if got := err == nil; got != want {
			t.Errorf("%s: present %t, want %t", key, got, want)
		}
	}
	leases["a"].release()
	if err := c.prune(t.Context(), "kind", 3); err != nil {
		t.Fatal(err)
	}
	if got := c.newest("kind"); filepath.Base(got) != "e" {
		t.Errorf("newest is %q", got)
	}
}
