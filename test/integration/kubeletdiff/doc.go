// Package kubeletdiff drives our device plugins by kubelet's own device and
// topology managers, in process, through random schedules: pods of our scheduler
// and of others, quick turnover, rejected pods, late and lost informer events,
// restarts of kubelet and plugin, lost checkpoints, health changes.
//
// It is the proof of the hand-off contract (docs/dev/handoff.md). Three things
// must hold after every step: no unit is in two live pods; a pod that runs holds
// exactly its assignment; every difference between assignment and allocation was
// reported. In calm weather no assigned pod may be refused, so that refusing
// everything is no way to pass.
//
// Kubelet's device manager uses the fixed folder /var/lib/kubelet: the test runs
// itself again in a mount namespace of its own, as root or in a user namespace.
// The seed is printed; -seed replays it, -steps sets the length.
package kubeletdiff
