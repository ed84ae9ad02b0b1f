package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// sample is one slice of pods as package perf measures it: kind-round-variant,
// how many were bound after the first one, and in what time.
type sample struct {
	Slice   string  `json:"slice"`
	Pods    int     `json:"pods"`
	Seconds float64 `json:"seconds"`
}

// comparison is a throughput case: the rate of one kind of pods over another's.
type comparison struct {
	name, of, over string
}

// comparisons are the throughput cases in the order in which they run.
var comparisons = []comparison{
	{"plain", "on", "off"},
	{"vm", "ours", "extended"},
	{"dra", "ours", "dra"},
}

// rates is what one throughput case gave.
type rates struct {
	// Of and Over are pods per second of both kinds, all slices together.
	Of   float64 `json:"of"`
	Over float64 `json:"over"`
	// Ratio is Of over Over; Spread the standard deviation of the ratios of
	// neighbouring slices.
	Ratio  float64 `json:"ratio"`
	Spread float64 `json:"spread"`
	Slices int     `json:"slices"`
}

// errSamples is the class of errors about incomplete measurements.
var errSamples = errors.New("incomplete measurement")

// rate compares a case's slices. Slices that have no partner are left out.
func (c comparison) rate(samples []sample) (rates, error) {
	type pair struct{ of, over *sample }
	pairs := map[string]*pair{}
	for i := range samples {
		kind, rest, ok := strings.Cut(samples[i].Slice, "-")
		if !ok || samples[i].Seconds <= 0 {
			continue
		}
		p := pairs[rest]
		if p == nil {
			p = &pair{}
			pairs[rest] = p
		}
		switch kind {
		case c.of:
			p.of = &samples[i]
		case c.over:
			p.over = &samples[i]
		}
	}
	var r rates
	var pods, seconds [2]float64
	var ratios []float64
	for _, p := range pairs {
		if p.of == nil || p.over == nil {
			continue
		}
		pods[0] += float64(p.of.Pods)
		pods[1] += float64(p.over.Pods)
		seconds[0] += p.of.Seconds
		seconds[1] += p.over.Seconds
		ratios = append(ratios, float64(p.of.Pods)/p.of.Seconds/(float64(p.over.Pods)/p.over.Seconds))
		r.Slices++
	}
	if r.Slices == 0 {
		return r, fmt.Errorf("%w: case %s has no pair of slices %s and %s", errSamples, c.name, c.of, c.over)
	}
	r.Of, r.Over = pods[0]/seconds[0], pods[1]/seconds[1]
	r.Ratio = r.Of / r.Over
	mean := 0.0
	for _, x := range ratios {
		mean += x / float64(len(ratios))
	}
	for _, x := range ratios {
		r.Spread += (x - mean) * (x - mean)
	}
	r.Spread = math.Sqrt(r.Spread / math.Max(1, float64(len(ratios)-1)))
	return r, nil
}

// file is where package perf leaves a case's samples.
func (c comparison) file(dir string) string { return filepath.Join(dir, "throughput-"+c.name+".json") }

// read takes a case's samples from its file.
func (c comparison) read(dir string) ([]sample, error) {
	raw, err := os.ReadFile(c.file(dir))
	if err != nil {
		return nil, err
	}
	var out []sample
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("%s: %w", c.file(dir), err)
	}
	return out, nil
}

// keep writes a case's slices for benchstat: a file per kind, with the same
// benchmark names in both.
func (c comparison) keep(dir string, samples []sample) error {
	for _, kind := range []string{c.of, c.over} {
		var b strings.Builder
		b.WriteString("goos: linux\ngoarch: amd64\npkg: scheduler_perf\n")
		for _, s := range samples {
			k, rest, _ := strings.Cut(s.Slice, "-")
			if k != kind || s.Seconds <= 0 {
				continue
			}
			_, variant, _ := strings.Cut(rest, "-")
			fmt.Fprintf(&b, "BenchmarkThroughput/%s-%s %d %.0f ns/op %.1f pods/s\n",
				c.name, variant, s.Pods, s.Seconds/float64(s.Pods)*1e9, float64(s.Pods)/s.Seconds)
		}
		if err := os.WriteFile(filepath.Join(dir, c.name+"-"+kind+".txt"), []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// perfBinaries builds etcd and package perf into a folder, which the caller
// removes.
func perfBinaries() (work string, err error) {
	if work, err = os.MkdirTemp("", "kubevfio-bench-"); err != nil {
		return "", err
	}
	build := func(args ...string) error {
		cmd := exec.Command("go", args...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		return cmd.Run()
	}
	// scheduler_perf starts an executable named etcd from PATH.
	if err := build("build", "-o", filepath.Join(work, "etcd"), "./test/lab/etcd"); err != nil {
		return work, fmt.Errorf("build etcd: %w", err)
	}
	if err := build("test", "-c", "-o", filepath.Join(work, "perf.test"), "./test/bench/scheduler/perf"); err != nil {
		return work, fmt.Errorf("build scheduler_perf: %w", err)
	}
	return work, nil
}

// measure runs one throughput case with scheduler_perf; its samples are in the
// case's file afterwards.
func (c comparison) measure(o *options, binaries string) error {
	dir, err := filepath.Abs(filepath.Dir(o.out))
	if err != nil {
		return err
	}
	if err := os.Remove(c.file(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	data := filepath.Join(dir, "data-"+c.name)
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "kubevfio-bench-run-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	cmd := exec.Command(filepath.Join(binaries, "perf.test"), "-test.run=^$", "-test.bench=BenchmarkScheduler",
		// Once: scheduler_perf stops the clock of package testing, which would repeat
		// the whole workload in search of a nanosecond.
		"-test.benchtime=1x", "-test.timeout=1h", "-data-items-dir="+data)
	cmd.Dir = "test/bench/scheduler/perf"
	cmd.Env = append(os.Environ(),
		"PATH="+binaries+":"+os.Getenv("PATH"), "TMPDIR="+tmp,
		"KUBE_CACHE_MUTATION_DETECTOR=false", "KUBE_PANIC_WATCH_DECODE_ERROR=false",
		"KUBEVFIO_BENCH_CASE="+c.name, "KUBEVFIO_BENCH_OUT="+dir,
		fmt.Sprint("KUBEVFIO_BENCH_NODES=", o.nodes), fmt.Sprint("KUBEVFIO_BENCH_DRA_NODES=", o.draNodes),
		fmt.Sprint("KUBEVFIO_BENCH_PODS=", o.pods), fmt.Sprint("KUBEVFIO_BENCH_DRA_PODS=", o.draPods),
		fmt.Sprint("KUBEVFIO_BENCH_ROUNDS=", o.rounds))
	log, err := os.Create(filepath.Join(dir, "scheduler_perf-"+c.name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("scheduler_perf, case %s: %w; its output is in %s", c.name, err, log.Name())
	}
	return nil
}
