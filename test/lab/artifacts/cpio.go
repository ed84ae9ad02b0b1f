package artifacts

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// cpioWriter writes an archive in the format "newc", the one of Linux' initramfs (kernel documentation:
// driver-api/early-userspace/buffer-format). Parent folders are written on their own before the first file in them; owners are
// root, times are 0, so that the same files give the same bytes.
type cpioWriter struct {
	w    io.Writer
	ino  uint32
	dirs map[string]bool
	err  error
}

func newCPIO(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, dirs: map[string]bool{"": true}}
}

const (
	cpioDir     = 0o040000
	cpioFile    = 0o100000
	cpioSymlink = 0o120000
	cpioChar    = 0o020000
)

// file writes a regular file.
func (c *cpioWriter) file(name string, mode fs.FileMode, data []byte) {
	c.parents(name)
	c.entry(name, cpioFile|uint32(mode.Perm()), 0, 0, data)
}

// symlink writes a symbolic link.
func (c *cpioWriter) symlink(name, target string) {
	c.parents(name)
	c.entry(name, cpioSymlink|0o777, 0, 0, []byte(target))
}

// char writes a character device.
func (c *cpioWriter) char(name string, mode fs.FileMode, major, minor uint32) {
	c.parents(name)
	c.entry(name, cpioChar|uint32(mode.Perm()), major, minor, nil)
}

// dir writes a folder and its parents, once.
func (c *cpioWriter) dir(name string) {
	name = clean(name)
	if c.dirs[name] {
		return
	}
	c.parents(name)
	c.dirs[name] = true
	c.entry(name, cpioDir|0o755, 0, 0, nil)
}

func (c *cpioWriter) parents(name string) { c.dir(path.Dir(clean(name))) }

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (c *cpioWriter) entry(name string, mode, major, minor uint32, data []byte) {
	name = clean(name)
	if name == "" {
		return
	}
	c.ino++
	c.record(c.ino, name, mode, major, minor, data)
}

func (c *cpioWriter) record(ino uint32, name string, mode, major, minor uint32, data []byte) {
	if c.err != nil {
		return
	}
	if int64(len(data)) > int64(^uint32(0)) {
		c.err = fmt.Errorf("initramfs: %s does not fit into a newc archive", name)
		return
	}
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	c.write([]byte(head + pad4(len(head))))
	c.write(data)
	c.write([]byte(pad4(len(data))))
}

func pad4(n int) string { return "\x00\x00\x00"[:(4-n%4)%4] }

func (c *cpioWriter) write(p []byte) {
	if c.err == nil {
		if _, err := c.w.Write(p); err != nil {
			c.err = fmt.Errorf("write initramfs: %w", err)
		}
	}
}

// close writes the archive's end and answers the first error of all.
func (c *cpioWriter) close() error {
	c.record(0, "TRAILER!!!", 0, 0, 0, nil)
	return c.err
}
