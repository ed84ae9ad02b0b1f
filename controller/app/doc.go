// Package app wires the controller's parts into one process.
//
// It is for cmd/kubevfio-controller.
package app
