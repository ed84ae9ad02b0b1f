// Package hostcmd holds the subcommands of kubevfio-agent that look at a host
// and need no cluster: inventory, snapshot, pool-from-sriovdp, and the hidden
// one that writes a sysfs attribute in a process of its own.
//
// It is for the agent's main, which adds [Commands] to its root command.
package hostcmd
