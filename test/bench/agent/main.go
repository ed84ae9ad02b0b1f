package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/kubevfio/kubevfio/host/hosttest"
)

// results is out/bench/agent.json.
type results struct {
	DiscoveryVsLimit float64 `json:"discovery_vs_limit"`
	DiscoveryVsGHW   float64 `json:"discovery_vs_ghw"`
	RescanUS         float64 `json:"rescan_us"`
	AllocateP99US    float64 `json:"allocate_p99_us"`
	PreferredP99US   float64 `json:"preferred_p99_us"`
	RSSMiB           float64 `json:"rss_mib"`

	// More of the same runs.
	DiscoveryMS    map[string]float64 `json:"discovery_ms"`
	RescanP99US    float64            `json:"rescan_p99_us"`
	AllocateP50US  float64            `json:"allocate_p50_us"`
	PreferredP50US float64            `json:"preferred_p50_us"`
	// What no agent can be faster than here: a call without any content and the
	// plain reading of kubelet's list of pods, which each preference needs.
	EmptyCallP50US float64 `json:"empty_call_p50_us"`
	EmptyCallP99US float64 `json:"empty_call_p99_us"`
	ListP50US      float64 `json:"list_p50_us"`
	ListP99US      float64 `json:"list_p99_us"`
	Calls          int     `json:"calls"`
	PeakRSSMiB     float64 `json:"peak_rss_mib"`
	IdleCPUPercent float64 `json:"idle_cpu_percent"`
	// StartS is the time from the agent's start to kubelet's having all devices.
	StartS  float64 `json:"start_s"`
	Devices int     `json:"devices"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-agent:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	out := fs.String("o", "out/bench/agent.json", "result file; the agent's log goes beside it")
	vfs := fs.Int("vfs", 4096, "virtual functions of the host")
	rounds := fs.Int("rounds", 15, "readings of the host in each of the three ways")
	calls := fs.Int("calls", 1000, "admissions of pods: one call of each kind per pod")
	idle := fs.Duration("idle", 65*time.Second, "stretch of time for the idle CPU; above a minute it has one poll in it")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return err
	}
	// A tree of 100,000 small files: in memory where there is a place for it.
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	work, err := os.MkdirTemp(base, "kvfio-")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(work); err == nil {
			err = rerr
		}
	}()
	root := filepath.Join(work, "host")
	if err := hosttest.Write(root, hosttest.Big(*vfs)); err != nil {
		return err
	}
	res := results{Devices: *vfs}
	if err := discovery(ctx, root, *vfs, *rounds, &res); err != nil {
		return err
	}
	if err := rescans(ctx, root, &res); err != nil {
		return err
	}
	log := filepath.Join(filepath.Dir(*out), "agent.log")
	if err := process(ctx, work, root, log, *vfs, *calls, *idle, &res); err != nil {
		return fmt.Errorf("%w; the agent's log is %s", err, log)
	}
	b, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", b)
	return os.WriteFile(*out, append(b, '\n'), 0o644)
}

// quantile of durations, in microseconds.
func quantile(d []time.Duration, q float64) float64 {
	if len(d) == 0 {
		return 0
	}
	d = slices.Sorted(slices.Values(d))
	return float64(d[min(len(d)-1, int(q*float64(len(d))))].Nanoseconds()) / 1e3
}
