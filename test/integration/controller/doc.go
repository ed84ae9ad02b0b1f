// Package controller tests the controller of VirtualMachine objects against a
// real API server and etcd. There are no nodes: the tests play scheduler and
// kubelet by binding pods and writing their status, and say so where they do.
package controller
