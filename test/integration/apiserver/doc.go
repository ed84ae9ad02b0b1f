// Package apiserver runs a real kube-apiserver on a real etcd, without nodes, for
// integration tests: admission policies, CRD validation and controllers behave
// there as in a cluster, within seconds.
//
// The binaries come from the modules that go.mod pins. They are linked into the
// user's cache directory on first use (half a minute when the build cache is warm)
// unless the environment names them: KUBEVFIO_KUBE_APISERVER, KUBEVFIO_ETCD.
//
// Traps:
//   - No controller manager runs: nothing makes service accounts, nothing
//     collects garbage, no namespace ever finishes its deletion.
//   - Admission policies work a moment after their creation: [Server.Apply] does
//     not wait, callers poll.
package apiserver
