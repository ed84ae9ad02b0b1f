// Package cli is the kubectl plugin `kubectl vfio`: it starts and stops virtual
// machines, opens their console, says who holds which device and why a guest does
// not run.
//
// It is for cmd/kubectl-vfio.
//
// Traps:
//   - Everything is done with the rights of the person who calls it. Consoles and
//     pauses go through pods/exec of the launcher's own proxy.
//   - Output with -o json is for programs and stable; tables are for people.
package cli
