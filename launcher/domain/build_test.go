package domain

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/launcher/domain/domaintest"
	"github.com/kubevfio/kubevfio/topology"
)

var update = flag.Bool("update", false, "write the golden files")

const testUUID = "11111111-2222-3333-4444-555555555555"

func addr(t testing.TB, s string) topology.Address {
	t.Helper()
	a, err := topology.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func decode(t testing.TB, text string) *v1alpha1.VirtualMachineInstanceSpec {
	t.Helper()
	s, err := vmspec.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (run with -update):\n%s", name, d)
	}
}

func schemaCheck(t *testing.T, xml string) {
	t.Helper()
	domaintest.Schema(t, xml)
}

func TestThin(t *testing.T) {
	h := &topology.Host{
		NUMANodes: []topology.NUMANode{{ID: 0, CPUs: []int{0}, Distances: []int{10, 20}}, {ID: 1, CPUs: []int{1}, Distances: []int{20, 10}}},
		CPUs:      []topology.CPU{{ID: 0, NUMA: 0, Siblings: []int{0}}, {ID: 1, NUMA: 1, Siblings: []int{1}}},
		Functions: []topology.Function{{
			Address: addr(t, "0000:81:10.0"), Class: 0x020000, NUMA: 1, Root: "pci0000:80", IOMMUGroup: 3,
			BARs: []topology.BAR{{Index: 0, Bytes: 16384, Is64: true, Prefetchable: true}, {Index: 3, Bytes: 16384, Is64: true, Prefetchable: true}},
		}},
		PhysAddrBits: 40,
	}
	pf := addr(t, "0000:81:00.0")
	h.Functions[0].PF = &pf
	dom, rep, err := Build(Input{
		Name: "ns_vm", UUID: testUUID, Host: h,
		Spec: decode(t, `
domain:
  cpu: {cores: 1}
  memory: {guest: 256Mi}
  firmware: {kernelBoot: {kernelArgs: console=ttyS0, container: {kernelPath: /guest/boot/vmlinuz, initrdPath: /guest/boot/initrd}}}
  devices:
    interfaces:
    - {name: fast, sriov: {deviceName: kubevfio.io/igb-vf}}
    - {name: default, passt: {}}
networks:
- {name: default, pod: {}}
`),
		Devices: []Device{{Name: "fast", Members: []topology.Address{addr(t, "0000:81:10.0")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	xml, err := dom.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	schemaCheck(t, xml)
	golden(t, "thin.xml", xml+"\n")
	if rep.MemoryLockBytes != 256<<20+1<<30 {
		t.Errorf("lock limit %d", rep.MemoryLockBytes)
	}
}

// checkPlacement holds a domain against the host that it is for.
func checkPlacement(t testing.TB, xml string, h *topology.Host) {
	t.Helper()
	problems := domaintest.Placement(xml, h)
	for _, p := range problems {
		t.Error(p)
	}
	if len(problems) > 0 {
		t.Log(xml)
	}
}

func parseSet(s string) []int {
	ids, err := host.ParseList(s)
	if err != nil {
		panic(err)
	}
	return ids
}

// TestUnitOverTwoRoots gives a guest a unit of which the functions hang on two
// root complexes of two NUMA nodes: each goes below its own.
func TestUnitOverTwoRoots(t *testing.T) {
	h, devices, spec := shapeOf([]byte{0, 1, 5}, 2)
	devices[0].Members = append(devices[0].Members, devices[1].Members...)
	devices = slices.Delete(devices, 1, 2)
	spec.Domain.Devices.HostDevices = slices.Delete(spec.Domain.Devices.HostDevices, 1, 2)
	dom, report, err := Build(Input{Name: "vm", UUID: testUUID, Host: h, Spec: spec, Devices: devices, Paths: testPaths()})
	if err != nil {
		t.Fatal(err)
	}
	xml, err := dom.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	schemaCheck(t, xml)
	checkPlacement(t, xml, h)
	if len(report.Expanders) != 3 || len(report.Cells) != 2 {
		t.Errorf("%d expanders and %d cells, want 3 and 2", len(report.Expanders), len(report.Cells))
	}
	for _, d := range report.Devices {
		if d.Cell == nil || *d.Cell != d.NUMA {
			t.Errorf("%s of host node %d is in cell %v", d.Host, d.NUMA, d.Cell)
		}
	}
}

func quantity(s string) *resource.Quantity {
	q := resource.MustParse(s)
	return &q
}

func sortFunctions(h *topology.Host) {
	slices.SortFunc(h.Functions, func(a, b topology.Function) int { return a.Address.Compare(b.Address) })
}
