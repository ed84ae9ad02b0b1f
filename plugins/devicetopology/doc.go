// Package devicetopology is the scheduler framework plugin DeviceTopology: it
// places pods that ask for passthrough devices and chooses the exact devices.
//
// It is for cmd/kubevfio-scheduler and for anyone who builds a kube-scheduler of
// their own with it (see [Factory]). The search itself is in package engine,
// without framework types.
//
// State: the truth is NodeInfo. What a node's pods hold is read off its pods
// (kubelet's report, else our reservation, else the assignment annotation) and
// memoised per node; so preemption dry runs, pod groups, restarts and leader
// changes need no code of their own. See docs/dev/scheduler.md.
//
// Traps:
//   - Unreserve runs before the scheduler's cache forgets the pod. Its
//     reservation therefore stays as a tombstone; deleting it would turn the
//     pod into one that holds unknown devices.
//   - Reserve and Unreserve are called as simulation for pod groups: they only
//     change memory.
//   - The CRDs may be missing when the scheduler starts. A dynamic informer
//     registered by EventsToRegister would then block the whole scheduler, so
//     the plugin watches by itself and activates waiting pods.
package devicetopology
