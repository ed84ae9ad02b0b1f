// Package artifacts builds everything that the lab runs, from nothing but a Go toolchain and the Debian archive: static
// binaries of Kubernetes, etcd, containerd and our own programs, the node's and the launcher's Debian 13 root file systems,
// the guest's kernel and initramfs, the OCI images, and a disk on which containerd finds these images already unpacked.
//
// It is for test/lab (the demo and the end-to-end tests); it needs root on a Debian machine, because it makes file system
// trees with foreign owners and device nodes.
//
// Everything is kept under the user's cache directory, in folders named by the hash of what they were made from, so that a
// second build after a change of code redoes only what the change touches, and two checkouts share what is equal. An entry
// appears in the cache by one rename, when it is complete: what an interrupted build leaves is swept by the next one.
//
// Traps:
//   - A [Set] holds a lease on its entries for as long as the process lives or until [Set.Release]; without it a later build
//     of another checkout might prune what a running cluster has mounted. A process that gets the set from another one calls
//     [Set.Hold].
//   - The cache's file system must be able to hold device nodes and foreign owners (no nodev, no network share).
//   - Root file systems are as new as the Debian archive on the day when they were made; delete the cache to refresh them.
package artifacts
