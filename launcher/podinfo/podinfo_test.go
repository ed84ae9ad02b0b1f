package podinfo

import (
	"errors"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/topology"
)

func address(t *testing.T, s string) topology.Address {
	t.Helper()
	a, err := topology.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const assignment = `{"version":"v1","podUID":"u1","node":"n1","containers":{"compute":{"a.io/vf":["0000:41:10.0"]}}}`

func TestRead(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	want := &v1alpha1.Assignment{Version: "v1", PodUID: "u1", Node: "n1", Containers: map[string]map[string][]topology.Address{
		"compute": {"a.io/vf": {address(t, "0000:41:10.0")}},
	}}
	for name, tc := range map[string]struct {
		files fstest.MapFS
		want  Info
		class error
	}{
		"all files": {
			files: fstest.MapFS{"vm": file("domain: {}\n"), "assignment": file(assignment + "\n"), "uid": file("u1\n"), "name": file("vm-a"), "namespace": file("vms")},
			want:  Info{VM: "domain: {}\n", Assignment: want, UID: "u1", Name: "vm-a", Namespace: "vms"},
		},
		"nothing at all":             {files: fstest.MapFS{}},
		"empty annotation":           {files: fstest.MapFS{"assignment": file("  \n"), "vm": file("")}},
		"assignment of another pod":  {files: fstest.MapFS{"assignment": file(assignment), "uid": file("u2")}, class: v1alpha1.ErrAssignment},
		"assignment that is no JSON": {files: fstest.MapFS{"assignment": file("{")}, class: v1alpha1.ErrAssignment},
		"too large":                  {files: fstest.MapFS{"vm": file(string(make([]byte, maxFile+1)))}, class: ErrPodInfo},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Read(tc.files)
			if !errors.Is(err, tc.class) {
				t.Fatalf("error %v, want class %v", err, tc.class)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestParseEnv(t *testing.T) {
	a, b := address(t, "0000:41:10.0"), address(t, "10000:01:00.0")
	for name, tc := range map[string]struct {
		environ []string
		want    Env
		fails   bool
	}{
		"nothing":                      {environ: []string{"PATH=/bin", "PCI_RESOURCE_=x", "PCIDEVICE_"}, want: Env{}},
		"KubeVirt's contract":          {environ: []string{"PCI_RESOURCE_A_IO_VF=0000:41:10.0,10000:01:00.0"}, want: Env{"A_IO_VF": {a, b}}},
		"SR-IOV plugin's contract":     {environ: []string{"PCIDEVICE_A_IO_VF=0000:41:10.0", `PCIDEVICE_A_IO_VF_INFO={"0000:41:10.0":{}}`}, want: Env{"A_IO_VF": {a}}},
		"both agree":                   {environ: []string{"PCIDEVICE_X=0000:41:10.0", "PCI_RESOURCE_X=0000:41:10.0"}, want: Env{"X": {a}}},
		"both differ":                  {environ: []string{"PCIDEVICE_X=0000:41:10.0", "PCI_RESOURCE_X=10000:01:00.0"}, fails: true},
		"a resource called info":       {environ: []string{"PCIDEVICE_A_INFO=0000:41:10.0"}, want: Env{"A_INFO": {a}}},
		"comma at the end, upper case": {environ: []string{"PCI_RESOURCE_X=0000:41:10.0, "}, want: Env{"X": {a}}},
		"no address":                   {environ: []string{"PCI_RESOURCE_X="}, fails: true},
		"not an address":               {environ: []string{"PCI_RESOURCE_X=GPU-0"}, fails: true},
		"twice in one":                 {environ: []string{"PCI_RESOURCE_X=0000:41:10.0,0000:41:10.0"}, fails: true},
		"twice in two":                 {environ: []string{"PCI_RESOURCE_X=0000:41:10.0", "PCI_RESOURCE_Y=0000:41:10.0"}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseEnv(tc.environ)
			if (err != nil) != tc.fails || err != nil && !errors.Is(err, ErrEnv) {
				t.Fatalf("error %v", err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestByResource(t *testing.T) {
	a, b := address(t, "0000:41:10.0"), address(t, "0000:41:10.2")
	got, err := Env{"A_IO_VF": {a}, "OTHER": {b}}.ByResource([]string{"a.io/vf", "b.io/gpu"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string][]topology.Address{"a.io/vf": {a}, "OTHER": {b}}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := (Env{}).ByResource([]string{"a.b/c", "a-b/c"}); !errors.Is(err, ErrEnv) {
		t.Errorf("two resources with one variable: %v", err)
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add("PCI_RESOURCE_X=0000:41:10.0", `PCIDEVICE_X_INFO={"a":1}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		env, err := ParseEnv([]string{a, b})
		if err != nil {
			return
		}
		for name, list := range env {
			if name == "" || len(list) == 0 {
				t.Errorf("%q, %q: %v", a, b, env)
			}
		}
	})
}
