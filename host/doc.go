// Package host reads a Linux host's PCIe and NUMA shape out of its /sys and
// /proc into package topology, and changes the few things that KubeVFIO changes
// on a host: driver binding, virtual functions and resets.
//
// It is for the node agent, the launcher (which reads its own /sys) and tools.
// The reader works on any tree that holds sys/ and optionally proc/: the running
// host ([Dir] of "/" or "/host"), a captured directory, or a snapshot archive
// ([Open]).
//
// Traps:
//   - A function may vanish between two reads (hot unplug, VFs taken away), and a
//     capture may lack any file. Both cost that function or that field only;
//     what was left out is in [topology.Host.Skipped].
//   - Links in /sys/bus/pci/devices are resolved by text, inside the root. An
//     absolute link in a capture never leads out of the capture.
//   - Writes to sysfs may block for ever in the kernel: an unbind waits for the
//     last user of the device. [Writer] therefore makes each in a process of
//     its own.
package host
