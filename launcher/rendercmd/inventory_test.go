package rendercmd

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hostcmd"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/host/inventory"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/launcher/domain/domaintest"
	"github.com/kubevfio/kubevfio/topology"
)

func readMachine(t *testing.T, m *hosttest.Machine) *topology.Host {
	t.Helper()
	h, err := host.Read(t.Context(), m.Tree())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	js, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// TestAgentReport reads back what the agent's inventory writes: everything that
// a domain depends on must survive.
func TestAgentReport(t *testing.T) {
	for name, m := range map[string]*hosttest.Machine{
		"lab": hosttest.Lab(), "hgx": hosttest.HGX(), "desktop": hosttest.Desktop(), "big": hosttest.Big(64),
		"bare": hosttest.New(hosttest.Spec{NoIOMMU: true, NoIOMMUFD: true}),
	} {
		t.Run(name, func(t *testing.T) {
			want := readMachine(t, m)
			if name == "bare" {
				// Without a function the text is no host.
				if _, err := parse(marshal(t, hostcmd.NewReport(want))); err == nil || !strings.Contains(err.Error(), "no PCI functions") {
					t.Errorf("error %v", err)
				}
				return
			}
			got, err := hostOfReport(marshal(t, hostcmd.NewReport(want)))
			if err != nil {
				t.Fatal(err)
			}
			plain := func(h *topology.Host) topology.Host {
				out := *h
				out.CPUs, out.Functions, out.NUMANodes = nil, nil, nil
				for _, c := range h.CPUs {
					c.Core = -1 // told by the siblings
					out.CPUs = append(out.CPUs, c)
				}
				for _, n := range h.NUMANodes {
					n.MemFreeBytes = 0
					out.NUMANodes = append(out.NUMANodes, n)
				}
				for _, f := range h.Functions {
					f.DriverOverride, f.Modalias, f.IOMMUGroupType, f.Enabled = "", "", "", false
					f.SRIOV, f.VFs, f.TotalVFs, f.NumVFs = false, nil, 0, 0
					f.Net, f.RDMA, f.DRM, f.Block = nil, nil, nil, nil
					out.Functions = append(out.Functions, f)
				}
				return out
			}
			if d := cmp.Diff(plain(want), plain(got), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("the report loses (-) or invents (+):\n%s", d)
			}
		})
	}
}

// forms are the files in which people have a host.
func forms(t *testing.T, h *topology.Host) map[string]string {
	t.Helper()
	report := marshal(t, hostcmd.NewReport(h))
	asYAML, err := yaml.JSONToYAML(report)
	if err != nil {
		t.Fatal(err)
	}
	var pools []v1alpha1.DevicePool
	for name, device := range map[string]string{"gpu": "2335", "vf": "101e"} {
		p := v1alpha1.DevicePool{Spec: v1alpha1.DevicePoolSpec{ResourceName: "example.com/" + name, Selectors: []v1alpha1.DeviceSelector{{Devices: []string{device}}}}}
		p.Name = name
		pools = append(pools, p)
	}
	sel := pool.Select(pool.Input{Pools: pools, Host: h, Units: topology.Units(h)})
	inv := v1alpha1.NodeInventory{
		TypeMeta:   metav1.TypeMeta{APIVersion: "kubevfio.io/v1alpha1", Kind: "NodeInventory"},
		ObjectMeta: metav1.ObjectMeta{Name: "node"},
		Spec:       inventory.Build(inventory.Input{Host: h, Selection: &sel}),
	}
	object := marshal(t, inv)
	objectYAML, err := yaml.JSONToYAML(object)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"report.json": string(report), "report.yaml": string(asYAML),
		"object.json": string(object), "object.yaml": string(objectYAML),
		"list.json": fmt.Sprintf(`{"apiVersion":"v1","kind":"List","items":[%s]}`, object),
		"spec.json": string(marshal(t, inv.Spec)),
	}
}

// TestForms renders the same VM from each form of the same host.
func TestForms(t *testing.T) {
	h := readMachine(t, hosttest.HGX())
	spec := write(t, "vm.yaml", `
domain:
  cpu: {cores: 4, threads: 2, dedicatedCpuPlacement: true}
  memory: {guest: 64Gi}
  devices:
    ncclTopology: true
    gpus: [{name: a, deviceName: gpu}, {name: b, deviceName: gpu}]
    interfaces: [{name: nic, sriov: {deviceName: vf}}]
`)
	outs := map[string]string{}
	for name, text := range forms(t, h) {
		out, err := render(t, "--spec", spec, "--inventory", write(t, name, text),
			"--devices", "gpu=0000:13:00.0,0000:2b:00.0,nic=0000:14:00.4", "--cpus", "0-3,96-99")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, p := range domaintest.Placement(out, h) {
			t.Errorf("%s: %s", name, p)
		}
		domaintest.Schema(t, out)
		outs[name] = out
	}
	for _, pair := range [][2]string{{"report.json", "report.yaml"}, {"object.json", "object.yaml"}, {"object.json", "list.json"}, {"object.json", "spec.json"}} {
		if d := cmp.Diff(outs[pair[0]], outs[pair[1]]); d != "" {
			t.Errorf("%s and %s differ:\n%s", pair[0], pair[1], d)
		}
	}
}

func TestHostErrors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"another kind":  {`{"kind": "Pod"}`, `kind "Pod": want`},
		"nothing":       {`{}`, "no PCI functions"},
		"two nodes":     {`{"kind": "List", "items": [{}, {}]}`, "a list of 2 objects"},
		"bad class":     {`{"functions": [{"address": "0000:01:00.0", "class": "display"}]}`, `functions[0]: 0000:01:00.0: class: "display"`},
		"bad address":   {`{"functions": [{"address": "01:00.0"}]}`, "not a PCI address"},
		"twice":         {`{"functions": [{"address": "0000:01:00.0"}, {"address": "0000:01:00.0"}]}`, "0000:01:00.0 is there twice"},
		"not an object": {`[1]`, "cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"functions": [{"address": "0000:01:00.0", "class": "030000", "numaNode": 1}], "numaNodes": [{"id": 1, "cpus": [1], "cores": [[1]]}]}`)
	f.Add(`{"kind": "NodeInventory", "spec": {"attachments": [{"name": "pci0000:00"}], "units": [{"id": "0000:01:00.0", "at": 0}]}}`)
	f.Add("kind: List\nitems: [{}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parse([]byte(text))
		if (l == nil) == (err == nil) {
			t.Fatalf("loaded %v, error %v", l, err)
		}
	})
}
