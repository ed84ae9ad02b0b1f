package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// results is out/bench/scheduler.json.
type results struct {
	PlainOnOff   float64                `json:"plain_on_off,omitempty"`
	VMVsExtended float64                `json:"vm_vs_extended,omitempty"`
	VMVsDRA      float64                `json:"vm_vs_dra,omitempty"`
	Throughput   map[string]float64     `json:"pods_per_second,omitempty"`
	Engine       engineResults          `json:"engine"`
	LatencyUS    map[string]percentiles `json:"latency_us"`
	Nodes        int                    `json:"nodes"`
	DRANodes     int                    `json:"dra_nodes"`
}

// engineResults are the worst of the engine's benchmark cases.
type engineResults struct {
	MemoNS float64 `json:"memo_ns"`
	ColdNS float64 `json:"cold_ns"`
	Allocs float64 `json:"allocs"`
}

func main() {
	if err := bench(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench-scheduler:", err)
		os.Exit(1)
	}
}

func bench(args []string) error {
	fs := flag.NewFlagSet("scheduler", flag.ContinueOnError)
	out := fs.String("o", "out/bench/scheduler.json", "result file; raw outputs go beside it")
	nodes := fs.Int("nodes", 5000, "nodes of the throughput runs")
	pods := fs.Int("pods", 0, "pods of the throughput runs; 0 is two per node")
	draNodes := fs.Int("dra-nodes", 500, "nodes of the comparison with DRA")
	sizes := fs.String("latency-nodes", "5000,15000", "cluster sizes of the latency runs")
	latencyPods := fs.Int("latency-pods", 200, "pods per latency run")
	cases := fs.String("cases", "", "throughput cases to run, comma separated; empty is all, none skips")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir := filepath.Dir(*out)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	res := results{Nodes: *nodes, DRANodes: *draNodes}
	var err error
	if res.Engine, err = engineFigures(filepath.Join(dir, "engine.txt")); err != nil {
		return err
	}
	var ns []int
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("-latency-nodes: %w", err)
		}
		ns = append(ns, n)
	}
	if res.LatencyUS, err = latencies(ns, *latencyPods); err != nil {
		return err
	}
	if *cases != "none" {
		if *pods == 0 {
			*pods = 2 * *nodes
		}
		if res.Throughput, err = throughput(dir, *cases, *nodes, *pods, *draNodes); err != nil {
			return err
		}
		t := res.Throughput
		res.PlainOnOff = ratio(t["plain-on"], t["plain-off"])
		res.VMVsExtended = ratio(t["vm-ours"], t["vm-extended"])
		res.VMVsDRA = ratio(t["vm-dra-size-ours"], t["dra"])
	}
	b, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	fmt.Printf("\n%s\n", b)
	return os.WriteFile(*out, append(b, '\n'), 0o644)
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// engineFigures runs the engine's Go benchmarks and keeps their output.
func engineFigures(file string) (engineResults, error) {
	cmd := exec.Command("go", "test", "-run=^$", "-bench=Feasible|Cold|Memo", "-benchmem", "-benchtime=0.2s", "./plugins/devicetopology/engine")
	cmd.Stderr = os.Stderr
	raw, err := cmd.Output()
	if err != nil {
		return engineResults{}, fmt.Errorf("engine benchmarks: %w\n%s", err, raw)
	}
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		return engineResults{}, err
	}
	var r engineResults
	sc := bufio.NewScanner(bytes.NewReader(raw))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 8 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		ns, err1 := strconv.ParseFloat(f[2], 64)
		allocs, err2 := strconv.ParseFloat(f[6], 64)
		if err1 != nil || err2 != nil {
			continue
		}
		switch {
		case strings.HasPrefix(f[0], "BenchmarkMemo"):
			r.MemoNS = max(r.MemoNS, ns)
		case strings.HasPrefix(f[0], "BenchmarkCold"):
			r.ColdNS = max(r.ColdNS, ns)
		case strings.HasPrefix(f[0], "BenchmarkFeasible"):
			r.Allocs = max(r.Allocs, allocs)
		}
	}
	fmt.Printf("engine: memoised %.0f ns, cold %.0f ns, allocations in Filter %.0f\n", r.MemoNS, r.ColdNS, r.Allocs)
	return r, nil
}

// dataItems is scheduler_perf's result file.
type dataItems struct {
	DataItems []struct {
		Data   map[string]float64 `json:"data"`
		Labels map[string]string  `json:"labels"`
	} `json:"dataItems"`
}

// throughput runs scheduler_perf and returns pods per second by case.
func throughput(dir, cases string, nodes, pods, draNodes int) (map[string]float64, error) {
	work, err := os.MkdirTemp("", "kubevfio-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	build := func(args ...string) error {
		cmd := exec.Command("go", args...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		return cmd.Run()
	}
	// scheduler_perf starts an executable named etcd from PATH.
	if err := build("build", "-o", filepath.Join(work, "etcd"), "./test/lab/etcd"); err != nil {
		return nil, fmt.Errorf("build etcd: %w", err)
	}
	binary := filepath.Join(work, "perf.test")
	if err := build("test", "-c", "-o", binary, "./test/bench/scheduler/perf"); err != nil {
		return nil, fmt.Errorf("build scheduler_perf: %w", err)
	}
	data, err := filepath.Abs(filepath.Join(work, "data"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "-test.run=^$", "-test.bench=BenchmarkScheduler", "-test.benchtime=1ns", "-test.timeout=3h", "-data-items-dir="+data)
	cmd.Dir = "test/bench/scheduler/perf"
	cmd.Env = append(os.Environ(),
		"PATH="+work+":"+os.Getenv("PATH"),
		"KUBE_CACHE_MUTATION_DETECTOR=false", "KUBE_PANIC_WATCH_DECODE_ERROR=false",
		fmt.Sprint("KUBEVFIO_BENCH_NODES=", nodes), fmt.Sprint("KUBEVFIO_BENCH_PODS=", pods),
		fmt.Sprint("KUBEVFIO_BENCH_DRA_NODES=", draNodes), "KUBEVFIO_BENCH_CASES="+cases)
	log, err := os.Create(filepath.Join(dir, "scheduler_perf.txt"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("scheduler_perf: %w; its output is in %s", err, log.Name())
	}
	files, err := filepath.Glob(filepath.Join(data, "*.json"))
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		var items dataItems
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		name, _, _ := strings.Cut(filepath.Base(f), "_")
		name = strings.TrimPrefix(name, "BenchmarkPerfScheduling")
		// A case of several sizes has a figure per size, over a tenth less pods each.
		seconds, share := 0.0, 0.0
		part := 4.0
		for _, it := range items.DataItems {
			if it.Labels["Metric"] != "SchedulingThroughput" || it.Data["Average"] == 0 {
				continue
			}
			seconds += part / it.Data["Average"]
			share += part
			part--
		}
		if seconds > 0 {
			out[name] = share / seconds
			fmt.Printf("throughput %-18s %8.1f pods/s\n", name, out[name])
		}
		if err := os.Rename(f, filepath.Join(dir, filepath.Base(f))); err != nil {
			return nil, err
		}
	}
	return out, nil
}
