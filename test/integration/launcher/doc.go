// Package launcher runs the real launcher with real libvirt and QEMU, without
// Kubernetes and without KVM: in the launcher image's file system, as its user,
// without capabilities, in namespaces of its own, under QEMU's own emulation.
//
// It needs root and two environment variables, and skips without them:
//
//	LAUNCHER_ROOT   the launcher image's root file system (test/lab makes one)
//	LAUNCHER_GUEST  a folder with boot/vmlinuz and boot/initrd (test/lab/guest)
//
// The binary is built from this checkout, unless LAUNCHER_BINARY names one. A
// guest takes 6 s to boot on an idle machine.
package launcher
