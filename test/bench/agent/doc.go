// Command agent measures the node agent on the design's largest host, eight GPUs
// and 4,096 virtual functions, and writes out/bench/agent.json.
//
// Discovery: the generated host is read by package host, by a plain loop over
// the same files (the limit) and by ghw, in turns, in one process; the figures
// are ratios of medians. A rescan is one reading after one event, with the copy
// of the list that the agent goes on with.
//
// Calls: the agent's own binary runs against a real API server and a stand-in
// for kubelet, which keeps kubelet's half of the device plugin protocol, its list
// of pods (sixty of other workloads beside those with devices) and its
// pod-resources API. Each call is timed on kubelet's side of the socket, half of
// the pods with an assignment and half without. Kubelet's own time to write its
// list of pods and its questions is not in the figures: the stand-in has the text
// ready, and collects its garbage between the calls. Beside them stand, from the
// same run, a call without any content and a plain reading of the list.
//
// Memory is the process' resident set after all that, and its highest; idle CPU
// is what the process used in a stretch of time in which nothing happened but one
// of its own polls.
//
//	go run ./test/bench/agent -o out/bench/agent.json
//
// Figures of a machine that does other things at the same time are worth their
// ratios only.
package main
