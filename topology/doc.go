// Package topology is the pure model of a host's PCIe and NUMA shape: addresses,
// functions, isolation units, NUMA nodes and the distances between them.
//
// It is for every part of KubeVFIO: package host fills the model from sysfs and
// procfs, the agent publishes it, the scheduler chooses by it and the launcher
// mirrors it in the guest. The package does no I/O and imports only the
// standard library.
//
// Traps:
//   - A NUMA node of -1 means that the firmware did not say. It stays
//     [NUMAUnknown] all the way and is never taken for node 0.
//   - IOMMU group numbers and vfioN names change over a reboot. They are facts
//     about now, never identities; the identity of a unit is the address of its
//     leader.
package topology
