// Package draw turns a machine's shape, given as nested boxes (sockets, NUMA
// nodes, root complexes, switches, devices), into a picture (SVG) or a tree of
// text.
//
// It is for everything that shows hardware to people: `kubevfio-agent inventory`
// builds the boxes from a host's own sysfs, `kubectl vfio topology` and the
// controller's page from a NodeInventory. The package is pure and imports only
// the standard library.
//
// Traps:
//   - A [Box] holds meaning, no measures: the same boxes are given to the browser,
//     which makes its own layout of them.
//   - The colour of a holder is computed from its name, so that it is the same in
//     every picture; two holders may share one.
package draw
