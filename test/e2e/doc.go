// Package e2e holds the end-to-end tests: one lab boot, real kubelet,
// containerd, libvirt, QEMU and VFIO, shared by all tests of the package.
//
// The tests run in the order of their files and names and leave the cluster as
// they found it: each deletes the pods that it made. A failure names the folder
// with the logs of all components.
//
// Environment: E2E_NODES sets the number of node VMs (default 1),
// E2E_KEEP=1 leaves the cluster up.
package e2e
