package hostcmd_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kubevfio/kubevfio/host/hostcmd"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// run runs a command line and gives its standard output.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := &cobra.Command{Use: "kubevfio-agent", SilenceErrors: true}
	root.AddCommand(hostcmd.Commands()...)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(io.Discard)
	root.SetArgs(args)
	err := root.Execute()
	return out.String(), err
}

func machineDir(t *testing.T, m *hosttest.Machine) string {
	t.Helper()
	dir := t.TempDir()
	if err := hosttest.Write(dir, m); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inventory is what other programs rely on; fields are pointers to tell absent
// from empty.
type inventory struct {
	Functions []struct {
		Address, Vendor, Device, Class string
		Driver, PhysFn, RootComplex    *string
		IOMMUGroup, NUMANode           *int
		TotalVFs, NumVFs               *int
	}
	Units []struct {
		ID      string
		Members []string
	}
}

func TestInventoryJSON(t *testing.T) {
	out, err := run(t, "inventory", "--root", machineDir(t, hosttest.Desktop()), "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var inv inventory
	if err := json.Unmarshal([]byte(out), &inv); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range inv.Functions {
		switch f.Address {
		case "0000:09:00.0":
			found++
			if f.Vendor != "10de" || f.Device != "2236" || f.Class != "030200" || *f.Driver != "nvidia" || *f.TotalVFs != 32 || *f.NumVFs != 2 || *f.RootComplex != "pci0000:00" || f.PhysFn != nil || f.IOMMUGroup == nil {
				t.Errorf("PF: %+v", f)
			}
			if f.NUMANode != nil {
				t.Errorf("NUMA node of a function of unknown node: %d", *f.NUMANode)
			}
		case "0000:09:00.5":
			found++
			if *f.PhysFn != "0000:09:00.0" || f.TotalVFs != nil || f.NumVFs != nil {
				t.Errorf("VF: %+v", f)
			}
		case "0000:00:1f.0":
			found++
			if f.Driver != nil {
				t.Errorf("unbound function has driver %q", *f.Driver)
			}
		case "10000:01:00.0":
			found++
			if *f.RootComplex != "pci10000:00" {
				t.Errorf("below VMD: %s", *f.RootComplex)
			}
		}
	}
	if found != 4 {
		t.Errorf("%d of 4 functions found", found)
	}
	for _, u := range inv.Units {
		if u.ID == "0000:01:00.0" {
			if d := cmp.Diff([]string{"0000:01:00.0", "0000:01:00.1", "0000:01:00.2", "0000:01:00.3"}, u.Members); d != "" {
				t.Errorf("GPU's unit (-want +got):\n%s", d)
			}
		}
	}
	y, err := run(t, "inventory", "--root", machineDir(t, hosttest.Desktop()), "-o", "yaml")
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(y), &b); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a, b); d != "" {
		t.Errorf("JSON and YAML differ:\n%s", d)
	}
}

func TestInventoryTree(t *testing.T) {
	dir := machineDir(t, hosttest.HGX())
	if err := os.MkdirAll(filepath.Join(dir, "proc/77/fd"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "inventory", "--root", dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"socket 1\n", "NUMA node 3  CPUs 72-95,168-191  512 GiB  1024 x 2 MiB huge pages, 1024 free",
		"0000:13:00.0  3D", "driver vfio-pci  group 10", "8 VFs of 16 (0000:14:00.4 to 0000:14:01.3: 8 vfio-pci)", "goes with 0000:e3:00.0",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestInventorySVG(t *testing.T) {
	out, err := run(t, "inventory", "--root", machineDir(t, hosttest.HGX()), "-o", "svg")
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(out))
	boxes := map[string]int{}
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("no well-formed XML: %v", err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "g" {
			for _, a := range e.Attr {
				if a.Name.Local == "class" {
					boxes[strings.Fields(a.Value)[0]]++
				}
			}
		}
	}
	for kind, n := range map[string]int{"socket": 2, "numa": 4, "root": 10, "switch": 9, "gpu": 8, "net": 10, "disk": 1, "other": 1} {
		if boxes[kind] != n {
			t.Errorf("%d boxes of kind %s, want %d", boxes[kind], kind, n)
		}
	}
}

func TestSnapshotIsReadBack(t *testing.T) {
	dir := machineDir(t, hosttest.Lab())
	file := filepath.Join(t.TempDir(), "lab.tar.gz")
	if _, err := run(t, "snapshot", "--root", dir, "-o", file); err != nil {
		t.Fatal(err)
	}
	want, err := run(t, "inventory", "--root", dir, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := run(t, "inventory", "--root", file, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var a, b map[string]any
	if err := json.Unmarshal([]byte(want), &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(got), &b); err != nil {
		t.Fatal(err)
	}
	delete(a, "bootID") // an identity
	if d := cmp.Diff(a, b); d != "" {
		t.Errorf("(-host +snapshot):\n%s", d)
	}
}

func TestErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "x.tar.gz")
	if err := os.WriteFile(bad, []byte("no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"format":       {"inventory", "-o", "xml"},
		"no root":      {"inventory", "--root", filepath.Join(t.TempDir(), "absent")},
		"no sys":       {"inventory", "--root", t.TempDir()},
		"no archive":   {"inventory", "--root", bad},
		"no output":    {"snapshot"},
		"output place": {"snapshot", "--root", machineDir(t, hosttest.New(hosttest.Spec{})), "-o", filepath.Join(t.TempDir(), "no/such/dir")},
		"no file":      {"pool-from-sriovdp", filepath.Join(t.TempDir(), "absent")},
	} {
		if out, err := run(t, args...); err == nil {
			t.Errorf("%s: no error, output %q", name, out)
		}
	}
}
