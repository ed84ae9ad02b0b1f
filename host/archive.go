package host

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// ErrArchive is the class of errors about a snapshot archive that cannot be
// read.
var ErrArchive = errors.New("not a host snapshot")

// Bounds of a snapshot archive: a capture of the largest hosts is far below,
// and a hostile archive cannot fill the memory.
const (
	maxArchiveBytes   = 512 << 20
	maxArchiveEntries = 4 << 20
	maxArchiveFile    = 8 << 20
)

// ReadArchive reads a tar archive, compressed by gzip or not, into memory. The
// archive holds sys/ and optionally proc/, at its top or below any one folder.
// Errors are of class [ErrArchive].
func ReadArchive(r io.Reader) (*Tree, error) {
	br := bufio.NewReader(r)
	if magic, err := br.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrArchive, err)
		}
		br = bufio.NewReader(z)
	}
	t := NewTree()
	tr := tar.NewReader(br)
	var total int64
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrArchive, err)
		}
		if n >= maxArchiveEntries {
			return nil, fmt.Errorf("%w: more than %d entries", ErrArchive, maxArchiveEntries)
		}
		name := strings.TrimPrefix(path.Join("/", h.Name), "/")
		if name == "" {
			continue
		}
		switch h.Typeflag {
		case tar.TypeDir:
			t.MkdirAll(name)
		case tar.TypeSymlink:
			if h.Linkname != "" {
				t.Link(name, h.Linkname)
			}
		case tar.TypeReg:
			if h.Size > maxArchiveFile {
				return nil, fmt.Errorf("%w: %s has %d bytes, the limit is %d", ErrArchive, name, h.Size, maxArchiveFile)
			}
			if total += h.Size; total > maxArchiveBytes {
				return nil, fmt.Errorf("%w: more than %d bytes", ErrArchive, int64(maxArchiveBytes))
			}
			b, err := io.ReadAll(tr)
			if err != nil {
				return nil, fmt.Errorf("%w: %s: %w", ErrArchive, name, err)
			}
			t.File(name, string(b))
		}
	}
	if t.find("sys") != nil {
		return t, nil
	}
	// Some tools pack the folder that holds sys/.
	for _, c := range t.root.children {
		if s := c.children["sys"]; s != nil && s.children != nil {
			return &Tree{root: c}, nil
		}
	}
	return nil, fmt.Errorf("%w: no sys/ in it", ErrArchive)
}
