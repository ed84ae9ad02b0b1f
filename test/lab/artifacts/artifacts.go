package artifacts

import (
	"context"
	"fmt"
	"os"
	"syscall"
)

// Options say what to build from and where to keep it.
type Options struct {
	// Checkout is the root of the repository whose sources are built.
	Checkout string
	// Cache is the folder that keeps what was built; empty means kubevfio in the user's cache directory.
	Cache string
	// Progress receives one line per event, a format and its arguments without a newline; nil means silence.
	Progress func(format string, args ...any)
}

// Set is the result of a [Build]: paths on the host of everything the lab runs. Files are read-only by agreement; whoever
// wants to write to a disk makes an overlay or a copy.
type Set struct {
	// Bin has the host path of every binary by name: etcd, kube-apiserver, kube-controller-manager, kube-proxy, kubectl,
	// kubelet, containerd, containerd-shim-runc-v2, ctr, kubevfio-agent, kubevfio-write-attr, kubevfio-scheduler, kubevfio-controller,
	// kubevfio-launcher, kubectl-vfio, lab-node (init of the node VM, package test/lab/node), lab-guest (init of the guest,
	// package test/lab/guest) and lab-pause. All are static, except kubevfio-launcher.
	Bin map[string]string
	// QEMURoot is a Debian 13 root file system tree in which qemu-system-x86_64 and qemu-img live: chroot into it.
	QEMURoot string
	// NodeRootDisk is a raw ext4 image with the node's Debian 13 root file system.
	NodeRootDisk string
	// NodeKernel is the node's Linux kernel.
	NodeKernel string
	// NodeModules are the kernel modules in NodeInitrd, as paths inside it, in the order in which to load them.
	NodeModules []string
	// NodeInitrd is an initramfs with lab-node as /init and NodeModules, enough to mount the disks. The list of modules is
	// in it too, one path per line, at /modules.
	NodeInitrd string
	// ImagesDisk is a raw ext4 image to mount at /var/lib/containerd: the content and the overlayfs snapshots of all OCI
	// images.
	ImagesDisk string
	// Phases say what was done, in order.
	Phases []Phase
	// Entries are the folders of the cache in which all these paths lie.
	Entries []string

	leases []func()
}

// Hold makes this process hold the set's entries as well, so that no later build prunes them. It is for a process that was
// handed the set by the one that built it, such as the lab's daemon, and that lives longer.
func (s *Set) Hold(ctx context.Context) error {
	for _, entry := range s.Entries {
		lock, err := lockFile(ctx, entry+".lock", syscall.LOCK_SH, true)
		if err != nil {
			return fmt.Errorf("hold the lab's artifacts: %w", err)
		}
		s.leases = append(s.leases, func() { _ = lock.Close() })
		if _, err := os.Stat(entry); err != nil {
			return fmt.Errorf("hold the lab's artifacts; build them again: %w", err)
		}
	}
	return nil
}

// Release gives up the hold on the cache's entries. The paths may be pruned afterwards.
func (s *Set) Release() {
	for _, release := range s.leases {
		release()
	}
	s.leases = nil
}

// Phase is one step of a build; some run at the same time.
type Phase struct {
	Name    string
	Seconds float64 // of wall time
	// Cached is true where nothing had to be made anew.
	Cached bool
}
