package host

import (
	"io/fs"
	"strings"
)

// WithProc is a tree whose proc/ comes from another one: a container sees the
// host's sysfs where it is mounted, and the host's procfs at its own /proc when
// it shares the host's PID namespace.
func WithProc(sys, proc FS) FS { return &withProc{sys, proc} }

type withProc struct{ sys, proc FS }

func (w *withProc) pick(name string) FS {
	if name == "proc" || strings.HasPrefix(name, "proc/") {
		return w.proc
	}
	return w.sys
}

// Open implements [fs.FS].
func (w *withProc) Open(name string) (fs.File, error) { return w.pick(name).Open(name) }

// ReadDir implements [FS].
func (w *withProc) ReadDir(name string) ([]fs.DirEntry, error) { return w.pick(name).ReadDir(name) }

// ReadLink implements [FS].
func (w *withProc) ReadLink(name string) (string, error) { return w.pick(name).ReadLink(name) }

func (w *withProc) openDir(name string) (handle, error) { return openDir(w.pick(name), name) }
