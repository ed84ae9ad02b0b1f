package artifacts

import (
	"bufio"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// nodeModules are what the node needs to find its disks; everything else it loads from its root file system.
func nodeModules() []string {
	return []string{"virtio_pci", "virtio_blk", "crc32c_intel", "crc32c_generic", "ext4", "overlay", "virtio_net", "virtio_console"}
}

// guestModules are what guests may need; each is loaded only where a device asks for it.
func guestModules() []string {
	return []string{
		"virtio_pci", "failover", "net_failover", "virtio_net", "virtio_console", "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod",
		"virtio_rng", "virtiofs", "igbvf", "nvme", "isofs", "button", "evdev", "pvpanic", "pvpanic_mmio", "pvpanic_pci",
		"qemu_fw_cfg",
	}
}

// initramfsVersion is raised when the code here changes what comes out of the same inputs.
const initramfsVersion = "2"

// nodeInitrd makes the node's initramfs: lab-node as /init and the modules that it needs before the root file system.
func (b *builder) nodeInitrd(ctx context.Context) error {
	done := b.phase("node initrd")
	index, err := readModules(b.nodeTree, b.kernelRelease)
	if err != nil {
		return err
	}
	names := index.closure(nodeModules()...)
	key := hashKey(initramfsVersion, b.set.NodeRootDisk, b.buildIDs["lab-node"], strings.Join(names, " "))
	entry, cached, err := b.get(ctx, "node-initrd", key, func(dir string) error {
		init, err := os.ReadFile(b.set.Bin["lab-node"])
		if err != nil {
			return fmt.Errorf("read the node's init: %w", err)
		}
		return writeInitramfs(filepath.Join(dir, "initrd"), func(c *cpioWriter) error {
			paths, err := index.addTo(ctx, c, names)
			if err != nil {
				return err
			}
			c.file("modules", 0o644, []byte("/"+strings.Join(paths, "\n/")+"\n"))
			c.file("init", 0o755, init)
			return nil
		})
	})
	if err != nil {
		return err
	}
	b.set.NodeInitrd = filepath.Join(entry, "initrd")
	for _, name := range names {
		b.set.NodeModules = append(b.set.NodeModules, "/lib/modules/"+name+".ko")
	}
	done(cached)
	return nil
}

// guestFiles makes the guest image's files: boot/vmlinuz, boot/vmlinux (the same, unpacked: faster, for SeaBIOS only) and
// boot/initrd.
func (b *builder) guestFiles(ctx context.Context) error {
	done := b.phase("guest")
	index, err := readModules(b.nodeTree, b.kernelRelease)
	if err != nil {
		return err
	}
	names := index.closure(guestModules()...)
	key := hashKey(initramfsVersion, b.set.NodeRootDisk, b.buildIDs["lab-guest"], strings.Join(names, " "))
	entry, cached, err := b.get(ctx, "guest", key, func(dir string) error {
		boot := filepath.Join(dir, "boot")
		if err := os.Mkdir(boot, 0o755); err != nil {
			return fmt.Errorf("make the guest: %w", err)
		}
		bzImage, err := os.ReadFile(b.set.NodeKernel)
		if err != nil {
			return fmt.Errorf("read the guest's kernel: %w", err)
		}
		kernel, err := unpackKernel(bzImage)
		if err != nil {
			return err
		}
		for name, data := range map[string][]byte{"vmlinuz": bzImage, "vmlinux": kernel} {
			if err := os.WriteFile(filepath.Join(boot, name), data, 0o644); err != nil {
				return fmt.Errorf("write the guest's kernel: %w", err)
			}
		}
		return writeInitramfs(filepath.Join(boot, "initrd"), func(c *cpioWriter) error {
			return b.fillGuest(ctx, c, index, names)
		})
	})
	if err != nil {
		return err
	}
	b.guest = entry
	done(cached)
	return nil
}

// fillGuest writes the guest's files into its initramfs.
func (b *builder) fillGuest(ctx context.Context, c *cpioWriter, index *moduleIndex, names []string) error {
	if _, err := index.addTo(ctx, c, names); err != nil {
		return err
	}
	c.file("lib/modules/manifest", 0o644, []byte(index.manifest(names)))
	init, err := os.ReadFile(b.set.Bin["lab-guest"])
	if err != nil {
		return fmt.Errorf("read the guest's init: %w", err)
	}
	c.file("init", 0o755, init)
	busybox, err := os.ReadFile(filepath.Join(b.nodeTree, "usr/bin/busybox"))
	if err != nil {
		return fmt.Errorf("read busybox: %w", err)
	}
	c.file("bin/busybox", 0o755, busybox)
	c.symlink("bin/sh", "busybox")
	c.symlink("bin/udhcpc-hook", "/init")
	files, err := programFiles(b.nodeTree, "/usr/bin/lspci")
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(b.nodeTree, f))
		if err != nil {
			return fmt.Errorf("read lspci's files: %w", err)
		}
		c.file(f, 0o755, data)
	}
	ids, err := os.Open(filepath.Join(b.nodeTree, "usr/share/misc/pci.ids"))
	if err != nil {
		return fmt.Errorf("read the PCI IDs: %w", err)
	}
	defer ids.Close()
	trimmed, err := trimPCIIDs(ids, []string{"1022", "10de", "1234", "1af4", "1b36", "8086"})
	if err != nil {
		return err
	}
	c.file("usr/share/misc/pci.ids", 0o644, []byte(trimmed))
	for _, dir := range []string{"proc", "sys", "run", "tmp", "etc", "mnt"} {
		c.dir(dir)
	}
	return nil
}

// writeInitramfs writes an uncompressed archive with what fill puts in, and a console for init.
func writeInitramfs(file string, fill func(*cpioWriter) error) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write an initramfs: %w", err)
	}
	defer f.Close()
	buffered := bufio.NewWriterSize(f, 1<<20)
	c := newCPIO(buffered)
	c.char("dev/console", 0o600, 5, 1)
	c.char("dev/null", 0o666, 1, 3)
	if err := fill(c); err != nil {
		return err
	}
	return errors.Join(c.close(), buffered.Flush())
}

// trimPCIIDs keeps the given vendors and all classes of a pci.ids file.
func trimPCIIDs(r io.Reader, vendors []string) (string, error) {
	keep := map[string]bool{}
	for _, v := range vendors {
		keep[v] = true
	}
	var out strings.Builder
	lines := bufio.NewScanner(r)
	keeping := false
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "" || line[0] == '#':
			continue
		case strings.HasPrefix(line, "C "):
			keeping = true
		case line[0] != '\t':
			id, _, _ := strings.Cut(line, " ")
			keeping = keep[id]
		case strings.HasPrefix(line, "\t\t") && !strings.HasPrefix(line, "\t\t\t"):
			// Subsystems of devices are of no use in lspci -nn; interfaces of classes are two hex digits long.
			if f := strings.Fields(line); len(f) > 0 && len(f[0]) == 4 {
				continue
			}
		}
		if keeping {
			out.WriteString(line + "\n")
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read the PCI IDs: %w", err)
	}
	return out.String(), nil
}

// programFiles answers a dynamically linked program with its loader and all libraries, as absolute paths in the tree.
func programFiles(tree, program string) ([]string, error) {
	found := map[string]bool{}
	var visit func(string) error
	visit = func(name string) error {
		if found[name] {
			return nil
		}
		f, err := elf.Open(filepath.Join(tree, name))
		if err != nil {
			return fmt.Errorf("find the libraries of %s: %w", name, err)
		}
		defer func() { _ = f.Close() }()
		found[name] = true
		for _, p := range f.Progs {
			if p.Type != elf.PT_INTERP {
				continue
			}
			interp, err := io.ReadAll(p.Open())
			if err != nil {
				return fmt.Errorf("find the loader of %s: %w", name, err)
			}
			found[strings.TrimRight(string(interp), "\x00")] = true
		}
		libs, err := f.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("find the libraries of %s: %w", name, err)
		}
		for _, lib := range libs {
			if strings.HasPrefix(lib, "ld-linux") {
				continue // the interpreter
			}
			if err := visit(filepath.Join("/usr/lib/x86_64-linux-gnu", lib)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := visit(program); err != nil {
		return nil, err
	}
	out := make([]string, 0, len(found))
	for name := range found {
		out = append(out, name)
	}
	sort.Strings(out)
	return out, nil
}
