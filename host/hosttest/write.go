package hosttest

import (
	"os"
	"path/filepath"
)

// Write writes the machine's tree below a directory, which should be empty.
func Write(dir string, m *Machine) error {
	d := &disk{root: dir, made: map[string]bool{}}
	m.write(d)
	return d.err
}

// disk is a directory as a sink; the first error stays.
type disk struct {
	root string
	made map[string]bool
	err  error
}

func (d *disk) keep(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *disk) parent(name string) string {
	p := filepath.Join(d.root, filepath.FromSlash(name))
	if dir := filepath.Dir(p); !d.made[dir] {
		d.keep(os.MkdirAll(dir, 0o755))
		d.made[dir] = true
	}
	return p
}

func (d *disk) File(name, content string) {
	d.keep(os.WriteFile(d.parent(name), []byte(content), 0o644))
}

func (d *disk) Link(name, target string) { d.keep(os.Symlink(target, d.parent(name))) }

func (d *disk) MkdirAll(name string) {
	d.keep(os.MkdirAll(filepath.Join(d.root, filepath.FromSlash(name)), 0o755))
}
