// Package subresources serves the aggregated API subresources.kubevfio.io: start,
// stop and restart of machines; pause, console, screen, log and state of guests.
//
// It is for controller/app. [Handler] does the work behind a chain of filters
// ([Auth.Chain]) that authenticates by the API server's front proxy, client
// certificates and tokens, never lets anonymous callers in, and asks the API server
// for every request whether the caller may make it.
//
// Seam: a [Launcher] reaches the launcher in a pod with the controller's own rights
// (pods/exec of its proxy, and nothing else: a policy in manifests/policies sees to
// that); the caller needs only the right to the subresource.
//
// Traps:
//   - Authorization goes by the request's path: what a path means must be what
//     RequestInfo makes of it, so nothing but discovery reads the path itself.
//   - A stream ends when either side does; the proxy in the pod is told by the end
//     of its stdin. Nobody else would end it.
package subresources
