// Command launcher measures what the launcher adds to a guest's start and
// writes out/bench/launcher.json.
//
// One lab boot (more when the emulation loses a guest: pairs that are whole are
// kept). Pairs of pods on one node, each with one virtual function: the
// launcher, and plain QEMU with the very arguments that libvirt gave it (taken
// from the running process; only libvirt's own monitor and secrets are left
// out), in the same image, with the same limits and user. Both say a line when
// their container's process begins; the time until the guest's userspace
// reports is taken from the container runtime's time stamps of the two lines.
// The order within a pair alternates. Launchers start with what the node knows
// of QEMU's capabilities (warm), some also without it (cold).
//
//	go run ./test/bench/launcher -pairs 7 -cold 3 -o out/bench/launcher.json
//
// Result, all medians unless said otherwise:
//
//	start_overhead_s       launcher minus plain QEMU, of the pairs
//	start_overhead_iqr_s   the middle half of the pairs' differences
//	start_overhead_cold_s  launchers without the cache against the plain runs
//	phases_s               steps of the launcher; "guest" is from the last step to userspace
//	phases_cold_s          the same, without the cache
//	pss_mib, rss_mib       everything in the pod beside QEMU, next to an idle guest
//	overhead_mib           formula, and the cgroup's peak less the guest's memory
//	overhead_error_pct     (formula - measured) / measured
//	image_mib              the image as the registry has it, compressed
//
// Under emulation guests start many times more slowly than on hardware; the
// field accel says which it was.
package main
