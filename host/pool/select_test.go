package pool_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
)

// mk makes a pool from a spec.
func mk(name string, spec v1alpha1.DevicePoolSpec) v1alpha1.DevicePool {
	p := v1alpha1.DevicePool{Spec: spec}
	p.Name = name
	if p.Spec.ResourceName == "" {
		p.Spec.ResourceName = "example.com/" + name
	}
	return p
}

func sel(s v1alpha1.DeviceSelector) []v1alpha1.DeviceSelector { return []v1alpha1.DeviceSelector{s} }

// describe puts a selection in words: per pool its units (with "!" when they
// can never be ready, "-" when not ready now), PFs, losses and reasons.
func describe(s pool.Selection) []string {
	var out []string
	for _, p := range s.Pools {
		line := p.Pool.Name + ":"
		for _, o := range p.Offers {
			line += " " + o.Unit.ID.String()
			switch {
			case o.Never:
				line += "!"
			case o.NotReady != "":
				line += "-"
			}
		}
		for _, f := range p.PFs {
			line += fmt.Sprintf(" PF %s=%d", f.Address, f.Count)
		}
		for _, l := range p.Lost {
			line += fmt.Sprintf(" lost %s to %s", l.Address, l.Winner)
		}
		for _, r := range p.Reasons {
			line += " (" + r + ")"
		}
		out = append(out, line)
	}
	return out
}

func TestSelect(t *testing.T) {
	type S = v1alpha1.DeviceSelector
	type P = v1alpha1.DevicePoolSpec
	cases := map[string]struct {
		machine *hosttest.Machine
		labels  map[string]string
		former  map[string]string
		pools   []v1alpha1.DevicePool
		want    []string
	}{
		"GPU with its audio, by vendor": {
			machine: hosttest.Lab(),
			pools:   []v1alpha1.DevicePool{mk("gpu", P{Selectors: sel(S{Vendors: []string{"1234"}, Devices: []string{"1111"}})})},
			want:    []string{"gpu: 0000:62:00.0"},
		},
		"a companion's class selects nothing": {
			machine: hosttest.Lab(),
			pools:   []v1alpha1.DevicePool{mk("audio", P{Selectors: sel(S{Classes: []string{"0403"}})})},
			want:    []string{"audio:"},
		},
		"companions refused": {
			machine: hosttest.Lab(),
			pools:   []v1alpha1.DevicePool{mk("gpu", P{Companions: "Refuse", Selectors: sel(S{Classes: []string{"03"}})})},
			want:    []string{"gpu: 0000:62:00.0!"},
		},
		"class in upper case and full length": {
			machine: hosttest.Desktop(),
			pools:   []v1alpha1.DevicePool{mk("usb", P{Selectors: sel(S{Classes: []string{"0C0330"}})})},
			want:    []string{"usb: 0000:02:00.0-"}, // the USB card is a primary of the GPU's unit
		},
		"VFs by PF name and range": {
			machine: hosttest.Lab(),
			pools:   []v1alpha1.DevicePool{mk("vf", P{VFs: &v1alpha1.VFSpec{Count: 7}, Selectors: sel(S{PFNames: []string{"enp65s0#0,2-3"}})})},
			want:    []string{"vf: 0000:41:00.4 0000:41:00.6 0000:41:00.7 PF 0000:41:00.0=7"},
		},
		"VFs by root device, two pools share the PF": {
			machine: hosttest.Lab(),
			pools: []v1alpha1.DevicePool{
				mk("b", P{VFs: &v1alpha1.VFSpec{Count: 7}, Selectors: sel(S{RootDevices: []string{"0000:41:00.0#5-6"}})}),
				mk("a", P{VFs: &v1alpha1.VFSpec{Count: 7}, Selectors: sel(S{RootDevices: []string{"0000:41:00.0#4-5"}})}),
			},
			want: []string{
				"a: 0000:41:01.0 0000:41:01.1 PF 0000:41:00.0=7",
				"b: 0000:41:01.2 lost 0000:41:01.1 to a",
			},
		},
		"priority beats name": {
			machine: hosttest.Lab(),
			pools: []v1alpha1.DevicePool{
				mk("a", P{Selectors: sel(S{Addresses: []string{"0000:A2:00.0"}})}),
				mk("z", P{Priority: 1, Selectors: sel(S{Vendors: []string{"1234"}})}),
			},
			want: []string{"z: 0000:62:00.0 0000:a2:00.0", "a: lost 0000:a2:00.0 to z"},
		},
		"PF kept for its VFs": {
			machine: hosttest.Lab(),
			pools: []v1alpha1.DevicePool{
				mk("vf", P{Priority: 1, VFs: &v1alpha1.VFSpec{Count: 2}, Selectors: sel(S{PFNames: []string{"enp97s0"}})}),
				mk("whole", P{Selectors: sel(S{Addresses: []string{"0000:61:00.0"}})}),
			},
			want: []string{
				"vf: 0000:61:00.4 0000:61:00.5 0000:61:00.6 0000:61:00.7 0000:61:01.0 0000:61:01.1 0000:61:01.2 PF 0000:61:00.0=2",
				"whole: lost 0000:61:00.0 to vf",
			},
		},
		"too many VFs, and no SR-IOV at all": {
			machine: hosttest.Lab(),
			pools: []v1alpha1.DevicePool{mk("vf", P{VFs: &v1alpha1.VFSpec{Count: 8}, Selectors: []S{
				{RootDevices: []string{"0000:41:00.0"}}, {Addresses: []string{"0000:62:00.0"}}}})},
			want: []string{"vf: (0000:41:00.0 can have 7 virtual functions, spec.vfs.count asks for 8)" +
				" (0000:62:00.0 has no SR-IOV capability: leave spec.vfs out to offer it as a whole)"},
		},
		"existing VFs without spec.vfs, physical function left out": {
			machine: hosttest.Desktop(),
			pools:   []v1alpha1.DevicePool{mk("vgpu", P{Selectors: sel(S{Vendors: []string{"10DE"}, Devices: []string{"2236"}})})},
			want:    []string{"vgpu: 0000:09:00.4- 0000:09:00.5-"},
		},
		"physical function with VFs, named by address": {
			machine: hosttest.Desktop(),
			pools:   []v1alpha1.DevicePool{mk("pf", P{Selectors: sel(S{Addresses: []string{"0000:09:00.0"}})})},
			want:    []string{"pf: 0000:09:00.0!"},
		},
		"keep takes only what is bound": {
			machine: hosttest.Desktop(),
			pools:   []v1alpha1.DevicePool{mk("gpu", P{Driver: "keep", Selectors: sel(S{Addresses: []string{"0000:01:00.0"}})})},
			want:    []string{"gpu: 0000:01:00.0!"},
		},
		"blocked unit": {
			machine: hosttest.Desktop(),
			pools:   []v1alpha1.DevicePool{mk("lan", P{Selectors: sel(S{Drivers: []string{"e1000e"}})})},
			want:    []string{"lan: 0000:00:1f.3!"},
		},
		"driver that it had before ours": {
			machine: hosttest.Lab(),
			former:  map[string]string{"0000:a2:00.0": "edu"},
			pools:   []v1alpha1.DevicePool{mk("edu", P{Selectors: sel(S{Drivers: []string{"edu"}})})},
			want:    []string{"edu: 0000:a2:00.0"},
		},
		"another variant driver is wanted": {
			machine: hosttest.Lab(),
			pools:   []v1alpha1.DevicePool{mk("edu", P{Driver: "edu_vfio_pci", Selectors: sel(S{Devices: []string{"11e8"}})})},
			want:    []string{"edu: 0000:a2:00.0-"},
		},
		"node selector": {
			machine: hosttest.Lab(),
			labels:  map[string]string{"zone": "a"},
			pools: []v1alpha1.DevicePool{
				mk("here", P{NodeSelector: map[string]string{"zone": "a"}, Selectors: sel(S{Devices: []string{"11e8"}})}),
				mk("there", P{Priority: 9, NodeSelector: map[string]string{"zone": "b"}, Selectors: sel(S{Devices: []string{"11e8"}})}),
			},
			want: []string{"here: 0000:a2:00.0"},
		},
		"slots have no units": {
			machine: hosttest.Lab(),
			pools:   []v1alpha1.DevicePool{mk("kvm", P{Slot: &v1alpha1.SlotSpec{HostPath: "/dev/kvm", Count: 10}})},
			want:    []string{"kvm:"},
		},
		"a selector that cannot be read says so": {
			machine: hosttest.Lab(),
			pools:   []v1alpha1.DevicePool{mk("bad", P{Selectors: []S{{PFNames: []string{"eth0#x"}}, {Devices: []string{"11e8"}}}})},
			want:    []string{`bad: 0000:a2:00.0 (spec.selectors[0].pfNames: invalid selector: "eth0#x": want VF numbers such as 0,2-7 after '#', not "x")`},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h, err := host.Read(context.Background(), c.machine.Tree())
			if err != nil {
				t.Fatal(err)
			}
			former := map[topology.Address]string{}
			for a, d := range c.former {
				x, err := topology.ParseAddress(a)
				if err != nil {
					t.Fatal(err)
				}
				former[x] = d
			}
			got := pool.Select(pool.Input{Pools: c.pools, Host: h, Units: topology.Units(h), Labels: c.labels, Former: former})
			if d := cmp.Diff(c.want, describe(got)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			// The order of the input does not matter.
			slices.Reverse(c.pools)
			if d := cmp.Diff(c.want, describe(pool.Select(pool.Input{Pools: c.pools, Host: h, Units: topology.Units(h), Labels: c.labels, Former: former}))); d != "" {
				t.Errorf("in reverse order (-want +got):\n%s", d)
			}
		})
	}
}

func TestFind(t *testing.T) {
	h, err := host.Read(context.Background(), hosttest.Lab().Tree())
	if err != nil {
		t.Fatal(err)
	}
	s := pool.Select(pool.Input{Host: h, Units: topology.Units(h), Pools: []v1alpha1.DevicePool{
		mk("vf", v1alpha1.DevicePoolSpec{Selectors: sel(v1alpha1.DeviceSelector{Devices: []string{"10ca"}})}),
		mk("gpu", v1alpha1.DevicePoolSpec{Selectors: sel(v1alpha1.DeviceSelector{Classes: []string{"03"}})}),
	}})
	for i := range h.Functions {
		f := &h.Functions[i]
		p, o := s.Find(f.Address)
		want := map[uint16]string{0x10ca: "vf", 0x1111: "gpu"}[f.Device]
		switch {
		case want == "" && p != nil:
			t.Errorf("%s is in pool %s", f.Address, p.Pool.Name)
		case want != "" && (p == nil || p.Pool.Name != want || o.Unit.ID != f.Address):
			t.Errorf("%s is not in pool %s", f.Address, want)
		}
	}
	if got := s.Resources(); !slices.Equal(got, []string{"example.com/gpu", "example.com/vf"}) {
		t.Errorf("resources %v", got)
	}
}

func FuzzParseVFRange(f *testing.F) {
	for _, s := range []string{"eth2", "eth2#0,2-7", "0000:86:00.0#0-1,3", "#1", "a#", "a#9-1", "a#0-99999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, vfs, err := pool.ParseVFRange(s)
		if err != nil {
			return
		}
		if name == "" || strings.Contains(name, "#") || !slices.IsSorted(vfs) || (vfs == nil) != !strings.Contains(s, "#") {
			t.Errorf("%q: %q %v", s, name, vfs)
		}
	})
}
