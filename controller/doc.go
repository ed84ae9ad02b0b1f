// Package controller turns VirtualMachine objects into instances and instances
// into launcher pods.
//
//   - launcherpod builds the pod of an instance (pure)
//   - instance reconciles VirtualMachineInstance with its pod
//   - machine reconciles VirtualMachine with its instance
//   - app wires them into a manager
//
// It is for cmd/kubevfio-controller and for tests with a real API server.
//
// Traps:
//   - Caches lag behind writes. Names of pods are deterministic per attempt, so
//     that a second creation is refused by the API server and not repeated, and
//     "the pod is gone" is believed only after a read past the cache.
//   - A guest never outlives its object: a finalizer holds the instance until the
//     pod is really gone, because the pod's devices are free only then.
package controller
