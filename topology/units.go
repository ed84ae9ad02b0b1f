package topology

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
)

// Units computes the isolation units of a host, sorted by ID: every function
// that is no bridge belongs to exactly one.
//
// Functions of one IOMMU group are one unit, because VFIO hands out groups. Its
// primaries are the functions that are wanted for their own sake; the others
// are companions when they sit in the slot of a primary (a GPU's audio, USB and
// UCSI functions) or are the audio of a display function on the same card
// behind the card's own switch. A group without any such function has the
// lowest function of each slot as a primary.
//
// A function without a group is a unit of its own that is [Unit.Blocked]:
// nothing isolates it. A unit is also blocked by a platform bridge in its group,
// and by a virtual function that shares its group with its own physical
// function.
func Units(h *Host) []Unit {
	type key struct {
		group int
		// alone tells ungrouped functions apart; zero for groups.
		alone Address
	}
	byKey := make(map[key]int, len(h.Functions))
	groups := make([][]*Function, 0, len(h.Functions))
	for i := range h.Functions {
		f := &h.Functions[i]
		if f.Transparent() {
			continue
		}
		k := key{group: f.IOMMUGroup}
		if f.IOMMUGroup < 0 {
			k.alone = f.Address
		}
		n, ok := byKey[k]
		if !ok {
			n = len(groups)
			byKey[k] = n
			groups = append(groups, nil)
		}
		groups[n] = append(groups[n], f)
	}
	units := make([]Unit, 0, len(groups))
	for _, g := range groups {
		units = append(units, unitOf(g))
	}
	slices.SortFunc(units, func(a, b Unit) int { return a.ID.Compare(b.ID) })
	return units
}

// unitOf makes the unit of functions that cannot be told apart by the IOMMU;
// members are sorted by address.
func unitOf(members []*Function) Unit {
	slices.SortFunc(members, func(a, b *Function) int { return a.Address.Compare(b.Address) })
	primaries := primariesOf(members)
	lead := primaries[0]
	u := Unit{
		ID:        lead.Address,
		Members:   make([]Address, 0, len(members)),
		Primaries: make([]Address, 0, len(primaries)),
		Group:     lead.IOMMUGroup,
		NUMA:      lead.NUMA,
		Root:      lead.Root,
	}
	if s := lead.Switches(); len(s) > 0 {
		u.Switch = &s[len(s)-1]
	}
	u.Members = append(u.Members, lead.Address)
	for _, m := range members {
		if m != lead {
			u.Members = append(u.Members, m.Address)
		}
	}
	for _, p := range primaries {
		u.Primaries = append(u.Primaries, p.Address)
	}
	u.Blocked = blockedBy(lead, members)
	return u
}

func blockedBy(lead *Function, members []*Function) string {
	if lead.IOMMUGroup < 0 {
		return fmt.Sprintf("%s has no IOMMU group: switch the IOMMU on in the firmware and on the kernel command line", lead.Address)
	}
	for _, m := range members {
		if m.platform() {
			return fmt.Sprintf("%s, a bridge of the platform, shares IOMMU group %d: it cannot leave the host", m.Address, m.IOMMUGroup)
		}
	}
	for _, m := range members {
		if m.PF == nil {
			continue
		}
		for _, o := range members {
			if o.Address == *m.PF {
				return fmt.Sprintf("%s shares IOMMU group %d with its physical function %s: the platform lacks ACS between them", m.Address, m.IOMMUGroup, o.Address)
			}
		}
	}
	return ""
}

// primariesOf picks the primaries out of a sorted, non-empty list of members.
func primariesOf(members []*Function) []*Function {
	if len(members) == 1 {
		return members
	}
	wanted := map[Address]bool{} // slots that hold a function wanted for itself
	var displays []*Function
	for _, m := range members {
		if m.primaryClass() {
			wanted[slotOf(m)] = true
			if m.Class>>16 == baseDisplay {
				displays = append(displays, m)
			}
		}
	}
	var out []*Function
	taken := map[Address]bool{}
	for _, m := range members {
		s := slotOf(m)
		switch {
		case m.primaryClass():
			out = append(out, m)
		case wanted[s], cardAudio(m, displays):
		case m.platform():
			// Blocks the unit; never its leader when there is anything else.
		case !taken[s]:
			taken[s] = true
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return members[:1]
	}
	return out
}

// slotOf is the function's slot: its address with function 0. A virtual
// function is a slot of its own, for its device number is only arithmetic.
func slotOf(f *Function) Address {
	a := f.Address
	if f.PF == nil {
		a.Function = 0
	}
	return a
}

// cardAudio reports whether m is the audio function of one of the displays:
// both behind the same lowest switch, which is the card's own.
func cardAudio(m *Function, displays []*Function) bool {
	if m.Class>>16 != baseMultimedia {
		return false
	}
	s := m.Switches()
	if len(s) == 0 {
		return false
	}
	for _, d := range displays {
		ds := d.Switches()
		if len(ds) > 0 && ds[len(ds)-1] == s[len(s)-1] {
			return true
		}
	}
	return false
}

// Function finds a function by address, nil when the host has none.
func (h *Host) Function(a Address) *Function {
	i := sort.Search(len(h.Functions), func(i int) bool { return h.Functions[i].Address.Compare(a) >= 0 })
	if i < len(h.Functions) && h.Functions[i].Address == a {
		return &h.Functions[i]
	}
	return nil
}

// NUMANode finds a NUMA node by ID, nil when the host has none.
func (h *Host) NUMANode(id int) *NUMANode {
	for i := range h.NUMANodes {
		if h.NUMANodes[i].ID == id {
			return &h.NUMANodes[i]
		}
	}
	return nil
}

// SocketOf is the socket of a NUMA node, -1 when the host does not say or the
// node has no CPUs.
func (h *Host) SocketOf(numa int) int {
	if numa == NUMAUnknown {
		return -1
	}
	for i := range h.CPUs {
		if h.CPUs[i].NUMA == numa {
			return h.CPUs[i].Socket
		}
	}
	return -1
}

// DistanceBetween is how far two units of a host are apart. Units of which the
// NUMA node is unknown are [Other] unless they share a root complex.
func DistanceBetween(h *Host, a, b *Unit) Distance {
	fa, fb := h.Function(a.ID), h.Function(b.ID)
	if fa != nil && fb != nil && shareSwitch(fa, fb) {
		return SameSwitch
	}
	switch {
	case a.ID == b.ID:
		return SameSwitch
	case a.Root != "" && a.Root == b.Root:
		return SameRoot
	case a.NUMA == NUMAUnknown || b.NUMA == NUMAUnknown:
		return Other
	case a.NUMA == b.NUMA:
		return SameNUMA
	}
	if s := h.SocketOf(a.NUMA); s >= 0 && s == h.SocketOf(b.NUMA) {
		return SameSocket
	}
	return Other
}

// shareSwitch reports whether the ways of both functions to the root pass
// through one switch, not necessarily the lowest of either.
func shareSwitch(a, b *Function) bool {
	if a.Root != b.Root {
		return false
	}
	// A common switch implies a common port above it: compare the paths from
	// the top. The upstream port of the first switch is the second bridge.
	return len(a.Path) > 2 && len(b.Path) > 2 && cmp.Or(a.Path[0].Compare(b.Path[0]), a.Path[1].Compare(b.Path[1])) == 0
}
