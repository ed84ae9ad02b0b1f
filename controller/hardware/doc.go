// Package hardware joins what nodes have (NodeInventory) with who holds it (pods and
// NodeUsage): a list of units for `kubectl vfio devices`, and nested boxes for
// `kubectl vfio topology` and the controller's page.
//
// It is pure: callers gather the objects.
//
// Traps:
//   - Three sources say who holds a unit: the assignment (from the binding on),
//     kubelet's report in the pod's status, and NodeUsage, which knows only UIDs but
//     covers pods that the caller may not or does not read. The first that speaks wins.
//   - A unit can be held and not ready at the same time: state and health are two
//     things.
package hardware
