// Package podinfo reads what Kubernetes and the device plugins told a launcher:
// the files of the downward API volume and the device variables of the
// environment.
//
// It is for the supervisor. It does no checking against the host; that is
// package preflight's work.
//
// Traps:
//   - A downward API file exists but is empty where the annotation is missing.
//   - One resource name can arrive by two contracts, PCI_RESOURCE_<NAME> and
//     PCIDEVICE_<NAME>; they must agree. PCIDEVICE_<NAME>_INFO is no address
//     list, unless a resource is really called so.
package podinfo
