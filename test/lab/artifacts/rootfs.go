package artifacts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// suite is the Debian release of every root file system here.
const suite = "trixie"

// recipe says how a root file system is made. Everything in it is part of the cache's key.
type recipe struct {
	name string
	// version is raised when the code around the recipe changes what comes out.
	version  string
	packages []string
	excludes []string // dpkg's path-exclude patterns
	setup    []string // shell lines, with $1 the root, before the packages are installed
	finish   []string // shell lines, with $1 the root, afterwards
}

// docs are the folders that nobody reads in a container or in a lab node.
func docs() []string {
	return []string{
		"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*",
		"/usr/share/bash-completion/*", "/usr/share/zoneinfo/*", "/usr/share/common-licenses/*", "/usr/share/gtk-doc/*",
	}
}

// nodeRecipe is the node's root file system: kernel, runc, CNI plugins and what kubelet and kube-proxy call. Init, containerd
// and kubelet come from outside.
func nodeRecipe() recipe {
	r := recipe{
		name: "node-root", version: "1",
		packages: []string{
			"linux-image-amd64", "kmod", "runc", "containernetworking-plugins", "iptables", "nftables", "conntrack", "ipset",
			"iproute2", "iputils-ping", "pciutils", "procps", "ethtool", "e2fsprogs", "mount", "util-linux", "busybox-static",
			"ca-certificates", "nvme-cli",
		},
		excludes: docs(),
		finish: []string{
			`rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/boot/System.map-*`,
			`mkdir -p "$1"/opt/kubevfio/bin "$1"/var/lib/containerd "$1"/var/lib/kubelet "$1"/etc/cni/net.d "$1"/opt/cni`,
		},
	}
	// Hardware that no lab node has; depmod runs afterwards, so that the index agrees.
	for _, dir := range []string{
		"drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/isdn", "drivers/staging", "drivers/net/wireless",
		"drivers/bluetooth", "drivers/iio", "drivers/accel", "sound",
	} {
		r.excludes = append(r.excludes, "/lib/modules/*/kernel/"+dir+"/*", "/usr/lib/modules/*/kernel/"+dir+"/*")
	}
	return r
}

// qemuRecipe is the root file system in which the nodes' own QEMU lives. It is Debian's newest build for the release: that of the
// release itself, 10.0, kills a node now and then when a guest of ours starts in it, or lets the guest spin (docs/dev/lab.md).
func qemuRecipe() recipe {
	return recipe{
		name: "qemu-root", version: "1",
		packages: []string{"qemu-system-x86", "qemu-utils", "seabios"},
		excludes: append(docs(), "/usr/bin/qemu-system-i386", "/usr/bin/qemu-system-x86_64-microvm", "/usr/bin/qemu-storage-daemon"),
		setup: []string{
			// The mirror is whichever mmdebstrap has chosen.
			`sed -n 's/ ` + suite + ` / ` + suite + `-backports /p' "$1"/etc/apt/sources.list > "$1"/etc/apt/sources.list.d/backports.list`,
			`test -s "$1"/etc/apt/sources.list.d/backports.list`,
			`echo 'APT::Default-Release "` + suite + `-backports";' > "$1"/etc/apt/apt.conf.d/99backports`,
			`APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get update -qq`,
		},
		finish: []string{
			`rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/*`,
			`test -x "$1"/usr/bin/qemu-system-x86_64 && test -x "$1"/usr/bin/qemu-img`,
		},
	}
}

// launcherRecipe is the root file system of the launcher's image. uid and gid 107
// are the ones that KubeVirt's launcher uses, so that volumes prepared for it fit.
func launcherRecipe() recipe {
	return recipe{
		name: "launcher-root", version: "1",
		packages: []string{
			"libvirt0", "libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "qemu-system-x86", "qemu-utils",
			"seabios", "ovmf", "passt", "virtiofsd", "swtpm", "swtpm-tools",
		},
		// libvirt probes every QEMU that it finds: one that no guest uses doubles the time of a start.
		excludes: append(docs(), "/usr/bin/qemu-system-i386", "/usr/bin/qemu-system-x86_64-microvm", "/usr/bin/qemu-storage-daemon"),
		setup: []string{
			`echo 'qemu:x:107:' >> "$1"/etc/group`,
			`echo 'qemu:x:107:107:KubeVFIO launcher:/var/lib/kubevfio:/usr/sbin/nologin' >> "$1"/etc/passwd`,
			`echo 'qemu:*:20000:0:99999:7:::' >> "$1"/etc/shadow`,
			`mkdir -p -m 755 "$1"/var/lib/kubevfio && chown 107:107 "$1"/var/lib/kubevfio`,
		},
		finish: []string{
			`rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/var/cache/debconf/*-old`,
			`mkdir -p "$1"/guest "$1"/etc/kubevfio "$1"/run/kubevfio "$1"/run/kubevfio-launcher`,
			`chown 107:107 "$1"/run/kubevfio-launcher`,
			`test -e "$1"/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so`,
			`test -x "$1"/usr/bin/qemu-system-x86_64`,
		},
	}
}

// key names the cache entry of a recipe.
func (r recipe) key() string {
	return hashKey(append([]string{suite, r.version}, r.args("ROOT")...)...)
}

// args are the arguments of mmdebstrap that make the tree at root. No mirror is named: mmdebstrap knows Debian's.
func (r recipe) args(root string) []string {
	args := []string{
		"mmdebstrap", "--mode=root", "--variant=essential", "--format=directory", "--quiet",
		"--dpkgopt=force-unsafe-io", "--aptopt=Acquire::Retries \"3\"", "--aptopt=APT::Install-Recommends \"false\"",
	}
	for _, e := range r.excludes {
		args = append(args, "--dpkgopt=path-exclude="+e)
	}
	for _, s := range r.setup {
		args = append(args, "--essential-hook="+s)
	}
	for _, f := range r.finish {
		args = append(args, "--customize-hook="+f)
	}
	return append(args, "--include="+strings.Join(r.packages, ","), suite, root)
}

// makeTree makes the tree of a recipe at root.
func (b *builder) makeTree(ctx context.Context, r recipe, root string) error {
	tmp := root + ".apt"
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	// INITRD=No keeps the kernel's packages from making an initramfs, which takes longer than all the rest.
	c := command{args: r.args(root), isolated: true, env: []string{"INITRD=No", "SOURCE_DATE_EPOCH=0", "TMPDIR=" + tmp}}
	if _, err := c.run(ctx); err != nil {
		return fmt.Errorf("make the root file system %s from the Debian archive: %w", r.name, err)
	}
	return nil
}

// nodeRoot makes the node's root file system: tree, disk and kernel.
func (b *builder) nodeRoot(ctx context.Context) error {
	done := b.phase("node root")
	r := nodeRecipe()
	entry, cached, err := b.get(ctx, r.name, r.key(), func(dir string) error {
		tree := filepath.Join(dir, "tree")
		if err := b.makeTree(ctx, r, tree); err != nil {
			return err
		}
		return makeExt4(ctx, tree, filepath.Join(dir, "root.ext4"), "node-root", 4<<30)
	})
	if err != nil {
		return err
	}
	b.nodeTree = filepath.Join(entry, "tree")
	b.set.NodeRootDisk = filepath.Join(entry, "root.ext4")
	kernels, err := filepath.Glob(filepath.Join(b.nodeTree, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("the node's root file system has %d kernels instead of one: %v", len(kernels), kernels)
	}
	b.set.NodeKernel = kernels[0]
	b.kernelRelease = strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	done(cached)
	return nil
}

// launcherRoot makes the launcher's root file system: tree and image layer.
func (b *builder) launcherRoot(ctx context.Context) error {
	done := b.phase("launcher root")
	r := launcherRecipe()
	entry, cached, err := b.get(ctx, r.name, r.key(), func(dir string) error {
		tree := filepath.Join(dir, "tree")
		if err := b.makeTree(ctx, r, tree); err != nil {
			return err
		}
		return packLayer(ctx, tree, dir)
	})
	if err != nil {
		return err
	}
	b.launcherLayer = entry
	done(cached)
	return nil
}

// qemuRoot makes the root file system of the nodes' QEMU.
func (b *builder) qemuRoot(ctx context.Context) error {
	done := b.phase("QEMU root")
	r := qemuRecipe()
	entry, cached, err := b.get(ctx, r.name, r.key(), func(dir string) error {
		return b.makeTree(ctx, r, filepath.Join(dir, "tree"))
	})
	if err != nil {
		return err
	}
	b.set.QEMURoot = filepath.Join(entry, "tree")
	done(cached)
	return nil
}

// makeExt4 makes a sparse ext4 image of size bytes from a tree.
func makeExt4(ctx context.Context, tree, image, label string, size int64) error {
	f, err := os.Create(image)
	if err != nil {
		return fmt.Errorf("make a disk image: %w", err)
	}
	err = f.Truncate(size)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("make a disk image: %w", err)
	}
	// A small journal and lazy tables: the disk is to be small on the host and fast to make; the journal lets a node whose
	// machine was killed keep its disk.
	mkfs := command{args: []string{
		"mke2fs", "-q", "-t", "ext4", "-L", label, "-m", "0", "-O", "^metadata_csum", "-J", "size=16", "-E",
		"lazy_itable_init=1,nodiscard,root_owner=0:0", "-d", tree, image,
	}, env: []string{"SOURCE_DATE_EPOCH=0"}}
	if _, err := mkfs.run(ctx); err != nil {
		return fmt.Errorf("make a disk image: %w", err)
	}
	return nil
}
