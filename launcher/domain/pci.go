package domain

import (
	"cmp"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/topology"
)

// Models of PCI controllers, libvirt's names.
const (
	modelRoot       = "pcie-root"
	modelExpander   = "pcie-expander-bus"
	modelRootPort   = "pcie-root-port"
	modelUpstream   = "pcie-switch-upstream-port"
	modelDownstream = "pcie-switch-downstream-port"
	modelPCIBridge  = "pcie-to-pci-bridge"
)

// unit is one PCI unit of the guest.
type unit struct {
	req     vmspec.Request
	opts    unitOptions
	members []*topology.Function
}

func (u *unit) leader() *topology.Function { return u.members[0] }

// slotGroup are the members of a unit that go into one guest slot.
type slotGroup struct {
	unit  *unit
	funcs []*topology.Function
	// at is the guest place of each function.
	fn []uint
}

// node is a controller of the guest's PCIe tree with what hangs below.
type node struct {
	model string
	// host is what of the host the controller stands for: a root complex's name
	// or an upstream port's address; empty for ports.
	host string
	numa int
	// index is the controller's number in libvirt, busNr that of an expander.
	index, busNr int
	// slot and function on the parent.
	slot, function uint
	multi          bool
	children       []*node
	leaf           *slotGroup
}

// buses is how many bus numbers the controller and those below take.
func (n *node) buses() int {
	k := 1
	for _, c := range n.children {
		k += c.buses()
	}
	return k
}

// guestFunctions decides the functions of a slot. Functions of one host slot
// keep their numbers, so that the guest sees what the card's driver expects;
// otherwise the leader is 0 and the others follow.
func guestFunctions(fs []*topology.Function) []uint {
	keep := fs[0].Address.Function == 0
	for _, f := range fs {
		keep = keep && f.PF == nil
	}
	out := make([]uint, len(fs))
	for i, f := range fs {
		if keep {
			out[i] = uint(f.Address.Function)
		} else {
			out[i] = uint(i)
		}
	}
	return out
}

// slotGroups splits a unit by host slots, the leader's first. A virtual
// function is a slot of its own.
func slotGroups(u *unit) []*slotGroup {
	type key struct {
		a  topology.Address
		vf bool
	}
	var order []key
	by := map[key][]*topology.Function{}
	for _, f := range u.members {
		k := key{f.Address, f.PF != nil}
		if !k.vf {
			k.a.Function = 0
		}
		if _, ok := by[k]; !ok {
			order = append(order, k)
		}
		by[k] = append(by[k], f)
	}
	var out []*slotGroup
	for _, k := range order {
		fs := by[k]
		if u.leader() != fs[0] {
			slices.SortFunc(fs, func(a, b *topology.Function) int { return a.Address.Compare(b.Address) })
		}
		out = append(out, &slotGroup{unit: u, funcs: fs, fn: guestFunctions(fs)})
	}
	return out
}

// pciOptions are what the spec says of the tree's shape.
type pciOptions struct {
	mirror bool
	// viommu puts units of several functions behind a PCIe-to-PCI bridge: a
	// vIOMMU gives each PCIe function an address space of its own, which VFIO
	// refuses within an IOMMU group.
	viommu bool
}

// planPCI makes the expanders, sorted by host root complex and NUMA node, and
// numbers everything.
func planPCI(units []*unit, o pciOptions) ([]*node, error) {
	type key struct {
		root string
		numa int
	}
	by := map[key][]*slotGroup{}
	var keys []key
	us := slices.Clone(units)
	slices.SortStableFunc(us, func(a, b *unit) int { return a.leader().Address.Compare(b.leader().Address) })
	for _, u := range us {
		// The slots of a unit may hang on several root complexes: an IOMMU group
		// is about isolation, not about place.
		for _, g := range slotGroups(u) {
			k := key{g.funcs[0].Root, g.funcs[0].NUMA}
			if _, ok := by[k]; !ok {
				keys = append(keys, k)
			}
			by[k] = append(by[k], g)
		}
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(compareRoots(a.root, b.root), cmp.Compare(a.numa, b.numa))
	})
	var expanders []*node
	for _, k := range keys {
		e := &node{model: modelExpander, host: k.root, numa: k.numa}
		for _, g := range by[k] {
			e.hang(g, o)
		}
		expanders = append(expanders, e)
	}
	if err := number(expanders); err != nil {
		return nil, err
	}
	return expanders, nil
}

// hang puts a slot below the expander: on a root port of its own, or, mirrored,
// below the switches that are above it on the host.
func (n *node) hang(g *slotGroup, o pciOptions) {
	parent, portModel := n, modelRootPort
	if o.mirror {
		for _, up := range g.funcs[0].Switches() {
			parent = parent.switchFor(up, portModel)
			portModel = modelDownstream
		}
	}
	port := &node{model: portModel, numa: n.numa}
	if o.viommu && len(g.unit.members) > 1 {
		port.children = []*node{{model: modelPCIBridge, numa: n.numa, leaf: g}}
	} else {
		port.leaf = g
	}
	parent.children = append(parent.children, port)
}

// switchFor finds or makes the guest's switch for a host's upstream port.
func (n *node) switchFor(up topology.Address, portModel string) *node {
	for _, port := range n.children {
		for _, c := range port.children {
			if c.model == modelUpstream && c.host == up.String() {
				return c
			}
		}
	}
	s := &node{model: modelUpstream, host: up.String(), numa: n.numa}
	n.children = append(n.children, &node{model: portModel, numa: n.numa, children: []*node{s}})
	return s
}

// compareRoots orders "pci0000:80" by domain and bus, longer domains last.
func compareRoots(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// Bus numbers: pcie.0 keeps the low ones, expanders share the rest.
const (
	firstExpanderBus = 0x40
	lowestExpander   = 0x02
	busNumbers       = 256
)

// number gives controllers their indices (depth first, so that a parent comes
// before its children), places on their parents, and expanders their bus
// numbers.
func number(expanders []*node) error {
	index := 1
	var walk func(n *node)
	walk = func(n *node) {
		n.index = index
		index++
		// Root ports and downstream ports are told apart by slot; more than 32
		// need functions.
		many := len(n.children) > 32
		for i, c := range n.children {
			if many {
				c.slot, c.function, c.multi = uint(i/8), uint(i%8), i%8 == 0
			} else {
				c.slot = uint(i)
			}
			walk(c)
		}
	}
	for _, e := range expanders {
		if len(e.children) > 256 {
			return hostErrorf("spec.domain.devices", "%d units on root complex %s, a guest bus holds 256", len(e.children), e.host)
		}
		walk(e)
	}
	return numberBuses(expanders)
}

// numberBuses spaces the expanders evenly from 0x40 where each range is large
// enough for what hangs below it, else packs them tightly below the top. An
// expander's range ends where the next begins, and the firmware numbers the
// buses inside it.
func numberBuses(expanders []*node) error {
	if len(expanders) == 0 {
		return nil
	}
	need, most := 0, 0
	for _, e := range expanders {
		need += e.buses()
		most = max(most, e.buses())
	}
	step := 0x20
	for step > 1 && firstExpanderBus+step*len(expanders) > busNumbers {
		step /= 2
	}
	if most <= step {
		for i, e := range expanders {
			e.busNr = firstExpanderBus + i*step
		}
		return nil
	}
	at := busNumbers - need
	if at < lowestExpander {
		return hostErrorf("spec.domain.devices", "the devices need %d PCI bus numbers below %d expanders, a guest has %d", need, len(expanders), busNumbers-lowestExpander)
	}
	at = min(at, firstExpanderBus)
	for _, e := range expanders {
		e.busNr = at
		at += e.buses()
	}
	return nil
}

// Places on pcie.0: emulated devices grow from slot 2 (1 is the screen's),
// expanders from slot 0x10; a full range goes on with the functions of its
// slots. Slot 0 is the host bridge and 0x1f the chipset.
const (
	slotScreen        = 0x01
	slotFirstEmulated = 0x02
	emulatedSlots     = 0x10 - slotFirstEmulated
	slotFirstExpander = 0x10
	expanderSlots     = 0x1f - slotFirstExpander
)

// place of number i in a range of slots: first the slots' function 0, then the
// functions 1 to 7. Every slot is marked as multifunction where any is shared;
// total is how many there will be.
func place(i, total, first, slots int) (slot, function uint, multi bool) {
	return uint(first + i%slots), uint(i / slots), i < slots && i+slots < total
}

func checkRoot(kind string, total, slots int) error {
	if total > slots*8 {
		return hostErrorf("spec.domain.devices", "%d %s, the guest's root bus holds %d", total, kind, slots*8)
	}
	return nil
}
