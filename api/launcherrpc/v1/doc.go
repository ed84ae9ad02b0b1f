// Package launcherrpcv1 is the contract between a launcher's supervisor and
// whoever drives it: `kubevfio-launcher proxy` and `probe` (run in the pod by
// pods/exec), the controller that reads termination messages, and tests.
//
// It is HTTP/1.1 on the unix socket [Socket] inside the pod, with JSON bodies;
// console and VNC are HTTP upgrades, after which both sides speak raw bytes.
// There is no port and no authentication beyond the file mode of the socket:
// who can reach it already runs as the launcher's user in the pod.
//
// Traps:
//   - The supervisor may be restarted while the guest runs; the socket is then
//     made anew. Connect per call.
//   - An [Outcome] is the last word: it is written once, by the supervisor, and
//     passed on by PID 1 as the container's termination message.
package launcherrpcv1
