package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
	"github.com/kubevfio/kubevfio/deviceplugin/tenancy"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
)

// handing is an agent's loop between two looks: one GPU is offered and well, the
// other is still with its host driver.
func handing(t *testing.T) (a *Agent, p *picture, well, other topology.Address, k *hosttest.Kernel) {
	t.Helper()
	m := hosttest.New(hosttest.Spec{Cores: 4, MemoryMiB: 8 << 10})
	root := m.Root(0, 0, topology.NUMAUnknown)
	gpu := hosttest.Fn{Vendor: 0x1002, Device: 0x73bf, Class: 0x030000, Driver: "vfio-pci", Resets: "bus"}
	root.Port().Add(gpu)
	gpu.Driver = "amdgpu"
	root.Port().Add(gpu)
	k = hosttest.NewKernel(m, "vfio-pci")
	h, err := host.Read(t.Context(), k.Tree)
	if err != nil {
		t.Fatal(err)
	}
	for i := range h.Functions {
		switch f := &h.Functions[i]; f.Driver {
		case "vfio-pci":
			well = f.Address
		case "amdgpu":
			other = f.Address
		}
	}
	dir := t.TempDir()
	dev := filepath.Join(dir, "dev")
	if err := os.MkdirAll(filepath.Join(dev, "vfio"), 0o755); err != nil {
		t.Fatal(err)
	}
	p = &picture{host: h, units: topology.Units(h), node: &corev1.Node{}, faults: map[topology.Address]string{}, unitOf: map[topology.Address]*topology.Unit{}}
	for i := range p.units {
		u := &p.units[i]
		p.unitOf[u.ID] = u
		if u.Group >= 0 {
			if err := os.WriteFile(filepath.Join(dev, "vfio", strconv.Itoa(u.Group)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	pools := []v1alpha1.DevicePool{{Spec: v1alpha1.DevicePoolSpec{ResourceName: "example.com/gpu", Selectors: []v1alpha1.DeviceSelector{{Vendors: []string{"1002"}}}}}}
	p.selection = pool.Select(pool.Input{Pools: pools, Host: h, Units: p.units})
	a = &Agent{cfg: Config{HostDev: dev, StateDir: dir, Log: slog.New(slog.DiscardHandler)}, fs: k.Tree, picture: p}
	a.told.file = filepath.Join(dir, "groups.json")
	a.early = &early{file: filepath.Join(dir, "pools.json")}
	a.keeper = tenancy.New(tenancy.Config{})
	a.ledger = handoff.New(handoff.Config{Node: "n", Informer: noPods{}})
	return a, p, well, other, k
}

type noPods struct{}

func (noPods) Pods(context.Context) ([]handoff.Pod, error) { return nil, nil }

func TestHanded(t *testing.T) {
	const gpu = "example.com/gpu"
	for name, tc := range map[string]struct {
		resource string
		unit     func(well, other topology.Address) string
		before   func(*testing.T, *Agent, *hosttest.Kernel)
		settled  bool
	}{
		"given":                   {resource: gpu, settled: true},
		"reset":                   {settled: true},
		"not offered yet":         {resource: gpu, unit: func(_, other topology.Address) string { return other.String() }},
		"of another resource":     {resource: "example.com/old"},
		"a slot of a device file": {resource: gpu, unit: func(_, _ topology.Address) string { return "kvm-1" }},
		"the device node has gone": {before: func(t *testing.T, a *Agent, _ *hosttest.Kernel) {
			if err := os.RemoveAll(filepath.Join(a.cfg.HostDev, "vfio")); err != nil {
				t.Fatal(err)
			}
		}},
		"it was known to be ill and is well": {before: func(_ *testing.T, a *Agent, _ *hosttest.Kernel) {
			for _, o := range a.picture.selection.Pools[0].Offers {
				a.picture.faults[o.Unit.ID] = "all ones"
			}
		}},
		"the folder of the state is gone": {resource: gpu, before: func(t *testing.T, a *Agent, _ *hosttest.Kernel) {
			if err := os.RemoveAll(a.cfg.StateDir); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a, p, well, other, k := handing(t)
			if tc.before != nil {
				tc.before(t, a, k)
			}
			unit := well.String()
			if tc.unit != nil {
				unit = tc.unit(well, other)
			}
			a.ledger.Restore([]handoff.Claim{{PodUID: "u", Namespace: "ns", Name: "vm", Container: "c", Resource: gpu, IDs: []string{unit}}})
			a.hands.add(tc.resource, unit)
			select {
			case <-a.hands.changed():
			default:
				t.Fatal("nobody is woken")
			}
			if got := a.handed(p); got != tc.settled {
				t.Errorf("settled: %v, want %v", got, tc.settled)
			}
			if left := a.hands.take(); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
			b, err := os.ReadFile(a.memoryFile())
			if tc.settled && (err != nil || len(b) == 0) {
				t.Errorf("the claim is not written down: %v", err)
			}
		})
	}
	a, _, well, _, _ := handing(t)
	a.hands.add(gpu, well.String())
	if a.handed(nil) {
		t.Error("settled without a look at the node")
	}
}

// TestDeviceNodes: a unit's nodes of iommufd's way are those that the host has.
func TestDeviceNodes(t *testing.T) {
	a, p, well, other, _ := handing(t)
	name := p.host.Function(well).VFIODev
	if name == "" {
		t.Fatal("the test's kernel has no iommufd")
	}
	if got := a.deviceNodes(p, p.unitOf[well]); len(got) > 0 {
		t.Errorf("without a node: %v", got)
	}
	dir := filepath.Join(a.cfg.HostDev, "vfio", "devices")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := a.deviceNodes(p, p.unitOf[well]); len(got) != 1 || got[0] != name {
		t.Errorf("got %v, want %s", got, name)
	}
	if got := a.deviceNodes(p, p.unitOf[other]); len(got) > 0 {
		t.Errorf("of a unit that VFIO does not have: %v", got)
	}
	p.host.IOMMUFD = false
	if got := a.deviceNodes(p, p.unitOf[well]); len(got) > 0 {
		t.Errorf("without iommufd: %v", got)
	}
}
