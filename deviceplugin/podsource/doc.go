// Package podsource lists this node's pods for the allocation ledger: from
// kubelet's own list, which is never late, from the API server, and from
// kubelet's pod-resources API.
//
// It is for package agent. Trap: kubelet's list is read while kubelet waits for
// us; its time counts.
package podsource
