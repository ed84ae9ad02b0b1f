// Package perf measures scheduling throughput with the real scheduler, API
// server and etcd in one process, by the machinery of Kubernetes' scheduler_perf:
// plain pods with our plugin off and on, VM pods with our plugin and as plain
// extended resources, and the same wish as DRA claims.
//
// It is run by test/bench/scheduler, which builds etcd, sets the sizes
// (KUBEVFIO_BENCH_*) and reads the results.
package perf
