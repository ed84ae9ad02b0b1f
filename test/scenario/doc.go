// Package scenario drives a cluster through KubeVFIO's main job and reads back
// what happened: manifests applied, VM pods created, the scheduler's decision,
// what kubelet allocated and what the guest itself reports on its console.
//
// It is for the demo and the end-to-end tests, so that both look at the same
// facts. It knows a cluster by a kubeconfig and a kubectl binary, nothing of
// how the lab made it.
//
// Trap: a guest's console is the only source for what the guest sees; its
// lines start with "KUBEVFIO-GUEST " (see test/lab/guest) and may be mixed with
// kernel messages.
package scenario
