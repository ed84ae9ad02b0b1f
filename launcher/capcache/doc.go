// Package capcache keeps libvirt's knowledge of QEMU's capabilities on the
// node, so that not every pod has to find it out again: the probe runs QEMU
// several times and is the longest step of a start.
//
// It is for the supervisor, which fetches, and for the command `capabilities`
// of the launcher's image, which publishes. The node's folder is
// [DefaultDir], below the agent's folder, which is mounted read-only into
// containers with devices: a pod can read what is there and cannot change it.
// The one writer is a DaemonSet in our own namespace.
//
// An entry is named by a key of QEMU's binary as the image has it, the kernel
// and the CPU ([Key]). libvirt checks more before it believes a file (its own
// build, QEMU's change time, kernel, microcode, CPU, access to /dev/kvm) and
// probes again when anything differs: a wrong entry costs time, never
// correctness.
//
// While a probe is going on the publisher renews a mark, and those who fetch
// wait for it instead of probing at the same time.
package capcache
