// Package handoff decides which pod gets which units when kubelet asks: the
// allocation ledger of one node, for all pools.
//
// It is for package agent. Kubelet's device plugin API never says which pod a
// call is for, so the ledger finds out: kubelet admits pods one at a time and
// puts each into its own list (its /pods endpoint) right before its admission.
// Hence the pod under admission is in that list, wants the resource, holds none
// of it yet, and came into the list after every pod whose admission is over.
//
// The rules (docs/dev/handoff.md tells them with their reasons):
//   - GetPreferredAllocation answers the units of that pod's assignment. A pod
//     without one gets units that no live assignment names.
//   - Allocate accepts exactly these two cases. Anything else is an error, and
//     so is not being sure which pod is meant; in Adopt mode it is accepted and
//     reported.
//   - PreStartContainer asks kubelet's pod-resources API who really holds the
//     units, which is certain, and refuses the start on a mismatch.
//
// Traps: an error here fails the pod for good, so it must name the reason; a
// call stops the admission of all pods on the node, so nothing here waits above
// half a second; late informer events must never turn into a wrong device, only
// into a refusal.
package handoff
