package pool

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/topology"
)

// Input is what a selection is made from.
type Input struct {
	Pools []v1alpha1.DevicePool
	Host  *topology.Host
	// Units are [topology.Units] of Host.
	Units []topology.Unit
	// Labels are the node's.
	Labels map[string]string
	// Former are the drivers that functions had before KubeVFIO bound them:
	// selectors by driver go on matching afterwards. May be nil.
	Former map[topology.Address]string
}

// Selection is which pool has what on one node.
type Selection struct {
	// Pools that cover the node, first the one that wins overlaps: by priority
	// descending, then name.
	Pools []Selected
}

// Selected is one pool on one node.
type Selected struct {
	Pool *v1alpha1.DevicePool
	// Offers are the pool's units, sorted by ID.
	Offers []Offer
	// PFs are the physical functions whose virtual functions the pool wants,
	// sorted by address.
	PFs []PF
	// Lost are functions that the pool selects and another one has.
	Lost []Lost
	// Reasons are faults of the pool that belong to no unit, such as a physical
	// function that cannot have as many virtual ones; each names an address.
	Reasons []string
}

// Offer is a unit of a pool.
type Offer struct {
	Unit *topology.Unit
	// NotReady says why the unit cannot be handed out as the host is now; empty
	// when it can. Binding may repair it unless Never is set.
	NotReady string
	// Never says that no change of drivers can make the unit ready.
	Never bool
}

// PF is a physical function that shall have virtual functions.
type PF struct {
	Address topology.Address
	// Count of virtual functions wanted; 0 takes what is there.
	Count int
}

// Lost is a function that another pool has.
type Lost struct {
	Address topology.Address
	Winner  string
}

// Find is the pool and offer of a unit, nil when no pool has it.
func (s *Selection) Find(id topology.Address) (*Selected, *Offer) {
	for i := range s.Pools {
		p := &s.Pools[i]
		j, ok := slices.BinarySearchFunc(p.Offers, id, func(o Offer, id topology.Address) int { return o.Unit.ID.Compare(id) })
		if ok {
			return p, &p.Offers[j]
		}
	}
	return nil, nil
}

// Less orders pools: higher priority first, then by name.
func Less(a, b *v1alpha1.DevicePool) int {
	return cmp.Or(cmp.Compare(b.Spec.Priority, a.Spec.Priority), strings.Compare(a.Name, b.Name))
}

// Covers reports whether a pool's nodeSelector matches a node's labels.
func Covers(p *v1alpha1.DevicePool, labels map[string]string) bool {
	for k, v := range p.Spec.NodeSelector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// selector is the state of one selection.
type selector struct {
	in     Input
	unitOf map[topology.Address]*topology.Unit // by primary
	owner  map[topology.Address]string         // unit ID -> pool
	// pfOwner are physical functions kept for their virtual ones.
	pfOwner map[topology.Address]claim
}

// claim is who has a physical function and with how many VFs.
type claim struct {
	pool  string
	count int
}

// Select decides. Pools with a slot or without a matching node are in the
// result only when they cover the node (slot pools without offers).
func Select(in Input) Selection {
	s := &selector{
		in:      in,
		unitOf:  make(map[topology.Address]*topology.Unit, len(in.Units)),
		owner:   map[topology.Address]string{},
		pfOwner: map[topology.Address]claim{},
	}
	for i := range in.Units {
		for _, p := range in.Units[i].Primaries {
			s.unitOf[p] = &in.Units[i]
		}
	}
	order := make([]*v1alpha1.DevicePool, 0, len(in.Pools))
	for i := range in.Pools {
		if p := &in.Pools[i]; Covers(p, in.Labels) && p.DeletionTimestamp == nil {
			order = append(order, p)
		}
	}
	slices.SortFunc(order, Less)
	var sel Selection
	for _, p := range order {
		sel.Pools = append(sel.Pools, s.pool(p))
	}
	return sel
}

func (s *selector) pool(p *v1alpha1.DevicePool) Selected {
	out := Selected{Pool: p}
	if p.Spec.Slot != nil {
		return out
	}
	matchers, bad := compile(p.Spec.Selectors)
	out.Reasons = bad
	if p.Spec.VFs != nil {
		s.virtual(p, matchers, &out)
	} else {
		s.whole(p, matchers, &out)
	}
	slices.SortFunc(out.Offers, func(a, b Offer) int { return a.Unit.ID.Compare(b.Unit.ID) })
	slices.SortFunc(out.Lost, func(a, b Lost) int { return a.Address.Compare(b.Address) })
	return out
}

// whole offers the functions that the selectors name.
func (s *selector) whole(p *v1alpha1.DevicePool, ms []matcher, out *Selected) {
	for i := range s.in.Host.Functions {
		f := &s.in.Host.Functions[i]
		if s.unitOf[f.Address] == nil {
			continue
		}
		named := false
		hit := slices.ContainsFunc(ms, func(m matcher) bool {
			ok := m.function(s.in.Host, f, s.in.Former)
			named = named || ok && m.addresses[f.Address]
			return ok
		})
		if !hit {
			continue
		}
		if c, ok := s.pfOwner[f.Address]; ok {
			out.Lost = append(out.Lost, Lost{f.Address, c.pool})
			continue
		}
		if f.NumVFs > 0 && !named {
			// The VFs are meant: many have their physical function's IDs.
			continue
		}
		s.take(p, f.Address, out)
	}
}

// virtual offers virtual functions of the physical functions that the
// selectors name.
func (s *selector) virtual(p *v1alpha1.DevicePool, ms []matcher, out *Selected) {
	want := int(p.Spec.VFs.Count)
	for i := range s.in.Host.Functions {
		pf := &s.in.Host.Functions[i]
		if pf.PF != nil {
			continue
		}
		var hits []matcher
		for _, m := range ms {
			if m.physical(pf, s.in.Former) {
				hits = append(hits, m)
			}
		}
		if len(hits) == 0 {
			continue
		}
		if pf.TotalVFs <= 0 {
			out.Reasons = append(out.Reasons, fmt.Sprintf("%s has no SR-IOV capability: leave spec.vfs out to offer it as a whole", pf.Address))
			continue
		}
		if u := s.unitOf[pf.Address]; u != nil {
			if w, ok := s.owner[u.ID]; ok {
				out.Lost = append(out.Lost, Lost{pf.Address, w})
				continue
			}
		}
		if want > pf.TotalVFs {
			out.Reasons = append(out.Reasons, fmt.Sprintf("%s can have %d virtual functions, spec.vfs.count asks for %d", pf.Address, pf.TotalVFs, want))
			continue
		}
		if c, ok := s.pfOwner[pf.Address]; ok {
			if want != 0 && c.count != 0 && c.count != want {
				out.Reasons = append(out.Reasons, fmt.Sprintf("%s: pool %s asks for %d virtual functions and wins over the %d asked for here", pf.Address, c.pool, c.count, want))
			}
			if c.count == 0 && want != 0 {
				s.pfOwner[pf.Address] = claim{p.Name, want}
				out.PFs = append(out.PFs, PF{pf.Address, want})
			}
		} else {
			s.pfOwner[pf.Address] = claim{p.Name, want}
			out.PFs = append(out.PFs, PF{pf.Address, want})
		}
		for n, vf := range pf.VFs {
			if s.in.Host.Function(vf) == nil {
				continue
			}
			if slices.ContainsFunc(hits, func(m matcher) bool { return m.wantsVF(pf, n) }) {
				s.take(p, vf, out)
			}
		}
	}
}

// take gives the unit of a function to a pool or says who has it.
func (s *selector) take(p *v1alpha1.DevicePool, a topology.Address, out *Selected) {
	u := s.unitOf[a]
	if u == nil {
		return
	}
	switch w, ok := s.owner[u.ID]; {
	case !ok:
		s.owner[u.ID] = p.Name
		o := Offer{Unit: u}
		o.NotReady, o.Never = Judge(s.in.Host, u, &p.Spec)
		out.Offers = append(out.Offers, o)
	case w != p.Name:
		out.Lost = append(out.Lost, Lost{a, w})
	}
}

// Judge says why a unit cannot be handed out by a pool as the host is now;
// never tells that binding drivers cannot repair it.
func Judge(h *topology.Host, u *topology.Unit, spec *v1alpha1.DevicePoolSpec) (reason string, never bool) {
	if u.Blocked != "" {
		return u.Blocked, true
	}
	if spec.Companions == "Refuse" && len(u.Members) > len(u.Primaries) {
		for _, m := range u.Members {
			if !slices.Contains(u.Primaries, m) {
				return fmt.Sprintf("%s shares the IOMMU group and the pool refuses companions", m), true
			}
		}
	}
	for _, m := range u.Members {
		f := h.Function(m)
		if f == nil {
			return fmt.Sprintf("%s is not there", m), true
		}
		if f.NumVFs > 0 {
			return fmt.Sprintf("%s has %d virtual functions", m, f.NumVFs), true
		}
	}
	for _, m := range u.Members {
		f := h.Function(m)
		primary := slices.Contains(u.Primaries, m)
		switch {
		case f.Driver == "":
			// Companions go to the guest too, so they need a VFIO driver as well.
			return fmt.Sprintf("%s has no driver", m), spec.Driver == DriverKeep
		case f.Driver != "" && !f.VFIO():
			return fmt.Sprintf("%s is bound to %s", m, f.Driver), spec.Driver == DriverKeep
		case primary && !driverFits(spec.Driver, f.Driver):
			return fmt.Sprintf("%s is bound to %s, the pool wants %s", m, f.Driver, spec.Driver), false
		}
	}
	return "", false
}

// The two values of spec.driver that are no driver's name, and the default.
const (
	DriverKeep    = "keep"
	DriverAuto    = "auto"
	DriverDefault = "vfio-pci"
)

// driverFits compares as the kernel names modules: '-' and '_' are alike.
func driverFits(want, have string) bool {
	switch want {
	case DriverKeep, DriverAuto, "":
		return true
	}
	return strings.ReplaceAll(want, "-", "_") == strings.ReplaceAll(have, "-", "_")
}

// Resources are the resource names of the selected pools, sorted, each once.
func (s *Selection) Resources() []string {
	set := map[string]bool{}
	for i := range s.Pools {
		set[s.Pools[i].Pool.Spec.ResourceName] = true
	}
	return slices.Sorted(maps.Keys(set))
}
