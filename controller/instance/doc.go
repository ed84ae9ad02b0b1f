// Package instance reconciles VirtualMachineInstance objects: it makes the
// launcher pod, follows it, replaces pods that a node's kubelet refused, and says
// in the status which devices the guest holds and how it ended.
//
// It is for controller/app and for tests with a real API server.
//
// Traps:
//   - The pod, not the instance, holds the devices: an instance is done only when
//     its pod is gone.
//   - An instance never comes back: once Succeeded or Failed it stays so. Restarts
//     are new instances, made by package machine.
//   - A refusal by kubelet is not a failure of the guest: no container ran.
package instance
