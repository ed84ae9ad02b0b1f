// Package machines holds the end-to-end tests of VirtualMachine objects: one lab
// boot with two nodes, the controller as it is shipped, and guests with real
// virtual functions, as a user with kubectl meets them.
//
// It is behind `make e2e-machines`: under emulation it takes many minutes.
//
// Environment: E2E_NODES sets the number of node VMs (default 2), E2E_KEEP=1
// leaves the cluster up.
package machines
