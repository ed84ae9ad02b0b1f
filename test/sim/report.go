package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
)

// stat is a metric over the seeds.
type stat struct {
	Mean float64 `json:"mean"`
	// Spread is the standard deviation of the runs.
	Spread float64 `json:"spread"`
}

func statOf(rs []*outcome, f func(*outcome) float64) stat {
	values := make([]float64, 0, len(rs))
	for _, r := range rs {
		values = append(values, f(r))
	}
	return statOfValues(values)
}

func statOfValues(values []float64) stat {
	var s stat
	for _, v := range values {
		s.Mean += v / float64(len(values))
	}
	for _, v := range values {
		s.Spread += (v - s.Mean) * (v - s.Mean)
	}
	s.Spread = math.Sqrt(s.Spread / math.Max(1, float64(len(values)-1)))
	return s
}

// metric is one figure of a run, in percent.
type metric struct {
	name string
	of   func(*outcome) float64
}

func metrics() []metric {
	ms := []metric{
		{"allocatedAt100", func(o *outcome) float64 { return 100 * o.full }},
		{"allocatedAtSaturation", func(o *outcome) float64 { return 100 * o.saturation }},
		{"wishGranted", func(o *outcome) float64 { return 100 * o.wished }},
		{"admissionFailures", func(o *outcome) float64 { return 100 * o.failures }},
		{"pending", func(o *outcome) float64 { return 100 * o.pending }},
		{"fragmentation", func(o *outcome) float64 { return 100 * o.fragmented }},
	}
	for l := topology.SameSwitch; l < topology.Other; l++ {
		ms = append(ms, metric{"aligned-" + l.String(), func(o *outcome) float64 { return 100 * o.aligned[l] }})
	}
	return ms
}

// report prints the table and writes the files.
func report(o *options, results map[string][]*outcome, gaps []gap) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	summary := map[string]map[string]stat{}
	fmt.Printf("%-14s", "policy")
	for _, m := range metrics() {
		fmt.Printf(" %21s", m.name)
	}
	fmt.Println(" (percent, mean ± spread)")
	for _, p := range o.policies {
		summary[p] = map[string]stat{}
		fmt.Printf("%-14s", p)
		for _, m := range metrics() {
			s := statOf(results[p], m.of)
			summary[p][m.name] = s
			fmt.Printf(" %13.2f ± %5.2f", s.Mean, s.Spread)
		}
		fmt.Println()
		if err := writeCSV(filepath.Join(o.out, p+".csv"), results[p]); err != nil {
			return err
		}
	}
	if err := reportGaps(o, gaps, summary); err != nil {
		return err
	}
	b, err := json.MarshalIndent(summary, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "summary.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "allocated.svg"), []byte(plot(o.policies, results)), 0o644)
}

// writeCSV writes the curve of one policy.
func writeCSV(path string, rs []*outcome) error {
	var b strings.Builder
	b.WriteString("arrived_pct,allocated_pct_mean,allocated_pct_spread\n")
	for d := range gridPoints {
		s := statOf(rs, func(o *outcome) float64 { return 100 * o.allocated[d] })
		fmt.Fprintf(&b, "%d,%.3f,%.3f\n", d, s.Mean, s.Spread)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// plot draws allocated GPUs over arrived demand.
func plot(policies []string, results map[string][]*outcome) string {
	const w, h, left, top = 720, 420, 60, 20
	colours := []string{"#0b62a4", "#c23b22", "#7a9a01", "#8e4585", "#e08e0b", "#444444"}
	x := func(d int) float64 { return left + float64(d)/float64(gridPoints-1)*(w-left-160) }
	y := func(v float64) float64 { return top + (1-v)*(h-top-50) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", w, h)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", w, h)
	for v := 0; v <= 100; v += 20 {
		fmt.Fprintf(&b, `<line x1="%d" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%d</text>`+"\n",
			left, x(gridPoints-1), y(float64(v)/100), y(float64(v)/100), left-6, y(float64(v)/100)+4, v)
	}
	for d := 0; d < gridPoints; d += 20 {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(d), h-34, d)
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">arrived demand, %% of GPUs</text>`+"\n", x(65), h-14)
	fmt.Fprintf(&b, `<text transform="translate(16 %.1f) rotate(-90)" text-anchor="middle">allocated GPUs, %%</text>`+"\n", y(0.5))
	for i, p := range policies {
		var pts []string
		for d := range gridPoints {
			s := statOf(results[p], func(o *outcome) float64 { return o.allocated[d] })
			pts = append(pts, fmt.Sprintf("%.1f,%.1f", x(d), y(s.Mean)))
		}
		k := max(0, slices.Index(policyNames, p)) % len(colours)
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>`+"\n", colours[k], strings.Join(pts, " "))
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="%s">%s</text>`+"\n", x(gridPoints-1)+10, top+20+18*i, colours[k], p)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
