// Package v1alpha1 holds the Kubernetes objects of API group kubevfio.io and
// every name that two or more parts of KubeVFIO, or their users, rely on.
//
// It is for all parts; it imports nothing of them. Changing a constant of
// names.go or a JSON field here breaks running clusters: see the compatibility
// notes in docs/dev/architecture.md.
//
// +kubebuilder:object:generate=true
// +groupName=kubevfio.io
package v1alpha1
