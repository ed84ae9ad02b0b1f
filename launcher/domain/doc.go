// Package domain turns a VM spec, the units that the pod was given and the
// host's topology into a libvirt domain. It is pure: [Build] reads no file and
// no clock, and the same input gives the same bytes.
//
// It is for the launcher's supervisor, which starts what Build returns, and for
// the render subcommand, which shows it. docs/dev/domain.md holds the decisions.
//
// The shape: q35; one pcie-expander-bus per pair of host root complex and NUMA
// node, with the guest cell of that node; one root port per unit; the members
// of a unit that share a host slot as functions of one guest slot; everything
// emulated on pcie.0. What the spec asks and cannot be given is an error that
// names the field.
//
// Traps:
//   - libvirt's "bus" in an address is the index of a controller, not the bus
//     number that the guest sees; only expanders have numbers that are ours.
//   - A NUMA node that the host does not tell (-1) gives an expander without a
//     node; it is never taken for cell 0.
//   - Guest cells are numbered from 0 without gaps; the report says which host
//     node each one is.
package domain
