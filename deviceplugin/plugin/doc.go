// Package plugin serves one resource to kubelet's device manager by the
// v1beta1 device plugin API.
//
// It is for package agent, which runs one Plugin per pool. The package knows
// the protocol and its traps; what a device is, and who may have it, is the
// [Handler]'s business.
//
// Traps, each held by a rule here:
//   - kubelet dials the plugin inside Register: the server serves before.
//   - Up to 1.36 kubelet tracks plugins by resource name only, and the end of an
//     old stream disconnects a newer plugin of the same name; from 1.37 a second
//     Register on one socket poisons that socket for ever. So every registration
//     has a socket of its own, and the old server is stopped, and given time to
//     be noticed, before the new one registers.
//   - A successful Register means nothing until ListAndWatch is called, and a
//     plugin whose stream has ended is dead without being told. Both are watched.
//   - Kubelet deletes all sockets of the folder at its start.
//   - Allocate and GetPreferredAllocation have no deadline and stop the admission
//     of every pod on the node: handlers get a context that ends after a second.
//   - Each ListAndWatch message makes kubelet rewrite its checkpoint: only changes
//     are sent, in batches.
//   - GetPreferredAllocation names every free device, thousands of them: the
//     question is read as one piece of memory, and what calls leave behind is
//     collected between admissions, not during the next.
package plugin
