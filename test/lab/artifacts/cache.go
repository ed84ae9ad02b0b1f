package artifacts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// keepEntries is how many entries of one kind survive pruning: the one in use, the one of another checkout, and the one
// before, to which a developer may go back.
const keepEntries = 3

// hashKey is the name of a cache entry: a hash over its inputs, each length-prefixed so that no two lists collide.
func hashKey(inputs ...string) string {
	h := sha256.New()
	for _, in := range inputs {
		fmt.Fprintf(h, "%d:%s\n", len(in), in)
	}
	return hex.EncodeToString(h.Sum(nil))[:20]
}

// cache is a folder of entries KIND/KEY, each with a lock file KIND/KEY.lock beside it. An exclusive lock means that the
// entry is being made or removed, a shared one that it is in use. An entry is made in KIND/KEY.tmp and renamed.
type cache struct {
	dir string
}

// lease is the hold of this process on one entry.
type lease struct {
	path string
	file *os.File
	once *sync.Once
}

// release ends the hold.
func (l lease) release() { l.once.Do(func() { _ = l.file.Close() }) }

// lockFile opens and locks a lock file, waiting as long as ctx allows; with wait false it answers at once, a nil file
// meaning that another holds the lock. It copes with the removal of the file between opening and locking.
func lockFile(ctx context.Context, path string, how int, wait bool) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open the cache's lock: %w", err)
		}
		switch err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); {
		case err == nil:
			var opened, named syscall.Stat_t
			if syscall.Fstat(int(f.Fd()), &opened) == nil && syscall.Stat(path, &named) == nil && opened.Ino == named.Ino {
				return f, nil
			}
			_ = f.Close() // removed under our feet: the lock is on a file that nobody else can find
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		_ = f.Close()
		if !wait {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another build that holds %s: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// get answers the entry, making it first where it is absent. fill writes the entry into the folder that it is given; that
// the folder is under its final parent lets hard links work. cached is true where fill was not called.
func (c *cache) get(ctx context.Context, kind, key string, fill func(dir string) error) (l lease, cached bool, err error) {
	parent := filepath.Join(c.dir, kind)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return lease{}, false, fmt.Errorf("make the cache's folder: %w", err)
	}
	path := filepath.Join(parent, key)
	lockPath := path + ".lock"
	cached = true
	for {
		shared, err := lockFile(ctx, lockPath, syscall.LOCK_SH, true)
		if err != nil {
			return lease{}, false, err
		}
		if _, err := os.Stat(path); err == nil {
			now := time.Now()
			_ = os.Chtimes(lockPath, now, now) // for the order of pruning only
			return lease{path: path, file: shared, once: &sync.Once{}}, cached, nil
		}
		_ = shared.Close()

		exclusive, err := lockFile(ctx, lockPath, syscall.LOCK_EX, true)
		if err != nil {
			return lease{}, false, err
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			cached = false
			if err := c.make(path, fill); err != nil {
				_ = exclusive.Close()
				return lease{}, false, err
			}
		}
		_ = exclusive.Close()
	}
}

// make fills a temporary folder and renames it to path.
func (c *cache) make(path string, fill func(dir string) error) error {
	tmp := path + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("remove what an interrupted build left: %w", err)
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return fmt.Errorf("make a cache entry: %w", err)
	}
	if err := fill(tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("publish a cache entry: %w", err), os.RemoveAll(tmp))
	}
	return nil
}

// newest answers the entry of a kind that was used last, "" where there is none.
func (c *cache) newest(kind string) string {
	entries := c.entries(kind)
	for i := len(entries) - 1; i >= 0; i-- {
		if _, err := os.Stat(entries[i].path); err == nil {
			return entries[i].path
		}
	}
	return ""
}

type cacheEntry struct {
	path string
	used time.Time
}

// entries lists the entries of a kind by their locks, least recently used first.
func (c *cache) entries(kind string) []cacheEntry {
	locks, err := filepath.Glob(filepath.Join(c.dir, kind, "*.lock"))
	if err != nil {
		return nil // only a malformed pattern fails
	}
	var out []cacheEntry
	for _, lock := range locks {
		if info, err := os.Stat(lock); err == nil {
			out = append(out, cacheEntry{strings.TrimSuffix(lock, ".lock"), info.ModTime()})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].used.Before(out[j].used) })
	return out
}

// prune removes what interrupted builds left, and all but the last keep entries of a kind that nobody uses.
func (c *cache) prune(ctx context.Context, kind string, keep int) error {
	entries := c.entries(kind)
	var errs []error
	for i, e := range entries {
		old := i < len(entries)-keep
		_, tmpErr := os.Stat(e.path + ".tmp")
		_, err := os.Stat(e.path)
		if !old && tmpErr != nil && err == nil {
			continue
		}
		lock, err := lockFile(ctx, e.path+".lock", syscall.LOCK_EX, false)
		if err != nil || lock == nil {
			errs = append(errs, err)
			continue // in use
		}
		errs = append(errs, os.RemoveAll(e.path+".tmp"))
		if old {
			errs = append(errs, os.RemoveAll(e.path))
		}
		if _, err := os.Stat(e.path); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, os.Remove(e.path+".lock"))
		}
		_ = lock.Close()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("prune the cache: %w", err)
	}
	return nil
}
