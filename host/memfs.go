package host

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tree is a tree in memory, made file by file: what archives are read into and
// what tests build hosts from. It implements [FS] and is safe for use by several
// goroutines.
type Tree struct {
	mu   sync.RWMutex
	root *node
}

// node is a directory (children set), a link (target set) or a file.
type node struct {
	name     string
	children map[string]*node
	target   string
	data     []byte
	// denied makes every use fail, as an unreadable attribute does.
	denied error
}

// NewTree is an empty tree.
func NewTree() *Tree { return &Tree{root: &node{name: ".", children: map[string]*node{}}} }

// maxHops bounds the links that one name may pass through.
const maxHops = 40

// File puts a file into the tree with its parents, replacing what was there.
func (t *Tree) File(name, content string) { t.put(name, &node{data: []byte(content)}) }

// Link puts a symbolic link into the tree with its parents.
func (t *Tree) Link(name, target string) { t.put(name, &node{target: target}) }

// MkdirAll puts a directory into the tree with its parents.
func (t *Tree) MkdirAll(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dir(name)
}

// Remove takes a file, a link or a whole directory away; nothing happens when
// it is not there.
func (t *Tree) Remove(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.find(path.Dir(name)); p != nil && p.children != nil {
		delete(p.children, path.Base(name))
	}
}

// Deny lets every use of a name fail with err, as unreadable attributes do.
func (t *Tree) Deny(name string, err error) { t.put(name, &node{denied: err}) }

func (t *Tree) put(name string, n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.name = path.Base(name)
	t.dir(path.Dir(name)).children[n.name] = n
}

// dir makes directories. A file in the way becomes a directory.
func (t *Tree) dir(name string) *node {
	at := t.root
	if name == "." || name == "" {
		return at
	}
	for part := range strings.SplitSeq(path.Clean(name), "/") {
		next := at.children[part]
		if next == nil || next.children == nil {
			next = &node{name: part, children: map[string]*node{}}
			at.children[part] = next
		}
		at = next
	}
	return at
}

// find walks without following links.
func (t *Tree) find(name string) *node {
	at := t.root
	if name == "." {
		return at
	}
	for part := range strings.SplitSeq(name, "/") {
		if at = at.children[part]; at == nil {
			return nil
		}
	}
	return at
}

// lookup walks (the caller holds the lock) and follows links on the way, the last one only if follow.
func (t *Tree) lookup(op, name string, follow bool) (*node, error) {
	fail := func(err error) (*node, error) { return nil, &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	if name == "." {
		return t.root, nil
	}
	rest, done := strings.Split(name, "/"), ""
	at := t.root
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if at.children == nil {
			return fail(fs.ErrNotExist)
		}
		next := at.children[part]
		switch {
		case next == nil:
			return fail(fs.ErrNotExist)
		case next.denied != nil:
			return fail(next.denied)
		case next.target != "" && (follow || len(rest) > 0):
			if hops++; hops > maxHops {
				return fail(fs.ErrInvalid)
			}
			to := resolve(done, next.target)
			if to != "" {
				rest = append(strings.Split(to, "/"), rest...)
			}
			at, done = t.root, ""
			continue
		}
		at, done = next, path.Join(done, part)
	}
	return at, nil
}

// Open implements [fs.FS].
func (t *Tree) Open(name string) (fs.File, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, err := t.lookup("open", name, true)
	if err != nil {
		return nil, err
	}
	f := &memFile{node: n, Reader: bytes.NewReader(n.data)}
	if n.children != nil {
		f.entries = n.entries()
	}
	return f, nil
}

// ReadDir implements [FS].
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, err := t.lookup("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if n.children == nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	return n.entries(), nil
}

// ReadLink implements [FS].
func (t *Tree) ReadLink(name string) (string, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, err := t.lookup("readlink", name, false)
	if err != nil {
		return "", err
	}
	if n.target == "" {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return n.target, nil
}

// Lstat implements [fs.ReadLinkFS].
func (t *Tree) Lstat(name string) (fs.FileInfo, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, err := t.lookup("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return info{n}, nil
}

func (n *node) entries() []fs.DirEntry {
	out := make([]fs.DirEntry, 0, len(n.children))
	for _, c := range n.children {
		out = append(out, fs.FileInfoToDirEntry(info{c}))
	}
	sortEntries(out)
	return out
}

func sortEntries(e []fs.DirEntry) {
	slices.SortFunc(e, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
}

// info describes a node.
type info struct{ n *node }

func (i info) Name() string       { return i.n.name }
func (i info) Size() int64        { return int64(len(i.n.data)) }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.n.children != nil }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	switch {
	case i.n.children != nil:
		return fs.ModeDir | 0o755
	case i.n.target != "":
		return fs.ModeSymlink | 0o777
	}
	return 0o644
}

// memFile is an open node.
type memFile struct {
	*bytes.Reader
	node    *node
	entries []fs.DirEntry
}

func (f *memFile) Stat() (fs.FileInfo, error) { return info{f.node}, nil }
func (f *memFile) Close() error               { return nil }

// Read implements [fs.File]; directories cannot be read.
func (f *memFile) Read(b []byte) (int, error) {
	if f.node.children != nil {
		return 0, &fs.PathError{Op: "read", Path: f.node.name, Err: fs.ErrInvalid}
	}
	return f.Reader.Read(b)
}

// ReadDir implements [fs.ReadDirFile].
func (f *memFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if f.node.children == nil {
		return nil, &fs.PathError{Op: "readdir", Path: f.node.name, Err: fs.ErrInvalid}
	}
	if n <= 0 || n > len(f.entries) {
		if n > 0 && len(f.entries) == 0 {
			return nil, io.EOF
		}
		n = len(f.entries)
	}
	out := f.entries[:n]
	f.entries = f.entries[n:]
	return out, nil
}
