package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// Watcher tells plugins when kubelet's device plugin folder changes: inotify
// first, a poll behind it.
type Watcher struct {
	dir  string
	poll time.Duration
	log  *slog.Logger

	mu      sync.Mutex
	changed chan struct{}
}

// NewWatcher watches dir once Run runs; poll (default 1 s) is the time between
// the looks that plugins take on their own.
func NewWatcher(dir string, poll time.Duration, log *slog.Logger) *Watcher {
	if poll == 0 {
		poll = time.Second
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Watcher{dir: dir, poll: poll, log: log, changed: make(chan struct{})}
}

// Changed gives a channel that closes at the next change of the folder.
func (w *Watcher) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (w *Watcher) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *Watcher) kubeletSocket() string { return filepath.Join(w.dir, "kubelet.sock") }

// Run watches until ctx ends. Without inotify (its limits may be used up) it
// says so once and the plugins' poll does the work.
func (w *Watcher) Run(ctx context.Context) error {
	err := w.watch(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.log.Warn("cannot watch kubelet's device plugin folder, polling it", "err", err)
	<-ctx.Done()
	return ctx.Err()
}

var errWatcherClosed = errors.New("inotify ended")

func (w *Watcher) watch(ctx context.Context) error {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	defer n.Close() //nolint:errcheck // the process' descriptor goes either way
	if err := n.Add(w.dir); err != nil {
		return fmt.Errorf("inotify %s: %w", w.dir, err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-n.Events:
			if !ok {
				return errWatcherClosed
			}
			// Events are bit masks; kubelet's checkpoint is written all the time.
			if filepath.Ext(e.Name) == ".sock" && (e.Has(fsnotify.Create) || e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename)) {
				w.fire()
			}
		case err, ok := <-n.Errors:
			if !ok {
				return errWatcherClosed
			}
			w.log.Warn("inotify on kubelet's device plugin folder", "err", err)
			w.fire()
		}
	}
}

// identity of a socket file: a file made anew differs, even under a reused
// inode number.
type identity struct {
	dev, ino uint64
	ctime    syscall.Timespec
}

func identify(path string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return identity{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return identity{dev: st.Dev, ino: st.Ino, ctime: syscall.Timespec(st.Ctim)}, nil
}
