package domaintest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"libvirt.org/go/libvirtxml"

	"github.com/kubevfio/kubevfio/topology"
)

// Placement is an independent reading of a domain: it knows libvirt's rules and
// what the design promises, and none of domain.Build's own data. It reports each
// passed-through function under a wrong root complex or node, doubled places,
// overlapping bus ranges, and anything emulated under an expander.
func Placement(xml string, h *topology.Host) []string {
	var d libvirtxml.Domain
	if err := d.Unmarshal(xml); err != nil {
		return []string{err.Error()}
	}
	c := &placement{h: h, d: &d, models: map[uint]string{}, parent: map[uint]uint{}, at: map[string]string{}, expanderOf: map[uint]uint{}}
	c.controllers()
	c.busRanges()
	c.hostdevs()
	c.emulated()
	c.cells()
	return c.problems
}

type placement struct {
	h          *topology.Host
	d          *libvirtxml.Domain
	models     map[uint]string
	parent     map[uint]uint
	at         map[string]string
	expanderOf map[uint]uint
	problems   []string
}

func (c *placement) errf(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// take claims a guest place; two devices of one slot need multifunction on
// function 0.
func (c *placement) take(what string, a *libvirtxml.DomainAddress) *libvirtxml.DomainAddressPCI {
	if a == nil || a.PCI == nil {
		c.errf("%s has no PCI address", what)
		return nil
	}
	p := a.PCI
	if *p.Domain != 0 || *p.Slot > 31 || *p.Function > 7 {
		c.errf("%s: place %x:%x:%x.%x is not possible", what, *p.Domain, *p.Bus, *p.Slot, *p.Function)
	}
	key := fmt.Sprintf("%d/%d.%d", *p.Bus, *p.Slot, *p.Function)
	if had, ok := c.at[key]; ok {
		c.errf("%s and %s are both at %s", what, had, key)
	}
	c.at[key] = what
	if p.MultiFunction == "on" {
		c.at[fmt.Sprintf("%d/%d multi", *p.Bus, *p.Slot)] = "on"
	}
	if _, ok := c.models[*p.Bus]; !ok && what != "controller 0" {
		c.errf("%s is on bus %d, which is no controller", what, *p.Bus)
	}
	return p
}

func (c *placement) controllers() {
	chassis := map[[2]uint]uint{}
	for _, x := range c.d.Devices.Controllers {
		if x.Type != "pci" {
			continue
		}
		c.models[*x.Index] = x.Model
	}
	for _, x := range c.d.Devices.Controllers {
		if x.Type != "pci" || x.Model == "pcie-root" {
			continue
		}
		what := fmt.Sprintf("controller %d", *x.Index)
		p := c.take(what, x.Address)
		if p == nil {
			continue
		}
		c.parent[*x.Index] = *p.Bus
		on := c.models[*p.Bus]
		switch x.Model {
		case "pcie-expander-bus":
			if on != "pcie-root" {
				c.errf("%s, an expander, is on %s", what, on)
			}
			c.expanderOf[*x.Index] = *x.Index
		case "pcie-root-port":
			if on != "pcie-expander-bus" {
				c.errf("%s, a root port, is on %s", what, on)
			}
		case "pcie-switch-upstream-port":
			if on != "pcie-root-port" && on != "pcie-switch-downstream-port" {
				c.errf("%s, an upstream port, is on %s", what, on)
			}
			if *p.Slot != 0 {
				c.errf("%s: a port's bus has slot 0 only", what)
			}
		case "pcie-switch-downstream-port":
			if on != "pcie-switch-upstream-port" {
				c.errf("%s, a downstream port, is on %s", what, on)
			}
		}
		if t := x.PCI; t != nil && t.Target != nil && t.Target.Chassis != nil {
			k := [2]uint{*t.Target.Chassis, *t.Target.Port}
			if had, ok := chassis[k]; ok || k[0] == 0 || k[0] > 255 || k[1] > 255 {
				c.errf("%s: chassis and port %v are not possible or those of controller %d", what, k, had)
			}
			chassis[k] = *x.Index
		}
	}
	for i := range c.models {
		for j, n := i, 0; n < 20; n++ {
			if c.models[j] == "pcie-expander-bus" {
				c.expanderOf[i] = j
			}
			up, ok := c.parent[j]
			if !ok {
				break
			}
			j = up
		}
	}
}

// busRanges counts what hangs below each expander: one number for itself, one
// for each port and bridge.
func (c *placement) busRanges() {
	type rng struct{ from, to uint }
	var ranges []rng
	for _, x := range c.d.Devices.Controllers {
		if x.Model != "pcie-expander-bus" {
			continue
		}
		n := uint(0)
		for i := range c.models {
			if e, ok := c.expanderOf[i]; ok && e == *x.Index {
				n++
			}
		}
		nr := *x.PCI.Target.BusNr
		ranges = append(ranges, rng{nr, nr + n - 1})
		if nr < 1 || nr > 254 || nr+n-1 > 255 {
			c.errf("expander %d has buses %d to %d", *x.Index, nr, nr+n-1)
		}
	}
	slices.SortFunc(ranges, func(a, b rng) int { return int(a.from) - int(b.from) })
	for i := 1; i < len(ranges); i++ {
		if ranges[i].from <= ranges[i-1].to {
			c.errf("bus ranges %v and %v overlap", ranges[i-1], ranges[i])
		}
	}
}

func (c *placement) hostdevs() {
	type rootKey struct {
		root string
		numa int
	}
	rootOf := map[uint]rootKey{}
	bySlot := map[string]int{}
	for i, x := range c.d.Devices.Hostdevs {
		if x.SubsysPCI == nil {
			continue
		}
		s := x.SubsysPCI.Source.Address
		a := topology.Address{Domain: uint32(*s.Domain), Bus: uint8(*s.Bus), Device: uint8(*s.Slot), Function: uint8(*s.Function)}
		if x.Managed != "no" {
			c.errf("%s is managed", a)
		}
		f := c.h.Function(a)
		if f == nil {
			c.errf("%s is not on the host", a)
			continue
		}
		p := c.take(a.String(), x.Address)
		if p == nil {
			continue
		}
		switch m := c.models[*p.Bus]; m {
		case "pcie-root-port", "pcie-switch-downstream-port":
			if *p.Slot != 0 {
				c.errf("%s is at slot %d of a port", a, *p.Slot)
			}
		case "pcie-to-pci-bridge":
			if *p.Slot == 0 {
				c.errf("%s is at slot 0 of a bridge with a hotplug controller", a)
			}
		default:
			c.errf("%s hangs on a %s", a, m)
		}
		bySlot[fmt.Sprintf("%d/%d", *p.Bus, *p.Slot)]++
		e, ok := c.expanderOf[*p.Bus]
		if !ok {
			c.errf("%s is under no expander", a)
			continue
		}
		k := rootKey{f.Root, f.NUMA}
		if had, ok := rootOf[e]; ok && had != k {
			c.errf("hostdev %d: %s of %v is under the expander of %v", i, a, k, had)
		}
		rootOf[e] = k
		c.expanderNode(e, f)
	}
	seen := map[rootKey]uint{}
	for e, k := range rootOf {
		if other, ok := seen[k]; ok {
			c.errf("root complex %v has two expanders, %d and %d", k, e, other)
		}
		seen[k] = e
	}
	for slot, n := range bySlot {
		if multi := c.at[slot+" multi"] == "on"; multi != (n > 1) {
			c.errf("slot %s has %d functions and multifunction=%v", slot, n, multi)
		}
	}
}

// expanderNode compares an expander's guest cell with the host node that the
// cell's memory is bound to, or that its CPUs are pinned to.
func (c *placement) expanderNode(e uint, f *topology.Function) {
	for _, x := range c.d.Devices.Controllers {
		if x.Type != "pci" || *x.Index != e {
			continue
		}
		node := x.PCI.Target.NUMANode
		if f.NUMA == topology.NUMAUnknown {
			if node != nil {
				c.errf("%s has no NUMA node on the host and cell %d in the guest", f.Address, *node)
			}
			return
		}
		if node == nil {
			return // checked against the report by the callers that know
		}
		if *node >= uint(len(c.d.CPU.Numa.Cell)) {
			c.errf("%s is in cell %d, which is not there", f.Address, *node)
			return
		}
		if c.d.CPU.Numa.Cell[*node].CPUs == "" {
			// A far cell's memory is elsewhere; nothing in the XML says which
			// node it stands for.
			return
		}
		if hosts := c.cellHosts(*node); len(hosts) > 0 && !slices.Contains(hosts, f.NUMA) {
			c.errf("%s of host node %d is in cell %d, which is host node %v", f.Address, f.NUMA, *node, hosts)
		}
	}
}

// cellHosts are the host nodes of a cell by its pinning.
func (c *placement) cellHosts(cell uint) []int {
	var out []int
	if c.d.CPUTune == nil {
		if c.d.NUMATune != nil {
			for _, m := range c.d.NUMATune.MemNodes {
				if m.CellID == cell {
					for _, n := range c.h.NUMANodes {
						if m.Nodeset == fmt.Sprint(n.ID) {
							out = append(out, n.ID)
						}
					}
				}
			}
		}
		return out
	}
	cpus := parseSet(c.d.CPU.Numa.Cell[cell].CPUs)
	for _, pin := range c.d.CPUTune.VCPUPin {
		if !slices.Contains(cpus, int(pin.VCPU)) {
			continue
		}
		for _, id := range parseSet(pin.CPUSet) {
			for _, hc := range c.h.CPUs {
				if hc.ID == id && !slices.Contains(out, hc.NUMA) {
					out = append(out, hc.NUMA)
				}
			}
		}
	}
	return out
}

// parseSet reads the list form "0-3,8"; what is none gives nothing, and the
// count of vCPUs then does not add up.
func parseSet(s string) (ids []int) {
	for part := range strings.SplitSeq(s, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		z, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || z-a > 1<<16 {
			continue
		}
		for i := a; i <= z; i++ {
			ids = append(ids, i)
		}
	}
	return ids
}

// emulated devices sit on pcie.0 at places of their own.
func (c *placement) emulated() {
	root := func(what string, a *libvirtxml.DomainAddress) {
		if p := c.take(what, a); p != nil && *p.Bus != 0 {
			c.errf("%s is emulated and on bus %d (%s)", what, *p.Bus, c.models[*p.Bus])
		}
	}
	d := c.d.Devices
	for _, x := range d.Interfaces {
		root("interface", x.Address)
	}
	for _, x := range d.Disks {
		if x.Target.Bus == "virtio" {
			root("disk "+x.Target.Dev, x.Address)
		}
	}
	for _, x := range d.RNGs {
		root("rng", x.Address)
	}
	for _, x := range d.Filesystems {
		root("filesystem", x.Address)
	}
	for _, x := range d.Controllers {
		switch {
		case x.Type == "usb" && x.Model == "none":
		case x.Type != "pci":
			root(x.Type+" controller", x.Address)
		}
	}
	for _, x := range d.Videos {
		if x.Model.Type != "none" {
			root("screen", x.Address)
		}
	}
	for _, x := range d.Watchdogs {
		if x.Model == "i6300esb" {
			root("watchdog", x.Address)
		}
	}
	for _, x := range d.Panics {
		if x.Model == "pvpanic" {
			root("panic", x.Address)
		}
	}
	for _, x := range d.IOMMUs {
		if x.Model == "virtio" {
			root("iommu", x.Address)
		}
	}
	if d.MemBalloon == nil || d.MemBalloon.Model != "none" {
		c.errf("there is a balloon")
	}
	// Functions of a slot on pcie.0 need multifunction on function 0.
	for key := range c.at {
		var bus, slot, fn int
		if n, _ := fmt.Sscanf(key, "%d/%d.%d", &bus, &slot, &fn); n == 3 && bus == 0 && fn > 0 && slot != 31 {
			if c.at[fmt.Sprintf("0/%d multi", slot)] != "on" {
				c.errf("%s is function %d of slot %d, whose function 0 is not multifunction", c.at[key], fn, slot)
			}
		}
	}
}

// cells: every vCPU in exactly one, memory adds up, distances complete.
func (c *placement) cells() {
	var total uint
	seen := map[int]bool{}
	for i, x := range c.d.CPU.Numa.Cell {
		if *x.ID != uint(i) {
			c.errf("cell %d has id %d", i, *x.ID)
		}
		total += x.Memory
		for _, v := range parseSet(x.CPUs) {
			if seen[v] {
				c.errf("vCPU %d is in two cells", v)
			}
			seen[v] = true
		}
		if x.Distances != nil && len(x.Distances.Siblings) != len(c.d.CPU.Numa.Cell) {
			c.errf("cell %d has %d distances", i, len(x.Distances.Siblings))
		}
	}
	if len(seen) != int(c.d.VCPU.Value) {
		c.errf("%d vCPUs are in cells, of %d", len(seen), c.d.VCPU.Value)
	}
	if total != c.d.Memory.Value {
		c.errf("cells have %d KiB, the domain %d", total, c.d.Memory.Value)
	}
	t := c.d.CPU.Topology
	if t.Sockets*t.Dies*t.Cores*t.Threads != int(c.d.VCPU.Value) {
		c.errf("topology %+v does not make %d vCPUs", *t, c.d.VCPU.Value)
	}
}
