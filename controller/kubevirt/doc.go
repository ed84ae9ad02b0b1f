// Package kubevirt turns KubeVirt's manifests into ours. Field names are the same
// wherever the thing is the same, so an import keeps what our schema has and lists
// what it does not have.
//
// It is for `kubectl vfio import`.
//
// Traps:
//   - Nothing is dropped silently: every field that is not carried is named.
//   - Objects of other kinds in the file are listed, too.
package kubevirt
