package hostcmd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
)

// branch is a place in the PCIe tree: a root complex or a bridge with what
// hangs on it.
type branch struct {
	name     string
	bridge   *topology.Function // nil for a root complex
	numa     int
	branches []*branch
	leaves   []*topology.Function // endpoints that are no VFs
}

// shape arranges a host's functions as the hardware is: root complexes sorted
// by name, bridges below.
func shape(h *topology.Host) []*branch {
	byName := map[string]*branch{}
	var roots []*branch
	root := func(f *topology.Function) *branch {
		name := f.Root
		if name == "" {
			name = fmt.Sprintf("pci%04x:%02x", f.Address.Domain, f.Address.Bus)
		}
		b := byName[name]
		if b == nil {
			b = &branch{name: name, numa: topology.NUMAUnknown}
			byName[name] = b
			roots = append(roots, b)
		}
		return b
	}
	at := map[topology.Address]*branch{}
	for i := range h.Functions {
		f := &h.Functions[i]
		if f.PF != nil {
			continue
		}
		b := root(f)
		if b.numa == topology.NUMAUnknown {
			b.numa = f.NUMA
		}
		for _, p := range f.Path {
			next := at[p]
			if next == nil {
				next = &branch{name: p.String(), bridge: h.Function(p), numa: f.NUMA}
				at[p] = next
				b.branches = append(b.branches, next)
			}
			b = next
		}
		if f.Transparent() {
			continue
		}
		b.leaves = append(b.leaves, f)
	}
	slices.SortFunc(roots, func(a, b *branch) int { return strings.Compare(a.name, b.name) })
	return roots
}

// dull are functions of the processor and the platform that nobody hands out:
// counted, not shown.
func dull(f *topology.Function) bool {
	switch f.Class >> 16 {
	case 0x05, 0x06, 0x07, 0x08, 0x0a, 0x11, 0x13:
		return f.Class>>8 != 0x0680
	}
	return f.Class>>8 == 0x0c05
}

// group is a NUMA node of the picture with its root complexes.
type group struct {
	socket, numa int
	roots        []*branch
}

// groups arranges root complexes by NUMA node: by socket, then node, those of
// no known node last.
func groups(h *topology.Host) []group {
	byNUMA := map[int]*group{}
	var ids []int
	add := func(id int) *group {
		g := byNUMA[id]
		if g == nil {
			g = &group{socket: h.SocketOf(id), numa: id}
			byNUMA[id] = g
			ids = append(ids, id)
		}
		return g
	}
	for i := range h.NUMANodes {
		add(h.NUMANodes[i].ID)
	}
	for _, r := range shape(h) {
		g := add(r.numa)
		g.roots = append(g.roots, r)
	}
	out := make([]group, 0, len(ids))
	for _, id := range ids {
		out = append(out, *byNUMA[id])
	}
	slices.SortStableFunc(out, func(a, b group) int {
		// Unknown sockets and nodes are -1 and come last.
		if ua, ub := uint(a.socket), uint(b.socket); ua != ub {
			if ua < ub {
				return -1
			}
			return 1
		}
		if uint(a.numa) < uint(b.numa) {
			return -1
		}
		return 1
	})
	return out
}

// vfSummary tells a physical function's virtual ones in words.
func vfSummary(h *topology.Host, f *topology.Function) string {
	if !f.SRIOV {
		return ""
	}
	if f.TotalVFs < 0 {
		return "an unknown number of VFs"
	}
	if f.NumVFs <= 0 {
		return fmt.Sprintf("no VFs of %d", f.TotalVFs)
	}
	drivers := map[string]int{}
	var order []string
	for _, v := range f.VFs {
		d := "absent"
		if vf := h.Function(v); vf != nil {
			if d = vf.Driver; d == "" {
				d = "no driver"
			}
		}
		if drivers[d] == 0 {
			order = append(order, d)
		}
		drivers[d]++
	}
	slices.Sort(order)
	parts := make([]string, 0, len(order))
	for _, d := range order {
		parts = append(parts, fmt.Sprintf("%d %s", drivers[d], d))
	}
	s := fmt.Sprintf("%d VFs of %d", f.NumVFs, f.TotalVFs)
	if len(f.VFs) > 0 {
		s += fmt.Sprintf(" (%s to %s: %s)", f.VFs[0], f.VFs[len(f.VFs)-1], strings.Join(parts, ", "))
	}
	return s
}

// bytesText is a size for people.
func bytesText(n uint64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(uint64(1)<<u.shift)), ".0") + " " + u.name
		}
	}
	return fmt.Sprintf("%d B", n)
}
