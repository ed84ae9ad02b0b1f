// Package engine decides whether and where on one node a pod's devices fit:
// pure data structures and search, without any type of the scheduler framework.
//
// It is for package devicetopology (the scheduler plugin), for the simulator
// and for tests. A [Shape] is the immutable structure of a node, shared by all
// nodes that look alike; a [Node] adds the unit IDs; a [State] says what is
// free; a [Request] is what a pod wants. [Search] answers whether the request
// fits and which units to take, by one objective: the nearest alignment level,
// then what the choice leaves usable for others, then tightness.
//
// Traps:
//   - Units that nothing distinguishes (same resource, place and NUMA node)
//     form a cell, and search counts cells: 64 virtual functions cost no more
//     than 8. Fabric members are cells of their own. Physical functions are
//     looked at last, when units are taken out of a cell.
//   - Levels are nested: a set within one root complex is within one NUMA
//     level even where the host does not tell the NUMA node.
//   - Work is capped by counted steps, never by time, so that the same input
//     gives the same answer on every machine.
package engine
