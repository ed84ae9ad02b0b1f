// Package bind brings a host to what the pools ask for: virtual functions made,
// units bound to VFIO drivers.
//
// It is for the node agent, which calls [Reconciler.Reconcile] after each
// reading of the host and reads again when something changed. Nothing here is
// undone when the agent stops or a pool is deleted: virtual machines go on, and
// devices keep their drivers until the node boots again.
//
// Traps: a unit that failed is tried again only after a pause that doubles each
// time; until then its last reason stands. Interfaces of physical functions come up
// in goroutines that outlive the call ([Config].LinkDone tells of their end).
package bind
