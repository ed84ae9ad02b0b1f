// Package launcherpod builds the pod that runs the launcher for a virtual machine
// instance. It is pure: the same instance and options give the same pod.
//
// It is for the instance controller, for `kubectl vfio` (which shows the pod
// without making it) and for whoever writes plain pods and wants a model.
//
// Traps:
//   - The pod passes the restricted Pod Security Standard; keep it so.
//   - Kernel boot images are mounted as image volumes, so paths "within the image"
//     of the instance become paths in the container in the pod's annotation.
//   - What the launcher cannot do yet is an [ErrUnsupported] here, not a pod that
//     fails later.
package launcherpod
