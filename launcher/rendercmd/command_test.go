package rendercmd

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

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hostcmd"
	"github.com/kubevfio/kubevfio/host/hosttest"
)

func render(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := NewCommand()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

const labVM = `
apiVersion: kubevfio.io/v1alpha1
kind: VirtualMachineInstance
metadata: {name: one, namespace: demo}
spec:
  domain:
    cpu: {cores: 1}
    memory: {guest: 256Mi}
    firmware: {kernelBoot: {container: {kernelPath: /guest/boot/vmlinuz}}}
    devices:
      gpus:
      - {name: gpu, deviceName: kubevfio.io/gpu}
      interfaces:
      - {name: fast, sriov: {deviceName: kubevfio.io/igb-vf}}
`

func TestRenderLab(t *testing.T) {
	dir := t.TempDir()
	if err := hosttest.Write(dir, hosttest.Lab()); err != nil {
		t.Fatal(err)
	}
	spec := write(t, "vm.yaml", labVM)
	h, err := host.Read(t.Context(), host.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	js, err := json.Marshal(hostcmd.NewReport(h))
	if err != nil {
		t.Fatal(err)
	}
	asJSON := write(t, "host.json", string(js))
	var outs []string
	for _, inv := range []string{dir, asJSON} {
		out, err := render(t, "--spec", spec, "--inventory", inv, "--devices", "gpu=0000:62:00.0,kubevfio.io/igb-vf=0000:41:00.4", "-o", "report")
		if err != nil {
			t.Fatal(err)
		}
		outs = append(outs, out)
	}
	if outs[0] != outs[1] {
		t.Errorf("the tree and its JSON differ:\n%s\n%s", outs[0], outs[1])
	}
	t.Log(outs[0])
	if !strings.Contains(outs[0], "gpu (companion)") {
		t.Errorf("no companion in\n%s", outs[0])
	}
}

func TestRenderOutputs(t *testing.T) {
	dir := t.TempDir()
	if err := hosttest.Write(dir, hosttest.Lab()); err != nil {
		t.Fatal(err)
	}
	spec := write(t, "vm.yaml", labVM)
	base := []string{"--spec", spec, "--inventory", dir, "--devices", "gpu=0000:62:00.0,fast=0000:41:00.4"}
	tests := map[string]struct {
		args []string
		want string // in the output, or in the error when it starts with "!"
	}{
		"xml":              {nil, `<target busNr="64">`},
		"json":             {[]string{"-o", "json"}, `"memoryLockBytes": 1342177280`},
		"report":           {[]string{"-o", "report"}, "pageTables"},
		"svg":              {[]string{"-o", "svg"}, "expander, buses 40-41"},
		"unknown output":   {[]string{"-o", "png"}, "!want xml, report, json or svg"},
		"name":             {[]string{"--name", "other"}, "<name>other</name>"},
		"cpus":             {[]string{"--cpus", "9"}, "!cpuset 9"},
		"bad cpus":         {[]string{"--cpus", "x"}, "!--cpus"},
		"bad version":      {[]string{"--libvirt-version", "twelve"}, "!--libvirt-version"},
		"no inventory":     {[]string{"--inventory", ""}, "!required"},
		"unknown entry":    {[]string{"--devices", "gpus=0000:62:00.0"}, `!"gpus" is neither`},
		"bad address":      {[]string{"--devices", "gpu=62:00.0"}, "!not a PCI address"},
		"companion":        {[]string{"--devices", "gpu=0000:62:00.1"}, "!part of the isolation unit 0000:62:00.0"},
		"absent":           {[]string{"--devices", "gpu=0000:63:00.0"}, "!0000:63:00.0: is not on this host"},
		"too many values":  {[]string{"--devices", "gpu=0000:62:00.0,0000:61:00.4"}, "!2 values for 1 entries"},
		"newer libvirt":    {[]string{"--libvirt-version", "12.2.0"}, "<domain"},
		"missing spec":     {[]string{"--spec", "/nonexistent"}, "!no such file"},
		"missing device":   {[]string{"--inventory", filepath.Join(dir, "sys")}, "!"},
		"host not a tree":  {[]string{"--host", spec}, "!want the JSON of"},
		"memory nodes":     {[]string{"--mems", "1"}, "<domain"},
		"uuid":             {[]string{"--uuid", "11111111-2222-3333-4444-555555555555"}, "<uuid>11111111-2222-3333-4444-555555555555</uuid>"},
		"not a uuid":       {[]string{"--uuid", "x"}, "!not a UUID"},
		"trailing garbage": {[]string{"extra"}, "!unknown command"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{}, base...)
			for _, a := range tc.args {
				if a == "--devices" {
					// Flags of lists add up: leave the base's out.
					args = args[:4]
				}
			}
			out, err := render(t, append(args, tc.args...)...)
			if want, ok := strings.CutPrefix(tc.want, "!"); ok {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out, tc.want) {
				t.Errorf("no %q in\n%s", tc.want, out)
			}
			if name == "svg" {
				d := xml.NewDecoder(strings.NewReader(out))
				for {
					if _, err := d.Token(); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// TestRenderInventory renders from a NodeInventory object.
func TestRenderInventory(t *testing.T) {
	inv := write(t, "inv.yaml", `
apiVersion: kubevfio.io/v1alpha1
kind: NodeInventory
metadata: {name: node}
spec:
  launcher: {physAddrBits: 46}
  numaNodes:
  - {id: 0, cpus: "0-3", memoryMiB: 4096, distances: [10, 21]}
  - {id: 1, cpus: "4-7", memoryMiB: 4096, distances: [21, 10]}
  attachments:
  - {name: "pci0000:40"}
  - {name: "pci0000:80"}
  - {name: "0000:81:00.0", parent: 1}
  kinds:
  - {vendor: "1234", device: "1111", class: "038000"}
  - {vendor: "8086", device: "10ca", class: "020000"}
  units:
  - {id: "0000:41:10.0", kind: 1, at: 0, numa: 0, pf: "0000:41:00.0", vf: 0}
  - {id: "0000:83:00.0", members: ["0000:83:00.1"], kind: 0, at: 2, numa: 1}
`)
	spec := write(t, "vm.yaml", strings.Replace(labVM, "devices:", "devices:\n      pciTopology: Mirror", 1))
	out, err := render(t, "--spec", spec, "--inventory", inv, "--devices", "gpu=0000:83:00.0", "--devices", "fast=0000:41:10.0", "-o", "report")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"gpu (companion)  0000:83:00.1", "pci0000:80", "not known here"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	xml, err := render(t, "--spec", spec, "--inventory", inv, "--devices", "gpu=0000:83:00.0", "--devices", "fast=0000:41:10.0")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(xml, `model="pcie-switch-upstream-port"`) != 1 {
		t.Errorf("the switch is not mirrored in\n%s", xml)
	}
}
