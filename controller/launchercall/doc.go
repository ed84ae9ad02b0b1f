// Package launchercall talks to the launcher inside a pod by `pods/exec` of its
// proxy: no port is opened on the pod network.
//
// It is for the instance controller, which asks a standby launcher whether it
// holds its devices and then releases it, and for the aggregated API.
//
// Traps:
//   - A call is a connection through API server and kubelet, with a process at its
//     end: use it for single steps, never to poll many pods.
//   - A launcher that has just started has no socket yet; that is an error here
//     like any other, and the caller tries again.
package launchercall
