package artifacts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// builder is one run of [Build].
type builder struct {
	opts  Options
	cache *cache

	mu  sync.Mutex // guards set.Phases, set.leases and the calls of Progress
	set *Set

	buildIDs      map[string]string // binary to Go's build ID
	nodeTree      string
	kernelRelease string
	launcherLayer string // cache entry with the layer of the launcher's root file system
	guest         string // cache entry with the guest image's files
}

func (b *builder) progress(format string, args ...any) {
	if b.opts.Progress != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.opts.Progress(format, args...)
	}
}

// phase starts the clock of a phase; the returned function stops it.
func (b *builder) phase(name string) func(cached bool) {
	start := time.Now()
	return func(cached bool) {
		p := Phase{Name: name, Seconds: time.Since(start).Seconds(), Cached: cached}
		b.mu.Lock()
		b.set.Phases = append(b.set.Phases, p)
		b.mu.Unlock()
		how := "built"
		if cached {
			how = "cached"
		}
		b.progress("artifacts: %-18s %6.1f s  %s", p.Name, p.Seconds, how)
	}
}

// get answers the path of a cache entry, made by fill where it is absent, and holds it for the life of the set.
func (b *builder) get(ctx context.Context, kind, key string, fill func(dir string) error) (path string, cached bool, err error) {
	l, cached, err := b.cache.get(ctx, kind, key, fill)
	if err != nil {
		return "", false, err
	}
	b.mu.Lock()
	b.set.leases = append(b.set.leases, l.release)
	if !slices.Contains(b.set.Entries, l.path) {
		b.set.Entries = append(b.set.Entries, l.path)
	}
	b.mu.Unlock()
	return l.path, cached, nil
}

// Build makes, or finds in the cache, everything that the lab runs. It needs root on Debian; [ErrPreconditions] says what
// is missing. The returned set holds a lease on its cache entries until [Set.Release] or the end of the process.
//
// Two builds may run at the same time, in this process or in others: each waits for what the other one is making.
func Build(ctx context.Context, o Options) (*Set, error) {
	b := &builder{opts: o, set: &Set{Bin: map[string]string{}}, buildIDs: map[string]string{}}
	if err := b.build(ctx); err != nil {
		b.set.Release()
		return nil, fmt.Errorf("build the lab's artifacts: %w", err)
	}
	return b.set, nil
}

func (b *builder) build(ctx context.Context) error {
	done := b.phase("preconditions")
	changed, err := b.preconditions(ctx)
	if err != nil {
		return err
	}
	done(!changed)
	if err := b.openCache(ctx); err != nil {
		return err
	}
	// The root file systems wait for the network, go for the CPU: together they take hardly longer than go alone.
	if err := together(ctx,
		b.launcherRoot, b.nodeRoot, b.qemuRoot, b.buildBinaries,
	); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{b.nodeInitrd, b.guestFiles, b.imagesDisk} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return b.prune(ctx)
}

// kinds are the folders of the cache.
func kinds() []string {
	return []string{"bin", "node-root", "launcher-root", "qemu-root", "node-initrd", "guest", "layer", "images-disk"}
}

// keepOf is how many entries of a kind are kept: a set holds several layers.
func keepOf(kind string) int {
	if kind == "layer" {
		return keepEntries * 6
	}
	return keepEntries
}

func (b *builder) openCache(ctx context.Context) error {
	dir := b.opts.Cache
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("find the user's cache folder: %w", err)
		}
		dir = filepath.Join(user, "kubevfio")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find the cache: %w", err)
	}
	// QEMU is run by chroot into a tree in here, as another user perhaps.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	b.cache = &cache{dir: dir}
	return b.prune(ctx)
}

func (b *builder) prune(ctx context.Context) error {
	for _, kind := range kinds() {
		if err := b.cache.prune(ctx, kind, keepOf(kind)); err != nil {
			return err
		}
	}
	return b.sweepWork(ctx)
}

// sweepWork removes the work folders of builds that were killed.
func (b *builder) sweepWork(ctx context.Context) error {
	locks, err := filepath.Glob(filepath.Join(b.cache.dir, "bin-work-*.lock"))
	if err != nil {
		return fmt.Errorf("list work folders: %w", err)
	}
	for _, path := range locks {
		lock, err := lockFile(ctx, path, syscall.LOCK_EX, false)
		if err != nil {
			return err
		}
		if lock == nil {
			continue
		}
		err = errors.Join(os.RemoveAll(strings.TrimSuffix(path, ".lock")), os.Remove(path))
		_ = lock.Close()
		if err != nil {
			return fmt.Errorf("remove the work folder of a killed build: %w", err)
		}
	}
	return nil
}

// together runs functions at the same time and cancels the others when one fails; it answers the errors that came first.
func together(ctx context.Context, fns ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	for _, fn := range fns {
		wg.Go(func() {
			if err := fn(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if first == nil {
					first = err
				}
				cancel()
			}
		})
	}
	wg.Wait()
	return first
}
