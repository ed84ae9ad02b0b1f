// Package app is the command line of kubevfio-launcher: it turns flags and
// environment into the options of the packages that do the work.
//
// It is for cmd/kubevfio-launcher. Without a subcommand the binary runs as PID 1
// of a launcher container.
package app
