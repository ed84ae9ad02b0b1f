// Package rendercmd is the render subcommand of kubevfio-launcher: it shows the
// domain that a VM would get on a host, without that host. Everything comes
// from files; the machine it runs on is neither read nor changed.
package rendercmd
