package volumes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Files looks at the container's file system below Root ("/" normally).
type Files struct{ Root string }

func (l Files) at(path string) string { return filepath.Join(l.Root, path) }

// IsBlock reports whether the path is a block device.
func (l Files) IsBlock(path string) bool {
	st, err := os.Stat(l.at(path))
	return err == nil && st.Mode()&fs.ModeDevice != 0 && st.Mode()&fs.ModeCharDevice == 0
}

// OnlyFile is the single regular file of a folder.
func (l Files) OnlyFile(dir string) (string, error) {
	entries, err := os.ReadDir(l.at(dir))
	if err != nil {
		return "", err
	}
	var found []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s has %d files, want one disk image", dir, len(found))
	}
	return found[0], nil
}

// Format is "raw" or "qcow2" by the file's first bytes.
func (l Files) Format(path string) (string, error) {
	f, err := os.Open(l.at(path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	// QEMU's docs/interop/qcow2.rst.
	if bytes.Equal(head, []byte("QFI\xfb")) {
		return "qcow2", nil
	}
	return "raw", nil
}
