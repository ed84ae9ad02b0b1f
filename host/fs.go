package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// FS is a tree that holds sys/ and optionally proc/. Names are as in [io/fs]:
// slash-separated, without a leading slash.
type FS interface {
	fs.FS
	// ReadDir lists a directory, sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	// ReadLink is a symbolic link's text.
	ReadLink(name string) (string, error)
}

// handle is an open directory of a tree. The reader gets everything about one
// function through one handle: on a real host that saves the kernel the walk
// from the root for each file.
type handle interface {
	// each calls fn with every name in the directory, in no order. The name is
	// only good during the call.
	each(buf []byte, fn func(name []byte)) error
	// read fills buf from a file and returns what it read: at most len(buf).
	read(file string, buf []byte) ([]byte, error)
	// link is a symbolic link's text.
	link(name string) (string, error)
	close()
}

// opener is an FS with its own way to open directories.
type opener interface {
	openDir(name string) (handle, error)
}

func openDir(fsys FS, name string) (handle, error) {
	if o, ok := fsys.(opener); ok {
		return o.openDir(name)
	}
	if _, err := fs.Stat(fsys, name); err != nil {
		return nil, err
	}
	return plainDir{fsys, name}, nil
}

// plainDir is a handle on any FS.
type plainDir struct {
	fsys FS
	name string
}

func (d plainDir) each(_ []byte, fn func([]byte)) error {
	entries, err := d.fsys.ReadDir(d.name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		fn([]byte(e.Name()))
	}
	return nil
}

func (d plainDir) read(file string, buf []byte) ([]byte, error) {
	f, err := d.fsys.Open(path.Join(d.name, file))
	if err != nil {
		return nil, err
	}
	n, err := io.ReadFull(f, buf)
	if cerr := f.Close(); cerr != nil && err == nil {
		err = cerr
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return buf[:n], nil
}

func (d plainDir) link(name string) (string, error) {
	return d.fsys.ReadLink(path.Join(d.name, name))
}

func (d plainDir) close() {}

// dirFS is a directory of the running machine. All names are resolved below it,
// as if it were the root directory (openat2 with RESOLVE_IN_ROOT): neither an
// absolute link nor ".." leaves it.
type dirFS struct {
	dir  string
	root func() (*os.File, error)
}

// Dir is the tree below a directory, such as "/" or "/host". The directory is
// opened at first use and stays open for the life of the FS; where it cannot
// be opened every use says so.
func Dir(dir string) FS {
	return &dirFS{dir: dir, root: sync.OnceValues(func() (*os.File, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
		}
		return os.NewFile(uintptr(fd), dir), nil
	})}
}

// Open is the tree at a path: a directory that holds sys/, or a snapshot
// archive (.tar, .tar.gz).
func Open(name string) (FS, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return Dir(name), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	t, err := ReadArchive(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

func (d *dirFS) openAt(name string, flags int) (int, error) {
	if !fs.ValidPath(name) {
		return -1, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	root, err := d.root()
	if err != nil {
		return -1, err
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT}
	var b [nameMax]byte
	fd, err := rawOpenat2(int(root.Fd()), cname(b[:0], name), &how)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path.Join(d.dir, name), Err: err}
	}
	return fd, nil
}

// nameMax is room for the names that sysfs has; longer ones cost an allocation.
const nameMax = 256

// Open implements [fs.FS].
func (d *dirFS) Open(name string) (fs.File, error) {
	fd, err := d.openAt(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path.Join(d.dir, name)), nil
}

// ReadDir implements [FS].
func (d *dirFS) ReadDir(name string) ([]fs.DirEntry, error) {
	fd, err := d.openAt(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path.Join(d.dir, name))
	entries, err := f.ReadDir(-1)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	sortEntries(entries)
	return entries, err
}

// ReadLink implements [FS].
func (d *dirFS) ReadLink(name string) (string, error) {
	// The link itself must not be followed but its parents may be.
	h, err := d.openDir(path.Dir(name))
	if err != nil {
		return "", err
	}
	defer h.close()
	return h.link(path.Base(name))
}

func (d *dirFS) openDir(name string) (handle, error) {
	fd, err := d.openAt(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &osDir{fd: fd, name: name}, nil
}

// osDir is a directory by descriptor. Methods make bare system calls: package
// os would add three per file (poller registration, fstat, a second read).
type osDir struct {
	fd   int
	name string
}

func (d *osDir) fail(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: path.Join(d.name, name), Err: err}
}

// Offsets in struct linux_dirent64, include/linux/dirent.h.
const (
	direntReclen = 16
	direntName   = 19
)

func (d *osDir) each(buf []byte, fn func([]byte)) error {
	for {
		n, err := rawGetdents(d.fd, buf)
		if err != nil {
			return d.fail("readdir", ".", err)
		}
		if n == 0 {
			return nil
		}
		// By hand, not by unix.ParseDirent, which makes a string of each name.
		for b := buf[:n]; len(b) >= direntName; {
			size := int(binary.NativeEndian.Uint16(b[direntReclen:]))
			if size < direntName || size > len(b) {
				return d.fail("readdir", ".", unix.EIO)
			}
			name := b[direntName:size]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if s := string(name); s != "." && s != ".." {
				fn(name)
			}
			b = b[size:]
		}
	}
}

func (d *osDir) read(file string, buf []byte) ([]byte, error) {
	var name [nameMax]byte
	// A link in place of an attribute is refused: no attribute is one.
	fd, err := rawOpenat(d.fd, cname(name[:0], file), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW)
	if err != nil {
		return nil, d.fail("open", file, err)
	}
	n := 0
	for n < len(buf) {
		var m int
		m, err = unix.Read(fd, buf[n:])
		if errors.Is(err, unix.EINTR) {
			err = nil
			continue
		}
		if err != nil || m == 0 {
			break
		}
		n += m
		// sysfs gives an attribute in one read; what ends a line and leaves
		// room in the buffer is complete without asking for the end.
		if n < len(buf) && buf[n-1] == '\n' {
			break
		}
	}
	if cerr := rawClose(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, d.fail("read", file, err)
	}
	return buf[:n], nil
}

func (d *osDir) link(name string) (string, error) {
	var b, c [2 * nameMax]byte
	n, err := rawReadlinkat(d.fd, cname(c[:0], name), b[:])
	if err != nil {
		return "", d.fail("readlink", name, err)
	}
	if n == len(b) {
		return "", d.fail("readlink", name, unix.ENAMETOOLONG)
	}
	return string(b[:n]), nil
}

func (d *osDir) close() { _ = rawClose(d.fd) }

// resolve is the place that a link in directory dir points to, inside the tree.
func resolve(dir, target string) string {
	if strings.HasPrefix(target, "/") {
		return strings.TrimPrefix(path.Clean(target), "/")
	}
	// Cleaning a rooted path keeps ".." inside the tree.
	return strings.TrimPrefix(path.Join("/", dir, target), "/")
}
