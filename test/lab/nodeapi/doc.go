// Package nodeapi is the contract between the lab's daemon on the host and lab-node, the init of a node VM: the
// configuration that a node boots with, the names of its disks and log ports, and the protocol of its control port.
//
// Trap: the control port is plain TCP with a token. It is reachable from the lab's own network namespace and from the
// lab's pods only; the token keeps pods out.
package nodeapi
