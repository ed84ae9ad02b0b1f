// Command sim replays a trace of GPU pods on a simulated cluster and compares
// placement policies: ours (the scheduler plugin's own engine) with random
// devices as kubelet picks them, first fit, greedy joint allocation without
// backtracking, per-NUMA counts, and FGD (fragmentation gradient descent, which
// knows no topology).
//
//	go run ./test/sim --nodes nodes.csv --pods pods.csv --overlay overlay.yaml --policy ours,fgd --seeds 10
//
// Traces are in the CSV format of the openb trace (cluster-trace-gpu-v2023):
// nodes with sn, cpu_milli, memory_mib, gpu, model; pods with name, cpu_milli,
// memory_mib, num_gpu, gpu_milli and optionally gpu_spec. No trace carries
// PCIe or NUMA facts: the overlay gives each node a server shape and each pod
// network functions and a wish. Without files it makes a cluster of its own.
//
// Pods are drawn at random until their demand is 130 % of the cluster's GPUs
// and never leave, as in the FGD paper (USENIX ATC '23). It writes out/sim/*.csv,
// allocated.svg and summary.json.
//
// Traps: pods without GPUs are placed by one neutral rule under all policies,
// because the plugin leaves them to Kubernetes. Fractional pods are rounded up
// to a whole GPU or dropped (overlay), because a VM gets whole devices.
package main
