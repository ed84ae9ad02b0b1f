// Package testbed is the set-up of end-to-end tests: a lab with KubeVFIO installed and its hardware on offer, taken down at the
// end, and a look at whether it has left anything.
//
// It is for TestMain of the packages below test/e2e, for test/demo and for benchmarks in the lab.
//
// Environment: E2E_NODES sets the number of nodes, E2E_KEEP=1 leaves the cluster up, E2E_ATTACH=1 uses this checkout's running
// cluster. A value that makes no sense is an error.
//
// Traps:
//   - [cluster.Init] must have been called first; [Main] does it.
//   - An emulated node can die of the emulation itself: QEMU's TCG resets the whole machine now and then while guests of ours
//     start in it. The processor's state then is that of the node's kernel behind VMRUN, with page tables in which nothing of
//     that kernel is mapped (a triple fault). Such a run says nothing about the software under test, so [Main] gives it up at
//     once, says so, and starts over with a new lab; after the fourth time it fails.
package testbed
