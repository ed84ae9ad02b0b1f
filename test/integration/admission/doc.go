// Package admission tests what the API server itself enforces for KubeVFIO: the
// admission policies, the validation in the CRDs, and that the manifests and
// examples of this repository pass strict validation and the restricted Pod
// Security Standard. It runs a real API server and etcd.
package admission
