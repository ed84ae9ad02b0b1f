package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOwnTrace: on the own cluster our policy is never refused by kubelet, grants
// every required wish and allocates at least what FGD does without topology.
func TestOwnTrace(t *testing.T) {
	dir := t.TempDir()
	if err := simulate([]string{"-seeds", "2", "-own-nodes", "40", "-policy", "ours,fgd,random", "-o", dir}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]map[string]stat
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if f := got["ours"]["admissionFailures"].Mean; f != 0 {
		t.Errorf("ours: %.2f %% refused", f)
	}
	if got["random"]["admissionFailures"].Mean == 0 {
		t.Error("random devices are never refused: the trace has no wishes")
	}
	ours, fgd := got["ours"]["allocatedAtSaturation"].Mean, got["fgd"]["allocatedAtSaturation"].Mean
	if ours < fgd-0.5 {
		t.Errorf("allocated at saturation: ours %.2f %%, FGD without topology %.2f %%", ours, fgd)
	}
	for _, f := range []string{"ours.csv", "fgd.csv", "allocated.svg"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			t.Error(err)
		}
	}
}

// TestRealTrace replays the openb trace where REALDATA names the data folder.
func TestRealTrace(t *testing.T) {
	data := os.Getenv("REALDATA")
	if data == "" {
		t.Skip("REALDATA is not set")
	}
	nodes, err := readNodes(filepath.Join(data, "openb", "openb_node_list_gpu_node.csv"))
	if err != nil || len(nodes) == 0 {
		t.Fatalf("%d nodes, %v", len(nodes), err)
	}
	pods, err := readPods(filepath.Join(data, "openb", "openb_pod_list_default.csv"))
	if err != nil || len(pods) == 0 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
}

func TestBadInput(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, run := range map[string]func() error{
		"no column": func() error { _, err := readNodes(write("sn,cpu_milli\n")); return err },
		"no number": func() error {
			_, err := readNodes(write("sn,cpu_milli,memory_mib,gpu,model\na,x,1,1,T4\n"))
			return err
		},
		"empty file": func() error { _, err := readPods(write("")); return err },
		"no finite number": func() error {
			_, err := readPods(write("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,nan,0\n"))
			return err
		},
		"too many GPUs": func() error {
			_, err := readNodes(write("sn,cpu_milli,memory_mib,gpu,model\na,1,1,1000,T4\n"))
			return err
		},
		"no GPUs": func() error {
			return playable([]nodeRow{{name: "a"}}, []podRow{{gpus: 1}}, defaultOverlay())
		},
		"only fractions, dropped": func() error {
			return playable([]nodeRow{{gpus: 8}}, []podRow{{gpus: 1, gpuMilli: 500}, {}}, &overlay{Fractional: "drop"})
		},
		"share":    func() error { _, err := readOverlay(write("wishes: [{share: 1.5}]\n")); return err },
		"switches": func() error { _, err := readOverlay(write("shapes: [{gpus: 8, switches: -1}]\n")); return err },
		"sockets":  func() error { _, err := readOverlay(write("shapes: [{sockets: 2}]\n")); return err },
		"negative": func() error {
			_, err := readPods(write("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,-1,0\n"))
			return err
		},
		"unknown overlay field": func() error { _, err := readOverlay(write("shape: []\n")); return err },
		"bad wish": func() error {
			_, err := readOverlay(write("wishes: [{share: 1, alignment: required:rack}]\n"))
			return err
		},
		"bad fractional": func() error { _, err := readOverlay(write("fractional: half\n")); return err },
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(); !errors.Is(err, errTrace) {
				t.Errorf("error %v, want errTrace", err)
			}
		})
	}
	for _, args := range [][]string{{"-policy", "best"}, {"-policy", "ours,ours"}, {"-seeds", "0"}, {"-exact", "-1"}, {"-own-nodes", "0"}, {"trace.csv"}} {
		if err := simulate(args); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
}

// TestLenientInput: columns that say nothing may be missing, names may have a
// byte order mark and blanks.
func TestLenientInput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	text := "\ufeffname, cpu_milli ,memory_mib,num_gpu,gpu_spec\na,1000,1024.0,2.0,T4| A10\nb,1000,1024,0,nan\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readPods(path)
	want := []podRow{
		{milliCPU: 1000, memoryMiB: 1024, gpus: 2, gpuMilli: 1000, models: []string{"T4", "A10"}},
		{milliCPU: 1000, memoryMiB: 1024, gpuMilli: 1000},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(podRow{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
