// Package vmspec reads and checks the specification of a virtual machine
// without a host: strict decoding, the rules between fields, and what a spec
// asks of the pod (devices by resource, vCPUs, memory).
//
// It is for the launcher, which decodes the spec of a plain pod and may trust
// nobody to have validated it, for the controller, which turns a spec into a
// pod, and for the command line. Package v1alpha1 holds the types.
//
// Traps:
//   - Decoding is strict: an unknown or doubled field is an error. The API
//     server only warns about these by default.
//   - The positions of devices in a resource's list are given to the entries of
//     the spec in the order of [Requests].
package vmspec
