// Package leftover finds what a lab has left on the host: processes, network
// links, named network namespaces and mounts that were not there before.
//
// It is for the demo and the end-to-end tests, which end with it: a lab that
// promises to leave nothing behind is checked at every run.
//
// Trap: other programs of the machine come and go as well. Links, namespaces
// and mounts are few, so every new one is reported; of processes only those
// that a lab runs are.
package leftover
