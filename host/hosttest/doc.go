// Package hosttest generates sysfs and procfs trees of machines that do not
// exist: for the tests of everything that reads a host.
//
// [HGX], [Lab], [Big] and [Desktop] are ready machines; others are put together
// with [New] and its methods. A [Machine] becomes a tree in memory ([Machine.Tree])
// or on disk ([Write]). [Kernel] lets such a tree answer writes as the kernel
// does, with faults on request.
//
// Trap: the trees hold what package host and its peers read, not everything
// that a kernel shows. Attributes have the kernel's own spelling.
package hosttest
