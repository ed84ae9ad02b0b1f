// Package preflight checks everything that QEMU's start would fail on, before
// QEMU is started: that scheduler, kubelet and host name the same devices, that
// VFIO will accept their groups, that the device nodes open, and that enough
// memory may be locked.
//
// It is for the supervisor. Each failure is a failure.Error whose text names the
// address, the driver or the number at fault and what to do.
//
// Traps:
//   - A launcher sees the host's whole /sys, but only its own device nodes.
//   - A group that is "viable" to VFIO may have members that are not in the pod:
//     the kernel only asks that no other driver uses them.
//   - Opening /dev/vfio/N gives EBUSY while any process has it open; checks must
//     close it before QEMU starts.
package preflight
