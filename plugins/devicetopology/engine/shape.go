package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kubevfio/kubevfio/topology"
)

// ErrSpec is the class of errors about a node description that contradicts
// itself: an index out of its table, a unit named twice.
var ErrSpec = errors.New("invalid node description")

// Spec describes one node's hardware as the agent published it.
type Spec struct {
	NUMA []NUMASpec
	// Places are root complexes and switches, parents before children.
	Places []PlaceSpec
	// Resources is the table of resource names.
	Resources []string
	Units     []UnitSpec
	// Fabric are the sets of units (by unit ID) that the fabric can join; nil
	// when any set is legal. A choice of two or more fabric members of one
	// resource must be exactly one of the sets.
	Fabric [][]string
}

// NUMASpec is one NUMA node.
type NUMASpec struct {
	ID int
	// Socket is the physical package, -1 where unknown.
	Socket int
}

// PlaceSpec is a root complex (Parent -1) or a PCIe switch below another place.
type PlaceSpec struct {
	Name   string
	Parent int
}

// UnitSpec is one isolation unit.
type UnitSpec struct {
	// ID is the leader's PCI address.
	ID string
	// Place indexes Spec.Places, Resource Spec.Resources.
	Place    int
	Resource int
	// NUMA is the node's ID or [topology.NUMAUnknown].
	NUMA int
	// PF is the physical function of a virtual function, empty otherwise.
	PF string
	// Ready says that the unit can be handed out now.
	Ready bool
}

// levels are the alignment levels that have domains of their own.
const levels = int(topology.Other)

// Shape is the structure of a node without its addresses: immutable, and the
// same pointer for all nodes of one [Interner] that look alike.
type Shape struct {
	key       string
	resources []string
	resIndex  map[string]int
	// unitCell is the cell of each unit.
	unitCell []uint16
	// unitPF numbers the physical function of each unit, -1 for none.
	unitPF []int
	cells  []cell
	// doms are the domains of all levels, nearest level first, then the whole
	// node as one domain; firstDom[level] is where a level begins.
	doms     []domain
	firstDom [levels + 1]int
	wholeDom int
	// id is unique within the interner.
	id uint64
	in *Interner

	emptyOnce    sync.Once
	emptyProfile *Profile
	// fabric[r] are the legal sets of resource r as cell lists, nil when any
	// set is legal. Members of fabric sets are cells of one unit.
	fabric [][][]uint16
	// numaSocket maps NUMA ID to socket, for messages and NUMA prediction.
	numa []NUMASpec
}

// cell is a class of interchangeable units.
type cell struct {
	res   int
	numa  int
	units []uint16
	// dom[level] is the cell's domain in Shape.doms, -1 for none (a unit that
	// hangs on a root port is in no switch).
	dom [levels]int
}

// levelDoms is the range of the domains of a level in Shape.doms.
func (s *Shape) levelDoms(l topology.Distance) (first, last int) {
	return s.firstDom[l], s.firstDom[l+1]
}

// whole is the node as one domain.
func (s *Shape) whole() *domain { return &s.doms[s.wholeDom] }

// domain is a part of the node at some level: a switch, a root complex, a NUMA
// node, a socket.
type domain struct {
	// parent is a domain of a farther level around this one, -1 for the whole.
	parent int
	// cells[r] are the cells of resource r inside.
	cells [][]uint16
}

// Node is a shape with the addresses of one machine.
type Node struct {
	Shape *Shape
	// IDs are the units' IDs, by unit index.
	IDs []string
	// ready has a bit per unit that can be handed out.
	ready bitset
	index map[string]int
}

// Unit is the index of the unit with that ID, or -1.
func (n *Node) Unit(id string) int {
	if i, ok := n.index[id]; ok {
		return i
	}
	return -1
}

// ResourceOf is the resource index of a unit.
func (s *Shape) ResourceOf(unit int) int { return s.cells[s.unitCell[unit]].res }

// Resource is the index of a resource name, -1 when the shape has no unit of
// that resource.
func (s *Shape) Resource(name string) int {
	if i, ok := s.resIndex[name]; ok {
		return i
	}
	return -1
}

// Resources are the resource names, by resource index. Read only.
func (s *Shape) Resources() []string { return s.resources }

// Total is the number of units of a resource, whatever their health.
func (s *Shape) Total(res int) int {
	n := 0
	for _, c := range s.whole().cells[res] {
		n += len(s.cells[c].units)
	}
	return n
}

// NUMAOf is the NUMA node of a unit or [topology.NUMAUnknown].
func (s *Shape) NUMAOf(unit int) int { return s.cells[s.unitCell[unit]].numa }

// NewNode checks a description and builds its node. Errors are of class
// [ErrSpec] and name the unit. The shape is interned by in.
func NewNode(spec *Spec, in *Interner) (*Node, error) {
	b := builder{spec: spec}
	if err := b.check(); err != nil {
		return nil, err
	}
	shape := b.build()
	n := &Node{
		Shape: in.intern(shape),
		IDs:   make([]string, len(b.units)),
		ready: newBitset(len(b.units)),
		index: make(map[string]int, len(b.units)),
	}
	for i, u := range b.units {
		n.IDs[i] = u.ID
		n.index[u.ID] = i
		if u.Ready {
			n.ready.set(i)
		}
	}
	return n, nil
}

// builder turns a Spec into a Shape.
type builder struct {
	spec  *Spec
	units []UnitSpec // sorted by ID
	// fabricSet[unit ID] says that the unit is in some fabric set.
	fabricSet map[string]bool
}

func (b *builder) check() error {
	sp := b.spec
	for i, p := range sp.Places {
		if p.Parent < -1 || p.Parent >= i {
			return fmt.Errorf("%w: place %d (%s) has parent %d; parents come before children", ErrSpec, i, p.Name, p.Parent)
		}
	}
	b.units = slices.Clone(sp.Units)
	slices.SortFunc(b.units, func(x, y UnitSpec) int { return strings.Compare(x.ID, y.ID) })
	for i, u := range b.units {
		switch {
		case u.ID == "":
			return fmt.Errorf("%w: a unit without ID", ErrSpec)
		case i > 0 && b.units[i-1].ID == u.ID:
			return fmt.Errorf("%w: unit %s is listed twice", ErrSpec, u.ID)
		case u.Place < 0 || u.Place >= len(sp.Places):
			return fmt.Errorf("%w: unit %s: place %d of %d", ErrSpec, u.ID, u.Place, len(sp.Places))
		case u.Resource < 0 || u.Resource >= len(sp.Resources):
			return fmt.Errorf("%w: unit %s: resource %d of %d", ErrSpec, u.ID, u.Resource, len(sp.Resources))
		}
	}
	if len(b.units) > 1<<16-1 {
		return fmt.Errorf("%w: %d units; at most 65535", ErrSpec, len(b.units))
	}
	b.fabricSet = map[string]bool{}
	for _, set := range sp.Fabric {
		for _, id := range set {
			b.fabricSet[id] = true
		}
	}
	return nil
}

// socketOf is the socket of a NUMA node, -1 when unknown.
func (b *builder) socketOf(numa int) int {
	for _, n := range b.spec.NUMA {
		if n.ID == numa {
			return n.Socket
		}
	}
	return -1
}

// domainNames are the names of the unit's domains by level; empty for none. The
// switch is the topmost one above the unit: two units share a switch exactly
// when they share that one.
func (b *builder) domainNames(u UnitSpec) [levels]string {
	var names [levels]string
	root := u.Place
	top := -1
	for b.spec.Places[root].Parent >= 0 {
		top = root
		root = b.spec.Places[root].Parent
	}
	if top >= 0 {
		names[topology.SameSwitch] = fmt.Sprintf("s%d", top)
	}
	names[topology.SameRoot] = fmt.Sprintf("r%d", root)
	names[topology.SameNUMA] = names[topology.SameRoot]
	if u.NUMA != topology.NUMAUnknown {
		names[topology.SameNUMA] = fmt.Sprintf("n%d", u.NUMA)
	}
	names[topology.SameSocket] = names[topology.SameNUMA]
	if s := b.socketOf(u.NUMA); u.NUMA != topology.NUMAUnknown && s >= 0 {
		names[topology.SameSocket] = fmt.Sprintf("p%d", s)
	}
	return names
}

func (b *builder) build() *Shape {
	sp := b.spec
	s := &Shape{
		resources: slices.Clone(sp.Resources),
		resIndex:  make(map[string]int, len(sp.Resources)),
		unitCell:  make([]uint16, len(b.units)),
		unitPF:    make([]int, len(b.units)),
		numa:      slices.Clone(sp.NUMA),
	}
	for i, r := range s.resources {
		s.resIndex[r] = i
	}
	domIndex := [levels]map[string]int{}
	for l := range domIndex {
		domIndex[l] = map[string]int{}
	}
	cellIndex := map[string]int{}
	pfIndex := map[string]int{}
	var key strings.Builder
	fmt.Fprintf(&key, "%q %v", s.resources, sp.NUMA)
	for i, u := range b.units {
		names := b.domainNames(u)
		c := cell{res: u.Resource, numa: u.NUMA}
		pf := -1
		for l, name := range names {
			c.dom[l] = -1
			if name == "" {
				continue
			}
			d, ok := domIndex[l][name]
			if !ok {
				d = len(domIndex[l])
				domIndex[l][name] = d
			}
			c.dom[l] = d
		}
		if u.PF != "" {
			p, ok := pfIndex[u.PF]
			if !ok {
				p = len(pfIndex)
				pfIndex[u.PF] = p
			}
			pf = p
		}
		s.unitPF[i] = pf
		ck := fmt.Sprintf("%d %d %v", c.res, c.numa, c.dom)
		if b.fabricSet[u.ID] {
			ck += fmt.Sprintf(" f%d", i)
		}
		ci, ok := cellIndex[ck]
		if !ok {
			ci = len(s.cells)
			cellIndex[ck] = ci
			s.cells = append(s.cells, c)
		}
		s.cells[ci].units = append(s.cells[ci].units, uint16(i))
		s.unitCell[i] = uint16(ci)
		fmt.Fprintf(&key, ";%s %d", ck, pf)
	}
	for l := range domIndex {
		s.firstDom[l+1] = s.firstDom[l] + len(domIndex[l])
	}
	s.wholeDom = s.firstDom[levels]
	s.doms = make([]domain, s.wholeDom+1)
	for d := range s.doms {
		s.doms[d] = domain{parent: s.wholeDom, cells: make([][]uint16, len(s.resources))}
	}
	s.doms[s.wholeDom].parent = -1
	for ci := range s.cells {
		c := &s.cells[ci]
		add := func(d int) { s.doms[d].cells[c.res] = append(s.doms[d].cells[c.res], uint16(ci)) }
		add(s.wholeDom)
		for l := range c.dom {
			if c.dom[l] >= 0 {
				c.dom[l] += s.firstDom[l]
				add(c.dom[l])
				if l > 0 && c.dom[l-1] >= 0 {
					s.doms[c.dom[l-1]].parent = c.dom[l]
				}
			}
		}
	}
	b.buildFabric(s, &key)
	s.key = key.String()
	return s
}

// buildFabric turns the fabric sets into cell lists by resource. Units of a set
// that the node does not offer make the set unusable.
func (b *builder) buildFabric(s *Shape, key *strings.Builder) {
	s.fabric = make([][][]uint16, len(s.resources))
	index := make(map[string]int, len(b.units))
	for i, u := range b.units {
		index[u.ID] = i
		if b.fabricSet[u.ID] && s.fabric[u.Resource] == nil {
			s.fabric[u.Resource] = [][]uint16{}
		}
	}
	for _, set := range b.spec.Fabric {
		var cells []uint16
		res := -1
		for _, id := range set {
			i, ok := index[id]
			if !ok || (res >= 0 && b.units[i].Resource != res) {
				res = -1
				break
			}
			res = b.units[i].Resource
			cells = append(cells, s.unitCell[i])
		}
		if res < 0 {
			continue
		}
		slices.Sort(cells)
		s.fabric[res] = append(s.fabric[res], slices.Compact(cells))
	}
	for r := range s.fabric {
		slices.SortFunc(s.fabric[r], slices.Compare[[]uint16])
		fmt.Fprintf(key, "|%v", s.fabric[r])
	}
}

// bitset is a set of small numbers.
type bitset []uint64

func newBitset(n int) bitset    { return make(bitset, (n+63)/64) }
func (b bitset) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bitset) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }

// LevelOf is the nearest level whose one domain holds all units (by index).
func (s *Shape) LevelOf(units []int) topology.Distance {
	for l := topology.SameSwitch; l < topology.Other; l++ {
		dom, all := -1, len(units) > 0
		for _, u := range units {
			d := s.cells[s.unitCell[u]].dom[l]
			if d < 0 || (dom >= 0 && d != dom) {
				all = false
				break
			}
			dom = d
		}
		if all {
			return l
		}
	}
	return topology.Other
}

// Legal reports whether the fabric can join the units (by index) of one
// resource.
func (s *Shape) Legal(units []int) bool {
	if len(units) < 2 {
		return true
	}
	sets := s.fabric[s.ResourceOf(units[0])]
	if sets == nil {
		return true
	}
	cells := make([]uint16, len(units))
	for i, u := range units {
		cells[i] = s.unitCell[u]
	}
	slices.Sort(cells)
	return slices.ContainsFunc(sets, func(set []uint16) bool { return slices.Equal(set, cells) })
}
