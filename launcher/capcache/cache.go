package capcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// DefaultDir is the node's folder, as containers see it.
const DefaultDir = v1alpha1.CapabilityCacheDir

// Limits of what is taken over from the node's folder.
const (
	maxFiles = 4
	maxBytes = 2 << 20
)

// keepEntries is how many entries stay when one is published: a node may run
// several launcher images.
const keepEntries = 8

// markFresh is how long a mark counts after it was renewed, markEvery how often
// it is.
const (
	markFresh = 4 * time.Second
	markEvery = time.Second
)

// files of libvirt's are named by the SHA-256 of QEMU's path.
var fileForm = regexp.MustCompile(`^[0-9a-f]{64}\.xml$`)

// Cache is the node's folder.
type Cache struct {
	// Dir is the folder; it need not exist for those who fetch.
	Dir string
}

func (c Cache) entry(key string) string { return filepath.Join(c.Dir, key) }
func (c Cache) mark(key string) string  { return filepath.Join(c.Dir, key+".probing") }

// Fetch copies an entry's files into libvirt's own folder, waiting for a probe
// that is going on, and says whether there was an entry. No entry is no error.
func (c Cache) Fetch(ctx context.Context, key, into string) (bool, error) {
	for {
		found, err := c.copyOut(key, into)
		if found || err != nil || !c.probing(key) {
			return found, err
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c Cache) copyOut(key, into string) (bool, error) {
	names, err := xmlFiles(c.entry(key))
	if err != nil || len(names) == 0 {
		return false, err
	}
	if len(names) > maxFiles {
		return false, fmt.Errorf("capability cache: %s has %d files, more than %d", c.entry(key), len(names), maxFiles)
	}
	if err := os.MkdirAll(into, 0o700); err != nil {
		return false, fmt.Errorf("capability cache: %w", err)
	}
	for _, name := range names {
		if err := copyFile(filepath.Join(c.entry(key), name), filepath.Join(into, name), 0o600); err != nil {
			return false, fmt.Errorf("capability cache: %w", err)
		}
	}
	return true, nil
}

// probing says whether a fresh mark is there.
func (c Cache) probing(key string) bool {
	st, err := os.Stat(c.mark(key))
	return err == nil && time.Since(st.ModTime()) < markFresh
}

// Mark says that a probe for key is going on until done is called. Without a
// writable folder there is no mark, and an error.
func (c Cache) Mark(key string) (done func(), err error) {
	path := c.mark(key)
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return nil, fmt.Errorf("capability cache: %w", err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		t := time.NewTicker(markEvery)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case now := <-t.C:
				// A mark that cannot be renewed only makes others probe themselves.
				_ = os.Chtimes(path, now, now)
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
		_ = os.Remove(path) // a stale mark counts for seconds only
	}, nil
}

// Publish makes libvirt's files in from the entry of key, at once, and removes
// the oldest entries. It says whether anything changed.
func (c Cache) Publish(key, from string) (bool, error) {
	names, err := xmlFiles(from)
	if err != nil {
		return false, err
	}
	if len(names) == 0 {
		return false, fmt.Errorf("capability cache: libvirt left no capabilities in %s", from)
	}
	if same, err := c.same(key, from, names); err != nil || same {
		return false, err
	}
	tmp, err := os.MkdirTemp(c.Dir, "tmp-")
	if err != nil {
		return false, fmt.Errorf("capability cache: %w", err)
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // after the rename it is gone
	if err := os.Chmod(tmp, 0o755); err != nil {
		return false, fmt.Errorf("capability cache: %w", err)
	}
	for _, name := range names {
		if err := copyFile(filepath.Join(from, name), filepath.Join(tmp, name), 0o644); err != nil {
			return false, fmt.Errorf("capability cache: %w", err)
		}
	}
	if err := os.RemoveAll(c.entry(key)); err != nil {
		return false, fmt.Errorf("capability cache: %w", err)
	}
	if err := os.Rename(tmp, c.entry(key)); err != nil {
		return false, fmt.Errorf("capability cache: %w", err)
	}
	return true, c.prune(key)
}

// same says whether the entry has exactly the files' content.
func (c Cache) same(key, from string, names []string) (bool, error) {
	have, err := xmlFiles(c.entry(key))
	if err != nil || !slices.Equal(have, names) {
		return false, err
	}
	for _, n := range names {
		a, err := os.ReadFile(filepath.Join(from, n))
		if err != nil {
			return false, fmt.Errorf("capability cache: %w", err)
		}
		b, err := os.ReadFile(filepath.Join(c.entry(key), n))
		if err != nil {
			return false, fmt.Errorf("capability cache: %w", err)
		}
		if string(a) != string(b) {
			return false, nil
		}
	}
	return true, nil
}

// prune removes all but the newest entries, and folders of publishers that were
// killed; keep stays.
func (c Cache) prune(keep string) error {
	list, err := os.ReadDir(c.Dir)
	if err != nil {
		return fmt.Errorf("capability cache: %w", err)
	}
	type aged struct {
		name string
		at   time.Time
	}
	var entries []aged
	for _, e := range list {
		if st, err := e.Info(); err == nil && e.IsDir() && e.Name() != keep {
			entries = append(entries, aged{e.Name(), st.ModTime()})
		}
	}
	slices.SortFunc(entries, func(a, b aged) int { return b.at.Compare(a.at) })
	for _, e := range entries[min(len(entries), keepEntries-1):] {
		if err := os.RemoveAll(filepath.Join(c.Dir, e.name)); err != nil {
			return fmt.Errorf("capability cache: %w", err)
		}
	}
	return nil
}

// xmlFiles lists libvirt's files in a folder, sorted; none when it is not there.
func xmlFiles(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("capability cache: %w", err)
	}
	var names []string
	for _, e := range list {
		if e.Type().IsRegular() && fileForm.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxBytes+1))
	if err != nil {
		return err
	}
	if len(b) > maxBytes {
		return fmt.Errorf("%s has more than %d bytes", from, maxBytes)
	}
	return os.WriteFile(to, b, mode)
}
