package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRate(t *testing.T) {
	c := comparison{"vm", "ours", "extended"}
	got, err := c.rate([]sample{
		{"ours-0-0", 100, 1}, {"extended-0-0", 100, 2},
		{"ours-0-1", 100, 3}, {"extended-0-1", 100, 2},
		{"ours-1-0", 100, 9}, // without a partner
		{"warm-ours", 10, 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Slices != 2 || got.Of != 50 || got.Over != 50 || got.Ratio != 1 {
		t.Errorf("got %+v, want 2 slices at 50 pods/s each", got)
	}
	if want := (2 - 2.0/3) / math.Sqrt2; math.Abs(got.Spread-want) > 1e-9 {
		t.Errorf("spread %v, want %v", got.Spread, want)
	}
	if _, err := c.rate([]sample{{"ours-0-0", 100, 1}}); !errors.Is(err, errSamples) {
		t.Errorf("error %v, want errSamples", err)
	}
}

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"defaults":      {nil, ""},
		"one case":      {[]string{"-cases", "dra", "-dra-pods", "10"}, ""},
		"unknown case":  {[]string{"-cases", "plain,gpu"}, `"gpu" is none of engine, latency, plain, vm, dra`},
		"no pods":       {[]string{"-pods", "0"}, "-pods 0: at least 1"},
		"no node count": {[]string{"-latency-nodes", "5000,x"}, `"x" is no number`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tc.args)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// TestResume: an earlier result file is kept and says what is done.
func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "scheduler.json")
	first := &results{PlainOnOff: 0.99, Throughput: map[string]throughputResults{"plain": {Nodes: 5000, Pods: 1000, rates: rates{Of: 99, Over: 100, Ratio: 0.99}}}}
	if err := first.write(path); err != nil {
		t.Fatal(err)
	}
	again, err := readResults(path)
	if err != nil {
		t.Fatal(err)
	}
	if !again.has("plain") || again.has("vm") || again.has("engine") || again.PlainOnOff != 0.99 || again.Throughput["plain"].Of != 99 {
		t.Errorf("read %+v", again)
	}
	if table := again.table(); !strings.Contains(table, "plain: on / off (99 / 100 pods/s") || !strings.Contains(table, "met") {
		t.Errorf("table:\n%s", table)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readResults(path); err == nil {
		t.Error("a broken result file is accepted")
	}
}
