// Package snapshot writes a reading of a host as an archive that package host
// reads back: for fixtures and bug reports.
//
// The archive is made from the model, not copied from sysfs, so nothing can be
// in it that the model does not hold: no serial numbers, MAC addresses, host
// names, VPD or DMI. What the model holds of identities is replaced: the boot
// ID, the UUIDs of mediated devices, and interface names made of a MAC address.
//
// Trap: everything that a later version of the model reads must be written here
// too; the test of the round trip says so.
package snapshot
