// Package agent is the node agent: it reads the host, prepares what DevicePools
// ask for, serves device plugins and the launchers' socket, and publishes what
// it sees.
//
// It is for cmd/kubevfio-agent. One loop owns the picture of the node: whatever
// happens (a pool changes, a device event, a pod ends, the slow poll) makes it
// look again, and every consumer gets the outcome in one order: inventory first,
// then the allocation ledger and CDI, then kubelet. So a unit that fails is gone
// from the scheduler's view before it is gone from kubelet's.
//
// Traps: nothing that kubelet calls runs in the loop or waits for it; changes of
// the host run beside it, for they may take long; a unit that a pod holds never
// leaves kubelet's list, whatever becomes of it.
package agent
