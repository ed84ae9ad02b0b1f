// Package inventory turns a reading of a host and the pools' selection into the
// spec of a NodeInventory object.
//
// It is for the node agent and is pure. The same input gives the same object,
// so the agent writes only when something changed. Sizes are bounded: eight
// GPUs with 64 VFs stay below 24 KiB of JSON, with 1,024 VFs below 256 KiB.
//
// Trap: what changes all the time (free memory, free huge pages) is left out on
// purpose.
package inventory
