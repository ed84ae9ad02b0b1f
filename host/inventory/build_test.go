package inventory_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/host/inventory"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
)

func pools() []v1alpha1.DevicePool {
	mk := func(name string, s v1alpha1.DeviceSelector) v1alpha1.DevicePool {
		p := v1alpha1.DevicePool{Spec: v1alpha1.DevicePoolSpec{ResourceName: "example.com/" + name, Selectors: []v1alpha1.DeviceSelector{s}}}
		p.Name = name
		return p
	}
	return []v1alpha1.DevicePool{
		mk("h200", v1alpha1.DeviceSelector{Devices: []string{"2335"}}),
		mk("ib-vf", v1alpha1.DeviceSelector{Devices: []string{"101e"}}),
		mk("nvswitch", v1alpha1.DeviceSelector{Devices: []string{"22a3"}}),
	}
}

// input reads a machine and selects.
func input(t *testing.T, m *hosttest.Machine) inventory.Input {
	t.Helper()
	h, err := host.Read(context.Background(), m.Tree())
	if err != nil {
		t.Fatal(err)
	}
	s := pool.Select(pool.Input{Pools: pools(), Host: h, Units: topology.Units(h)})
	return inventory.Input{
		Host: h, Selection: &s, AgentVersion: "v0.0.0-test",
		Kubelet:  v1alpha1.KubeletPolicy{TopologyManagerPolicy: "restricted", CPUManagerPolicy: "static", MemoryManagerPolicy: "Static", ReservedCPUs: "0-3"},
		Launcher: v1alpha1.LauncherSupport{Seccomp: true, KVM: true},
		Product:  func(uint16, uint16) string { return "a product name of usual length" },
	}
}

func size(t *testing.T, spec v1alpha1.NodeInventorySpec) int {
	t.Helper()
	b, err := json.Marshal(v1alpha1.NodeInventory{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	return len(b)
}

// TestSize holds the design's bounds, also when nothing is ready and every unit
// has a reason.
func TestSize(t *testing.T) {
	for _, c := range []struct{ vfs, limit int }{{64, 24 << 10}, {1024, 256 << 10}} {
		t.Run(fmt.Sprint(c.vfs), func(t *testing.T) {
			in := input(t, hosttest.Big(c.vfs))
			spec := inventory.Build(in)
			if want := int32(8 + c.vfs); spec.Summary.Units != want || spec.Summary.Ready != want {
				t.Fatalf("summary %+v, want %d ready units", spec.Summary, want)
			}
			healthy := size(t, spec)
			in.Faults = map[topology.Address]string{}
			for i := range in.Host.Functions {
				in.Faults[in.Host.Functions[i].Address] = in.Host.Functions[i].Address.String() + ": stuck in the kernel: an earlier write has not returned"
			}
			sick := inventory.Build(in)
			if sick.Summary.Ready != 0 || sick.Summary.Problem == "" {
				t.Fatalf("summary %+v", sick.Summary)
			}
			t.Logf("%d bytes healthy, %d with a reason for each unit, limit %d", healthy, size(t, sick), c.limit)
			if healthy >= c.limit || size(t, sick) >= c.limit {
				t.Errorf("%d and %d bytes, limit %d", healthy, size(t, sick), c.limit)
			}
		})
	}
}

func TestBuild(t *testing.T) {
	in := input(t, hosttest.HGX())
	spec := inventory.Build(in)
	if d := cmp.Diff(spec, inventory.Build(input(t, hosttest.HGX()))); d != "" {
		t.Errorf("the same host gives two inventories:\n%s", d)
	}
	units := map[string]v1alpha1.InventoryUnit{}
	for _, u := range spec.Units {
		units[u.ID] = u
	}
	gpu := units["0000:13:00.0"]
	if spec.Kinds[gpu.Kind].Device != "2335" || spec.Kinds[gpu.Kind].Class != "030200" || spec.Resources[*gpu.Resource] != "example.com/h200" || *gpu.NUMA != 0 {
		t.Errorf("GPU: %+v of kind %+v", gpu, spec.Kinds[gpu.Kind])
	}
	at := spec.Attachments[gpu.At]
	if at.Name != "0000:11:00.0" || at.Parent == nil || spec.Attachments[*at.Parent].Name != "pci0000:10" || spec.Attachments[*at.Parent].Parent != nil {
		t.Errorf("GPU hangs at %+v", at)
	}
	vf := units["0000:14:00.7"]
	if vf.PF != "0000:14:00.0" || vf.VF == nil || *vf.VF != 3 || vf.At != gpu.At {
		t.Errorf("VF: %+v", vf)
	}
	sw := units["0000:e3:00.0"]
	if sw.Size != 4 || len(sw.Members) != 3 {
		t.Errorf("NVSwitches: %+v", sw)
	}
	n := spec.NUMANodes[3]
	if *n.Socket != 1 || n.CPUs != "72-95,168-191" || n.MemoryMiB != 512<<10 || n.Hugepages["2Mi"] != 1024 || n.Hugepages["1Gi"] != 256 {
		t.Errorf("node 3: %+v", n)
	}
	if !spec.Launcher.IOMMUFD || spec.Launcher.PhysAddrBits != 52 || !spec.Launcher.KVM {
		t.Errorf("launcher: %+v", spec.Launcher)
	}
	for i, a := range spec.Attachments {
		if a.Parent != nil && int(*a.Parent) >= i {
			t.Errorf("attachment %s comes before its parent", a.Name)
		}
	}
}
