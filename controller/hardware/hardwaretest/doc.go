// Package hardwaretest makes clusters of device-rich nodes with virtual machines on
// them, for tests of what shows hardware to people.
//
// Trap: the objects are made up, except that a node's inventory is the one that the
// agent's own code builds from an emulated /sys.
package hardwaretest
