// Command controller measures the controller of VirtualMachine objects: many
// machines made at once, against a real API server and etcd, on simulated nodes.
//
// The API server, etcd and the controller are processes of their own; this process
// plays the scheduler (it binds pods, with an assignment) and the kubelets (it
// writes their status). So the figures are the controller's own: how long a
// reconciliation takes, how many requests a machine costs, how much memory the
// controller has, and whether it falls silent when there is nothing to do.
package main
