package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/scenario"
	"github.com/kubevfio/kubevfio/test/testbed"
)

// results is out/bench/launcher.json; see the package comment.
type results struct {
	StartOverhead     float64            `json:"start_overhead_s"`
	StartOverheadIQR  [2]float64         `json:"start_overhead_iqr_s"`
	StartOverheadCold *float64           `json:"start_overhead_cold_s,omitempty"`
	Phases            map[string]float64 `json:"phases_s"`
	PhasesCold        map[string]float64 `json:"phases_cold_s,omitempty"`
	PSS               map[string]float64 `json:"pss_mib"`
	RSS               map[string]float64 `json:"rss_mib"`
	Overhead          map[string]float64 `json:"overhead_mib"`
	OverheadError     float64            `json:"overhead_error_pct"`
	Image             float64            `json:"image_mib"`
	Accel             string             `json:"accel"`
	Runs              []runResult        `json:"runs"`

	pairs int // that are whole
}

// attempts are how many labs are tried when the emulation loses a guest or a
// node: that is not what is measured.
const attempts = 5

// runResult is one start.
type runResult struct {
	Kind    string             `json:"kind"` // warm, cold, daemon, plain
	Pair    int                `json:"pair"`
	Seconds float64            `json:"seconds"`
	Phases  map[string]float64 `json:"phases,omitempty"`
}

func main() {
	cluster.Init()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-launcher:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("launcher", flag.ContinueOnError)
	out := fs.String("o", "out/bench/launcher.json", "result file")
	pairs := fs.Int("pairs", 7, "pairs of launcher and plain QEMU")
	cold := fs.Int("cold", 3, "launchers without the node's capability cache")
	attach := fs.Bool("attach", false, "use this checkout's running lab and leave it up")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *pairs < 1 {
		return fmt.Errorf("-pairs %d: at least 1", *pairs)
	}
	start := time.Now()
	say := func(format string, a ...any) {
		fmt.Printf("    %6.1fs %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, a...))
	}
	res := &results{PSS: map[string]float64{}, RSS: map[string]float64{}, Overhead: map[string]float64{}}
	for attempt := 1; ; attempt++ {
		err := inLab(ctx, *attach, *pairs, *cold, res, say)
		if err == nil {
			break
		}
		if !errors.Is(err, testbed.ErrEmulation) || attempt == attempts || *attach {
			return err
		}
		say("%v", err)
		say("a new lab; %d of %d pairs are measured", res.pairs, *pairs)
	}
	text, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(*out, append(text, '\n'), 0o644); err != nil {
		return err
	}
	res.Runs = nil
	text, err = json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", *out, text)
	return nil
}

// inLab measures what is missing in a lab of its own.
func inLab(ctx context.Context, attach bool, pairs, cold int, res *results, say func(string, ...any)) (err error) {
	lab, err := startLab(ctx, attach, say)
	if err != nil {
		return err
	}
	if !attach {
		defer func() { err = errors.Join(err, lab.Down(context.WithoutCancel(ctx))) }()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		if err := testbed.Watch(ctx, lab, true); err != nil {
			cancel(err)
		}
	}()
	b := &bencher{lab: lab, say: say, node: lab.Nodes()[0]}
	if err = b.setUp(ctx); err == nil {
		err = b.measure(ctx, pairs, cold, res)
	}
	if cause := context.Cause(ctx); errors.Is(cause, testbed.ErrEmulation) {
		return cause // whatever it did to the runs
	}
	return err
}

func startLab(ctx context.Context, attach bool, say func(string, ...any)) (*cluster.Cluster, error) {
	if attach {
		return cluster.Attach("")
	}
	return cluster.Up(ctx, cluster.Config{Lease: true, Progress: say})
}

// setUp installs everything and waits until the node's capability cache is
// filled.
func (b *bencher) setUp(ctx context.Context) error {
	var err error
	if b.env, err = scenario.New(b.lab.Kubectl(), b.lab.Kubeconfig(), b.lab.Config().Checkout); err != nil {
		return err
	}
	for _, dir := range []string{"manifests/overlays/lab", "manifests/examples/namespace"} {
		if err := b.env.ApplyKustomization(ctx, dir); err != nil {
			return err
		}
	}
	if err := b.env.WaitOffered(ctx, 4*time.Minute, map[string]int64{vfResource: 2, v1alpha1.ResourceKVM: 2}); err != nil {
		return err
	}
	return scenario.Poll(ctx, 4*time.Minute, "the node's capability cache", func(ctx context.Context) (bool, string, error) {
		out, err := scenario.NodeOutput(ctx, b.lab, b.node, "sh", "-c", "ls "+v1alpha1.CapabilityCacheDir+"/*/*.xml 2>/dev/null | wc -l")
		return err == nil && out != "0\n" && out != "0", out, err
	})
}

// measure makes the runs that are missing, one after the other: nothing else
// runs on the node. Pairs that are whole are kept whatever happens then.
func (b *bencher) measure(ctx context.Context, pairs, cold int, res *results) error {
	res.Accel = b.lab.Accel()
	// A first one that is not counted gives QEMU's arguments and the memory figures.
	if err := b.memory(ctx, res); err != nil {
		return err
	}
	for ; res.pairs < pairs; res.pairs++ {
		order := []string{"warm", "plain"}
		if res.pairs%2 == 1 {
			order = []string{"plain", "warm"}
		}
		if res.pairs < cold {
			order = append(order, "cold")
		}
		var runs []runResult
		for _, kind := range order {
			r, err := b.run(ctx, kind, res.pairs)
			if err != nil {
				return err
			}
			b.say("pair %d: %s %.2f s", res.pairs+1, kind, r.Seconds)
			runs = append(runs, *r)
		}
		res.Runs = append(res.Runs, runs...)
	}
	res.summarise()
	var err error
	res.Image, err = b.imageMiB(ctx)
	return err
}

// summarise fills in what follows from the runs.
func (res *results) summarise() {
	seconds := map[string]map[int]float64{}
	for _, r := range res.Runs {
		if seconds[r.Kind] == nil {
			seconds[r.Kind] = map[int]float64{}
		}
		seconds[r.Kind][r.Pair] = r.Seconds
	}
	var diffs []float64
	for pair, s := range seconds["warm"] {
		diffs = append(diffs, s-seconds["plain"][pair])
	}
	res.StartOverhead = quantile(diffs, 0.5)
	res.StartOverheadIQR = [2]float64{quantile(diffs, 0.25), quantile(diffs, 0.75)}
	res.Phases, res.PhasesCold = phases(res.Runs, "warm"), phases(res.Runs, "cold")
	if len(seconds["cold"]) > 0 {
		d := quantile(slices.Collect(maps.Values(seconds["cold"])), 0.5) - quantile(slices.Collect(maps.Values(seconds["plain"])), 0.5)
		res.StartOverheadCold = &d
	}
}

// phases are the medians of each step of the runs of a kind.
func phases(runs []runResult, kind string) map[string]float64 {
	all := map[string][]float64{}
	for _, r := range runs {
		if r.Kind != kind {
			continue
		}
		for name, s := range r.Phases {
			all[name] = append(all[name], s)
		}
	}
	out := map[string]float64{}
	for name, s := range all {
		out[name] = quantile(s, 0.5)
	}
	return out
}

// quantile interpolates between the nearest two values.
func quantile(values []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(values))
	at := q * float64(len(s)-1)
	low := int(at)
	if low+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[low] + (at-float64(low))*(s[low+1]-s[low])
}
