// Package power decides what start, stop and restart change in a VirtualMachine.
//
// It is for the aggregated API (controller/subresources); it reads and writes
// nothing itself.
//
// Traps:
//   - A machine's run strategy is changed only where the strategy alone would undo
//     the wish: a machine that runs Always is stopped by becoming Halted, as in
//     KubeVirt.
//   - The strategy is to be written before the requests: the other way round, a
//     write that fails in between would let the guest be started again.
package power
