// Package pool decides which isolation units of a host belong to which
// DevicePool, and converts the SR-IOV network device plugin's configuration
// into pools.
//
// It is for the node agent; it is pure: pools, a reading of the host and the
// node's labels in, a [Selection] out.
//
// Traps:
//   - A pool selects units by their primaries. A selector that matches only a
//     companion (a GPU's audio function) selects nothing.
//   - A pool with spec.vfs selects physical functions and offers their virtual
//     functions, never the physical function itself.
package pool
