package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// results is out/bench/scheduler.json. Cases that were not run yet are absent.
type results struct {
	PlainOnOff   float64                `json:"plain_on_off,omitempty"`
	VMVsExtended float64                `json:"vm_vs_extended,omitempty"`
	VMVsDRA      float64                `json:"vm_vs_dra,omitempty"`
	Engine       *engineResults         `json:"engine,omitempty"`
	LatencyUS    map[string]percentiles `json:"latency_us,omitempty"`
	// Throughput has the rates behind the ratios, by case.
	Throughput map[string]throughputResults `json:"throughput,omitempty"`
}

// throughputResults are a case's rates and how they were measured.
type throughputResults struct {
	rates
	Nodes int `json:"nodes"`
	Pods  int `json:"pods_per_slice"`
}

// engineResults are the worst of the engine's benchmark cases.
type engineResults struct {
	MemoNS float64 `json:"memo_ns"`
	ColdNS float64 `json:"cold_ns"`
	Allocs float64 `json:"allocs"`
}

// options are the command line's.
type options struct {
	out                    string
	nodes, pods, rounds    int
	draNodes, draPods      int
	sizes                  []int
	latencyPods, engineRun int
	cases                  []string
	fresh                  bool
}

func main() {
	if err := bench(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench-scheduler:", err)
		os.Exit(1)
	}
}

// allCases in the order in which they run.
func allCases() []string {
	out := []string{"engine", "latency"}
	for _, c := range comparisons {
		out = append(out, c.name)
	}
	return out
}

func parse(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("scheduler", flag.ContinueOnError)
	fs.StringVar(&o.out, "o", "out/bench/scheduler.json", "result file; raw outputs go beside it")
	fs.IntVar(&o.nodes, "nodes", 5000, "nodes of the throughput runs")
	fs.IntVar(&o.pods, "pods", 1000, "pods per slice of the throughput runs")
	fs.IntVar(&o.rounds, "rounds", 4, "slices per kind of pods (half as many in each size of VM pods and with DRA)")
	fs.IntVar(&o.draNodes, "dra-nodes", 500, "nodes of the comparison with DRA")
	fs.IntVar(&o.draPods, "dra-pods", 250, "pods with claims per slice of the comparison with DRA")
	sizes := fs.String("latency-nodes", "5000,15000", "cluster sizes of the latency runs")
	fs.IntVar(&o.latencyPods, "latency-pods", 200, "pods per latency run")
	fs.IntVar(&o.engineRun, "count", 3, "runs of the engine's benchmarks")
	cases := fs.String("cases", strings.Join(allCases(), ","), "what to measure, comma separated")
	fs.BoolVar(&o.fresh, "fresh", false, "measure again what the result file already has")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	o.cases = strings.Split(*cases, ",")
	for _, c := range o.cases {
		if !slices.Contains(allCases(), c) {
			return nil, fmt.Errorf("-cases: %q is none of %s", c, strings.Join(allCases(), ", "))
		}
	}
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 10 {
			return nil, fmt.Errorf("-latency-nodes: %q is no number from 10 on", s)
		}
		o.sizes = append(o.sizes, n)
	}
	for name, n := range map[string]int{
		"nodes": o.nodes, "pods": o.pods, "rounds": o.rounds, "dra-nodes": o.draNodes, "dra-pods": o.draPods,
		"latency-pods": o.latencyPods, "count": o.engineRun,
	} {
		if n < 1 {
			return nil, fmt.Errorf("-%s %d: at least 1", name, n)
		}
	}
	return o, nil
}

// bench measures case by case and writes the result file after each one, so
// that an interrupted run goes on where it was.
func bench(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	res, err := readResults(o.out)
	if err != nil {
		return err
	}
	binaries := ""
	defer func() {
		if binaries != "" {
			_ = os.RemoveAll(binaries)
		}
	}()
	for _, name := range o.cases {
		if !o.fresh && res.has(name) {
			fmt.Printf("%s: measured already (-fresh measures again)\n", name)
			continue
		}
		switch name {
		case "engine":
			res.Engine, err = engineFigures(filepath.Join(filepath.Dir(o.out), "engine.txt"), o.engineRun)
		case "latency":
			res.LatencyUS, err = latencies(o.sizes, o.latencyPods)
		default:
			if binaries == "" {
				if binaries, err = perfBinaries(); err != nil {
					return err
				}
			}
			err = res.throughput(o, comparisons[slices.IndexFunc(comparisons, func(c comparison) bool { return c.name == name })], binaries)
		}
		if err != nil {
			return err
		}
		if err := res.write(o.out); err != nil {
			return err
		}
	}
	fmt.Print(res.table())
	return nil
}

// readResults reads an earlier result file; none gives empty results.
func readResults(path string) (*results, error) {
	res := &results{}
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return res, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, res)
	}
	if err != nil {
		return nil, fmt.Errorf("earlier results: %w", err)
	}
	return res, nil
}

func (r *results) has(name string) bool {
	switch name {
	case "engine":
		return r.Engine != nil
	case "latency":
		return len(r.LatencyUS) > 0
	}
	_, ok := r.Throughput[name]
	return ok
}

func (r *results) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// throughput measures one case.
func (r *results) throughput(o *options, c comparison, binaries string) error {
	if err := c.measure(o, binaries); err != nil {
		return err
	}
	samples, err := c.read(filepath.Dir(o.out))
	if err != nil {
		return err
	}
	t := throughputResults{Nodes: o.nodes, Pods: o.pods}
	if c.name == "dra" {
		t.Nodes, t.Pods = o.draNodes, o.draPods
	}
	if t.rates, err = c.rate(samples); err != nil {
		return err
	}
	if r.Throughput == nil {
		r.Throughput = map[string]throughputResults{}
	}
	r.Throughput[c.name] = t
	switch c.name {
	case "plain":
		r.PlainOnOff = t.Ratio
	case "vm":
		r.VMVsExtended = t.Ratio
	case "dra":
		r.VMVsDRA = t.Ratio
	}
	return c.keep(filepath.Dir(o.out), samples)
}

// table is the summary that is printed: figure, target, verdict.
func (r *results) table() string {
	var b strings.Builder
	row := func(name string, got float64, unit, target string, good bool) {
		verdict := "met"
		if !good {
			verdict = "MISSED"
		}
		fmt.Fprintf(&b, "%-44s %10.3f %-7s %-10s %s\n", name, got, unit, target, verdict)
	}
	fmt.Fprintf(&b, "\n%-44s %10s %-7s %-10s\n", "figure", "measured", "", "target")
	for _, c := range comparisons {
		t, ok := r.Throughput[c.name]
		if !ok {
			continue
		}
		least := map[string]float64{"plain": 0.97, "vm": 0.90, "dra": 5}[c.name]
		row(fmt.Sprintf("%s: %s / %s (%.0f / %.0f pods/s, ±%.2f)", c.name, c.of, c.over, t.Of, t.Over, t.Spread),
			t.Ratio, "", fmt.Sprintf(">= %g", least), t.Ratio >= least)
	}
	if e := r.Engine; e != nil {
		row("engine: choice, memoised", e.MemoNS, "ns", "< 1000", e.MemoNS < 1000)
		row("engine: choice, not memoised", e.ColdNS, "ns", "< 20000", e.ColdNS < 20000)
		row("engine: allocations in Filter", e.Allocs, "", "= 0", e.Allocs == 0)
	}
	for _, name := range slices.Sorted(maps.Keys(r.LatencyUS)) {
		fmt.Fprintf(&b, "latency %-36s %10.1f µs p50 %10.1f µs p99\n", name, r.LatencyUS[name].P50, r.LatencyUS[name].P99)
	}
	return b.String()
}

// engineFigures runs the engine's Go benchmarks and keeps their output.
func engineFigures(file string, count int) (*engineResults, error) {
	cmd := exec.Command("go", "test", "-run=^$", "-bench=Feasible|Cold|Memo", "-benchmem", "-benchtime=0.2s",
		"-count="+strconv.Itoa(count), "./plugins/devicetopology/engine")
	cmd.Stderr = os.Stderr
	raw, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("engine benchmarks: %w\n%s", err, raw)
	}
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		return nil, err
	}
	r := &engineResults{}
	seen := map[string]bool{}
	sc := bufio.NewScanner(bytes.NewReader(raw))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 8 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		ns, err1 := strconv.ParseFloat(f[2], 64)
		allocs, err2 := strconv.ParseFloat(f[6], 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("engine benchmarks: %q: %w", sc.Text(), err)
		}
		for prefix, set := range map[string]func(){
			"BenchmarkMemo":     func() { r.MemoNS = max(r.MemoNS, ns) },
			"BenchmarkCold":     func() { r.ColdNS = max(r.ColdNS, ns) },
			"BenchmarkFeasible": func() { r.Allocs = max(r.Allocs, allocs) },
		} {
			if strings.HasPrefix(f[0], prefix) {
				seen[prefix] = true
				set()
			}
		}
	}
	if len(seen) != 3 {
		return nil, fmt.Errorf("%w: the engine's benchmarks gave only %d of 3 kinds of figures:\n%s", errSamples, len(seen), raw)
	}
	return r, nil
}
