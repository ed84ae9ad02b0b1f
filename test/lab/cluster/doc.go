// Package cluster runs a real Kubernetes cluster on one machine: etcd, the control plane and our scheduler as plain
// processes, and nodes that are QEMU machines with an IOMMU, two NUMA nodes, SR-IOV network cards and nested virtualisation.
//
// It is for the demo, the end-to-end tests and `go run ./test/lab`. Everything of a lab is owned by one daemon, which is
// PID 1 of a PID namespace with network and mount namespaces of its own: when it ends, for whatever reason, the kernel ends
// every process of the lab and the namespaces go with their links and mounts. Nothing can be left behind but files in the
// state folder, and the next [Up] or [Down] removes those. docs/dev/lab.md tells the whole story.
//
// Traps:
//   - The daemon is this very program, executed again: main (or TestMain) must call [Init] before anything else.
//   - On the host only one port is open, on loopback: the API server's. Everything else lives in the lab's network namespace
//     and is reached by [Cluster.Dial] through the daemon.
//   - Inside the daemon no process may be started but through its supervisor: it is the reaper of its namespace.
//   - Node VMs are emulated where KVM does not prove itself. Everything in them is then some 10 to 30 times slower: give
//     waits minutes, not seconds.
package cluster
