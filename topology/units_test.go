package topology_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kubevfio/kubevfio/topology"
)

func at(s string) topology.Address {
	a, err := topology.ParseAddress(s)
	if err != nil {
		panic(err) // a test's own literal
	}
	return a
}

// fn makes a function on a root port of its own.
func fn(addr string, class uint32, group int, path ...string) topology.Function {
	f := topology.Function{Address: at(addr), Class: class, IOMMUGroup: group, NUMA: 0, Root: "pci0000:00", VFIndex: -1}
	for _, p := range path {
		f.Path = append(f.Path, at(p))
	}
	return f
}

func TestUnits(t *testing.T) {
	pf := at("0000:03:00.0")
	vf := fn("0000:03:00.1", 0x020000, 1, "0000:00:03.0")
	vf.PF, vf.VFIndex = &pf, 0
	cases := map[string]struct {
		functions []topology.Function
		want      []string // "id primaries/members [blocked by]"
	}{
		"GPU with audio, USB and UCSI": {
			[]topology.Function{
				fn("0000:00:01.0", 0x060400, 1), fn("0000:01:00.0", 0x030000, 1, "0000:00:01.0"), fn("0000:01:00.1", 0x040300, 1, "0000:00:01.0"),
				fn("0000:01:00.2", 0x0c0330, 1, "0000:00:01.0"), fn("0000:01:00.3", 0x0c8000, 1, "0000:00:01.0"),
			},
			[]string{"0000:01:00.0 1/4 "},
		},
		"two NICs of one slot in one group": {
			[]topology.Function{fn("0000:01:00.0", 0x020000, 1), fn("0000:01:00.1", 0x020000, 1)},
			[]string{"0000:01:00.0 2/2 "},
		},
		"USB card in a GPU's group is a primary": {
			[]topology.Function{fn("0000:01:00.0", 0x030000, 1), fn("0000:01:00.1", 0x040300, 1), fn("0000:02:00.0", 0x0c0330, 1)},
			[]string{"0000:01:00.0 2/3 "},
		},
		"audio behind the card's own switch": {
			[]topology.Function{
				fn("0000:03:00.0", 0x030000, 1, "0000:00:01.0", "0000:01:00.0", "0000:02:01.0"),
				fn("0000:04:00.0", 0x040300, 1, "0000:00:01.0", "0000:01:00.0", "0000:02:04.0"),
			},
			[]string{"0000:03:00.0 1/2 "},
		},
		"leader is the GPU, not the lower audio function": {
			[]topology.Function{fn("0000:01:00.0", 0x040300, 1), fn("0000:01:00.1", 0x030200, 1)},
			[]string{"0000:01:00.1 1/2 "},
		},
		"NVSwitches in one group": {
			[]topology.Function{fn("0000:0a:00.0", 0x068000, 7), fn("0000:0b:00.0", 0x068000, 7)},
			[]string{"0000:0a:00.0 2/2 "},
		},
		"LAN beside the LPC bridge": {
			[]topology.Function{fn("0000:00:1f.0", 0x060100, 3), fn("0000:00:1f.6", 0x020000, 3)},
			[]string{"0000:00:1f.6 1/2 0000:00:1f.0"},
		},
		"VF in the group of its PF": {
			[]topology.Function{fn("0000:03:00.0", 0x020000, 1), vf},
			[]string{"0000:03:00.0 2/2 0000:03:00.1"},
		},
		"no IOMMU": {
			[]topology.Function{fn("0000:01:00.0", 0x030000, -1), fn("0000:01:00.1", 0x040300, -1)},
			[]string{"0000:01:00.0 1/1 0000:01:00.0", "0000:01:00.1 1/1 0000:01:00.1"},
		},
		"group without any wanted class": {
			[]topology.Function{fn("0000:7f:08.0", 0x088000, 9), fn("0000:7f:08.3", 0x088000, 9)},
			[]string{"0000:7f:08.0 1/2 "},
		},
		"bridges only": {[]topology.Function{fn("0000:00:00.0", 0x060000, 0), fn("0000:00:01.0", 0x060400, 1)}, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			seen := map[topology.Address]bool{}
			for _, u := range topology.Units(&topology.Host{Functions: c.functions}) {
				blocked := ""
				if u.Blocked != "" {
					blocked = strings.FieldsFunc(u.Blocked, func(r rune) bool { return r == ' ' || r == ',' })[0]
				}
				got = append(got, u.ID.String()+" "+string(rune('0'+len(u.Primaries)))+"/"+string(rune('0'+len(u.Members)))+" "+blocked)
				for _, m := range u.Members {
					if seen[m] {
						t.Errorf("%s is in two units", m)
					}
					seen[m] = true
				}
				if u.Members[0] != u.ID || u.Primaries[0] != u.ID {
					t.Errorf("leader %s is not first: %v %v", u.ID, u.Members, u.Primaries)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestDistanceBetween(t *testing.T) {
	mk := func(addr, root string, numa int, path ...string) topology.Function {
		f := fn(addr, 0x030200, int(at(addr).Bus), path...)
		f.Root, f.NUMA = root, numa
		return f
	}
	h := &topology.Host{
		CPUs: []topology.CPU{{ID: 0, Socket: 0, NUMA: 0}, {ID: 1, Socket: 0, NUMA: 1}, {ID: 2, Socket: 1, NUMA: 2}},
		Functions: []topology.Function{
			mk("0000:13:00.0", "pci0000:10", 0, "0000:10:00.0", "0000:11:00.0", "0000:12:00.0"),
			mk("0000:14:00.0", "pci0000:10", 0, "0000:10:00.0", "0000:11:00.0", "0000:12:01.0"),
			// Behind a second switch below the first.
			mk("0000:17:00.0", "pci0000:10", 0, "0000:10:00.0", "0000:11:00.0", "0000:12:02.0", "0000:15:00.0", "0000:16:00.0"),
			mk("0000:1a:00.0", "pci0000:10", 0, "0000:10:01.0"),
			mk("0000:20:00.0", "pci0000:1f", 0, "0000:1f:00.0"),
			mk("0000:30:00.0", "pci0000:2f", 1, "0000:2f:00.0"),
			mk("0000:40:00.0", "pci0000:3f", 2, "0000:3f:00.0"),
			mk("0000:50:00.0", "pci0000:4f", topology.NUMAUnknown, "0000:4f:00.0"),
			mk("0000:60:00.0", "pci0000:5f", topology.NUMAUnknown, "0000:5f:00.0"),
		},
	}
	units := map[string]*topology.Unit{}
	all := topology.Units(h)
	for i := range all {
		units[all[i].ID.String()] = &all[i]
	}
	cases := []struct {
		a, b string
		want topology.Distance
	}{
		{"0000:13:00.0", "0000:13:00.0", topology.SameSwitch},
		{"0000:13:00.0", "0000:14:00.0", topology.SameSwitch},
		{"0000:13:00.0", "0000:17:00.0", topology.SameSwitch},
		{"0000:13:00.0", "0000:1a:00.0", topology.SameRoot},
		{"0000:13:00.0", "0000:20:00.0", topology.SameNUMA},
		{"0000:13:00.0", "0000:30:00.0", topology.SameSocket},
		{"0000:13:00.0", "0000:40:00.0", topology.Other},
		{"0000:13:00.0", "0000:50:00.0", topology.Other},
		{"0000:50:00.0", "0000:60:00.0", topology.Other},
	}
	for _, c := range cases {
		if got := topology.DistanceBetween(h, units[c.a], units[c.b]); got != c.want {
			t.Errorf("%s to %s: %v, want %v", c.a, c.b, got, c.want)
		}
		if got := topology.DistanceBetween(h, units[c.b], units[c.a]); got != c.want {
			t.Errorf("%s to %s: %v, want %v", c.b, c.a, got, c.want)
		}
	}
	if s := units["0000:17:00.0"].Switch; s == nil || *s != at("0000:15:00.0") {
		t.Errorf("lowest switch of 17: %v", s)
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"0000:81:10.3", "10000:01:00.0", "ffffffff:ff:1f.7", "0000:00:20.0", "x", "00000:00:00.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := topology.ParseAddress(s)
		if err != nil {
			return
		}
		if got := a.String(); got != strings.ToLower(s) {
			t.Errorf("%q is printed as %q", s, got)
		}
	})
}
