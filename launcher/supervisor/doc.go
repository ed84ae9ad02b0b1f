// Package supervisor brings one guest up, keeps it, and brings it down: it reads
// what the pod was given, checks it, builds the domain, drives libvirt, copies
// the console, answers RPC, and says how it all ended.
//
// It is for `kubevfio-launcher supervise`, which PID 1 starts, and starts again
// when it dies. Everything that a successor must know is in the run folder: a
// record of how far the start had come, written before each step that cannot be
// undone, and libvirt's own state.
//
// Traps:
//   - A supervisor must not exit without an outcome unless it wants to be
//     started again.
//   - QEMU is created with its CPUs stopped, the console is connected, and only
//     then the guest runs: no byte of the guest is lost, and a stop that came in
//     the meantime ends it before it ran.
//   - libvirt's creation of a guest cannot be cancelled; a stop in its midst
//     destroys the domain from another goroutine until the creation gives up.
package supervisor
