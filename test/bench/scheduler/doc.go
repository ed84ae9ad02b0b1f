// Command scheduler measures what the plugin DeviceTopology costs and gains and
// writes out/bench/scheduler.json.
//
// Throughput comes from Kubernetes' scheduler_perf in process (package perf
// beside this one, with a real etcd and API server): plain pods with the plugin
// off and on, VM pods against the same pods as plain extended resources, and
// the same wish as DRA claims. Latency of one pod's Filter, Score and Reserve
// comes from the plugin on a snapshot of 5,000 and 15,000 nodes; the engine's
// figures from its own Go benchmarks.
//
//	go run ./test/bench/scheduler -nodes 5000 -dra-nodes 500 -o out/bench/scheduler.json
//
// Raw outputs lie beside the JSON file, readable by benchstat. Figures of a
// machine that does other things at the same time are worth their ratios only.
package main
