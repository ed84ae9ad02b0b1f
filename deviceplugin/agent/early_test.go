package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/bind"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
)

// booted is a machine right after a boot: a GPU, a physical function without
// virtual ones, and with more a second GPU that came meanwhile.
func booted(more bool) *hosttest.Kernel {
	m := hosttest.New(hosttest.Spec{Cores: 4, MemoryMiB: 8 << 10})
	root := m.Root(0, 0, topology.NUMAUnknown)
	gpu := hosttest.Fn{Vendor: 0x1002, Device: 0x73bf, Class: 0x030000, Driver: "amdgpu", Resets: "bus"}
	root.Port().Add(gpu)
	root.Port().Add(hosttest.Fn{Vendor: 0x8086, Device: 0x10c9, Class: 0x020000, Driver: "igb", TotalVFs: 7, Net: []string{"enp2s0"}})
	if more {
		root.Port().Add(gpu)
	}
	return hosttest.NewKernel(m, "vfio-pci", "igbvf")
}

// makeEarly is an agent's process: what it knows of former ones is in dir.
func makeEarly(t *testing.T, dir string, k *hosttest.Kernel) *early {
	t.Helper()
	state, err := host.OpenState(filepath.Join(dir, "former.json"))
	if err != nil {
		t.Fatal(err)
	}
	w := host.NewWriter(host.WriterConfig{FS: k.Tree, Attrs: k, State: state})
	return &early{
		file: filepath.Join(dir, "pools.json"), fs: k.Tree, state: state, writer: w,
		binder: bind.New(bind.Config{Writer: w}), log: slog.New(slog.DiscardHandler),
	}
}

func (e *early) selected(t *testing.T, pools []v1alpha1.DevicePool) (*topology.Host, pool.Selection) {
	t.Helper()
	h, err := host.Read(t.Context(), e.fs)
	if err != nil {
		t.Fatal(err)
	}
	return h, pool.Select(pool.Input{Pools: pools, Host: h, Units: topology.Units(h), Former: e.state.Former(h)})
}

// drivers are those of all functions that are no bridges, by address.
func drivers(t *testing.T, k *hosttest.Kernel) string {
	t.Helper()
	h, err := host.Read(t.Context(), k.Tree)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range h.Functions {
		if f := &h.Functions[i]; !f.Transparent() {
			out = append(out, f.Driver)
		}
	}
	return strings.Join(out, " ")
}

func TestEarly(t *testing.T) {
	gpus := v1alpha1.DevicePool{Spec: v1alpha1.DevicePoolSpec{ResourceName: "example.com/gpu", Selectors: []v1alpha1.DeviceSelector{{Vendors: []string{"1002"}}}}}
	gpus.Name = "gpus"
	vfs := v1alpha1.DevicePool{Spec: v1alpha1.DevicePoolSpec{ResourceName: "example.com/vf", VFs: &v1alpha1.VFSpec{Count: 2}, Selectors: []v1alpha1.DeviceSelector{{PFNames: []string{"enp2s0"}}}}}
	vfs.Name = "vfs"
	all := []v1alpha1.DevicePool{gpus, vfs}

	// The first boot: by the pools' word.
	dir, ctx := t.TempDir(), context.Background()
	k := booted(false)
	e := makeEarly(t, dir, k)
	for range 3 {
		h, sel := e.selected(t, all)
		if r := e.binder.Reconcile(ctx, h, &sel, false); len(r.Reasons) > 0 {
			t.Fatal(r.Reasons)
		}
	}
	const ready = "vfio-pci igb vfio-pci vfio-pci"
	if got := drivers(t, k); got != ready {
		t.Fatalf("the first boot has the drivers %s", got)
	}
	keep := func(paused bool) {
		t.Helper()
		_, sel := e.selected(t, all)
		if err := e.keep("first", &picture{selection: sel, node: &corev1.Node{}, paused: paused}); err != nil {
			t.Fatal(err)
		}
	}
	keep(true)
	if makeEarly(t, dir, k).due("second") != nil {
		t.Error("a paused node is prepared")
	}
	keep(false)
	if makeEarly(t, dir, k).due("first") != nil {
		t.Error("a restart of the agent alone is taken for a boot")
	}

	// The second: before the pools' word, and a card that is new waits.
	boot := func(t *testing.T) (*hosttest.Kernel, *early) {
		t.Helper()
		own := t.TempDir()
		if err := os.CopyFS(own, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		k := booted(true)
		e := makeEarly(t, own, k)
		plan := e.due("second")
		if plan == nil {
			t.Fatal("nothing is prepared after a boot")
		}
		if r := e.prepare(ctx, plan); len(r.Reasons) > 0 || !r.Changed {
			t.Fatalf("prepared: %+v", r)
		}
		if got, want := drivers(t, k), ready+" amdgpu"; got != want {
			t.Fatalf("the second boot has the drivers %s, want %s", got, want)
		}
		return k, e
	}
	for name, tc := range map[string]struct {
		pools  []v1alpha1.DevicePool
		paused bool
		other  bool // somebody else takes the new card for VFIO meanwhile
		want   string
	}{
		"same pools":                {pools: all, want: ready + " amdgpu"},
		"a pool is gone":            {pools: all[:1], want: "vfio-pci igb amdgpu"},
		"the other pool":            {pools: all[1:], want: "amdgpu igb vfio-pci vfio-pci amdgpu"},
		"none is left":              {want: "amdgpu igb amdgpu"},
		"another's is not ours":     {other: true, want: "amdgpu igb vfio-pci"},
		"none is left, but not now": {paused: true, want: ready + " amdgpu"},
	} {
		t.Run(name, func(t *testing.T) {
			k, e := boot(t)
			if tc.other {
				h, _ := e.selected(t, nil)
				last := h.Functions[len(h.Functions)-1].Address
				if err := e.writer.Bind(ctx, last, "vfio-pci"); err != nil {
					t.Fatal(err)
				}
			}
			_, sel := e.selected(t, tc.pools)
			e.takeBack(ctx, &sel, tc.paused)
			if got := drivers(t, k); got != tc.want {
				t.Errorf("drivers %s, want %s", got, tc.want)
			}
			if e.takeBack(ctx, &pool.Selection{}, false) {
				t.Error("taken back twice")
			}
		})
	}
}
