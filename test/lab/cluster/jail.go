package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// mountJail assembles the root directory in which QEMU runs: Debian 13's programs and libraries, our /dev and /proc, and the
// folders in shared at their own paths, so that a path means the same inside and outside (qcow2 files name their backing
// files). It must run in a mount namespace of its own.
func mountJail(jail, qemuRoot string, shared []string) error {
	if err := os.MkdirAll(jail, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("jail", jail, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", jail, err)
	}
	entries, err := os.ReadDir(qemuRoot)
	if err != nil {
		return err
	}
	// Folders that programs need. The rest of the tree is left out, so that shared folders below /root or /var do not need
	// mount points in the tree of the cache.
	programs := []string{"bin", "sbin", "usr", "lib", "lib32", "lib64", "libx32", "etc"}
	for _, e := range entries {
		if !slices.Contains(programs, e.Name()) {
			continue
		}
		from, to := filepath.Join(qemuRoot, e.Name()), filepath.Join(jail, e.Name())
		if e.Type()&os.ModeSymlink != 0 {
			target, err := os.Readlink(from)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, to); err != nil {
				return err
			}
			continue
		}
		if err := bind(from, to); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(jail, "tmp"), 0o777); err != nil {
		return err
	}
	for _, dir := range append([]string{"/dev", "/proc"}, shared...) {
		if err := bind(dir, filepath.Join(jail, dir)); err != nil {
			return err
		}
	}
	return nil
}

func bind(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s at %s: %w", from, to, err)
	}
	return nil
}
