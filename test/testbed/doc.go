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
//   - An emulated node can die under the tests, or a guest in it get lost. QEMU's TCG resets the whole machine now and then while guests of ours start in
//     it: the processor's state then is that of the node's kernel behind VMRUN, with page tables in which nothing of that
//     kernel is mapped (a triple fault). Results against a cluster without its node are worth nothing, so [Main] gives the run
//     up at once, says what is known about the node's end, and starts over with a new lab. After the fourth time it fails: what
//     kills a node every time, such as a panic that our own software causes, is not hidden by this.
package testbed
