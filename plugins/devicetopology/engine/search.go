package engine

import (
	"slices"

	"github.com/kubevfio/kubevfio/topology"
)

// maxLeaves caps how many complete candidates one choice compares. The best of
// those seen wins; feasibility is never capped.
const maxLeaves = 512

// Choice is a set of units that fits a request.
type Choice struct {
	// Units are unit indexes by item of the request, each in the order in which
	// they should be handed to containers: sorted.
	Units [][]int
	// Level is the nearest level whose one domain holds all units.
	Level topology.Distance
	// NUMA nodes that the units touch, sorted; unknown nodes are left out.
	NUMA []int
	// Cost is what remains of the objective below the level: smaller is better.
	Cost Cost
}

// Cost orders choices of one level: first what becomes unusable for others,
// then how spread out the choice is.
type Cost struct {
	// Fragmentation is the rise of expected unusable units, in thousandths.
	Fragmentation int64
	// Spread counts places touched, nearest kinds weighing least.
	Spread int64
}

func (c Cost) less(d Cost) bool {
	if c.Fragmentation != d.Fragmentation {
		return c.Fragmentation < d.Fragmentation
	}
	return c.Spread < d.Spread
}

// Feasible reports whether the request fits on the node now, and the nearest
// level at which it does. It allocates nothing beyond binding the request.
func Feasible(st *State, req *Request) (topology.Distance, bool) {
	s := st.Node.Shape
	b := bind(s, req)
	if b.missing != "" {
		return topology.Other, false
	}
	return st.level(b, req)
}

// level is the nearest level with a domain that holds the whole request.
func (st *State) level(b *bound, req *Request) (topology.Distance, bool) {
	s := st.Node.Shape
	if !st.fits(&s.whole, b) {
		return topology.Other, false
	}
	for l := range levels {
		if req.Required && topology.Distance(l) > req.Level {
			return topology.Other, false
		}
		for d := range s.domains[l] {
			if st.fits(&s.domains[l][d], b) {
				return topology.Distance(l), true
			}
		}
	}
	return topology.Other, !req.Required || singleUnit(b)
}

// singleUnit requests are aligned with themselves wherever they are.
func singleUnit(b *bound) bool {
	return len(b.n) == 1 && b.n[0] == 1
}

// fits reports whether a domain holds the whole request.
func (st *State) fits(d *domain, b *bound) bool {
	for i, r := range b.res {
		if st.freeIn(d, r) < b.n[i] {
			return false
		}
		if b.n[i] > 1 && st.Node.Shape.fabric[r] != nil && !st.fabricFits(d, r, b.n[i]) {
			return false
		}
	}
	return true
}

// fabricFits reports whether a legal set of n units is free inside a domain.
// With units held by pods that do not say which, no set is sure.
func (st *State) fabricFits(d *domain, res, n int) bool {
	if st.unknown[res] > 0 {
		return false
	}
	for _, set := range st.Node.Shape.fabric[res] {
		if len(set) == n && st.setFree(set) && subset(set, d.cells[res]) {
			return true
		}
	}
	return false
}

func (st *State) setFree(set []uint16) bool {
	for _, c := range set {
		if st.free[c] == 0 {
			return false
		}
	}
	return true
}

// subset of two sorted lists.
func subset(a, b []uint16) bool {
	i := 0
	for _, x := range a {
		for i < len(b) && b[i] < x {
			i++
		}
		if i == len(b) || b[i] != x {
			return false
		}
	}
	return true
}

// Choose picks the units for a request: the nearest level, then the least cost.
// The same state and request give the same choice. ok is false when the request
// does not fit.
func Choose(st *State, req *Request) (Choice, bool) {
	s := st.Node.Shape
	b := bind(s, req)
	if b.missing != "" {
		return Choice{}, false
	}
	level, ok := st.level(b, req)
	if !ok {
		return Choice{}, false
	}
	sr := search{st: st, b: b, take: make([]uint16, len(s.cells)), best: make([]uint16, len(s.cells))}
	if level == topology.Other {
		sr.domain(&s.whole)
	} else {
		for d := range s.domains[level] {
			if st.fits(&s.domains[level][d], b) {
				sr.domain(&s.domains[level][d])
			}
		}
	}
	c := Choice{Level: level, Cost: sr.cost, Units: make([][]int, len(b.res))}
	for i, r := range b.res {
		c.Units[i] = st.pick(sr.best, r)
		for _, u := range c.Units[i] {
			if n := s.NUMAOf(u); n != topology.NUMAUnknown && !slices.Contains(c.NUMA, n) {
				c.NUMA = append(c.NUMA, n)
			}
		}
	}
	slices.Sort(c.NUMA)
	return c, true
}

// search enumerates the ways to take the request out of a domain's cells.
type search struct {
	st     *State
	b      *bound
	take   []uint16
	best   []uint16
	cost   Cost
	found  bool
	leaves int
	dom    *domain
}

func (sr *search) domain(d *domain) {
	sr.dom = d
	sr.item(0)
}

// item places item i and then the following ones.
func (sr *search) item(i int) {
	if i == len(sr.b.res) {
		sr.leaf()
		return
	}
	r, n := sr.b.res[i], sr.b.n[i]
	if n > 1 && sr.st.Node.Shape.fabric[r] != nil {
		for _, set := range sr.st.Node.Shape.fabric[r] {
			if len(set) != n || !sr.st.setFree(set) || !subset(set, sr.dom.cells[r]) {
				continue
			}
			for _, c := range set {
				sr.take[c]++
			}
			sr.item(i + 1)
			for _, c := range set {
				sr.take[c]--
			}
		}
		return
	}
	left := 0
	for _, c := range sr.dom.cells[r] {
		left += int(sr.st.free[c])
	}
	sr.cells(i, 0, n, left)
}

// cells places n units of item i in the domain's cells from number at on, of
// which left units are free.
func (sr *search) cells(i, at, n, left int) {
	if n == 0 {
		sr.item(i + 1)
		return
	}
	cells := sr.dom.cells[sr.b.res[i]]
	if at == len(cells) || left < n || sr.leaves >= maxLeaves {
		return
	}
	c := cells[at]
	free := int(sr.st.free[c])
	for k := min(n, free); k >= 0; k-- {
		sr.take[c] = uint16(k)
		sr.cells(i, at+1, n-k, left-free)
	}
	sr.take[c] = 0
}

func (sr *search) leaf() {
	sr.leaves++
	cost := sr.price()
	if !sr.found || cost.less(sr.cost) {
		sr.found, sr.cost = true, cost
		copy(sr.best, sr.take)
	}
}

// price is the cost of the candidate in sr.take.
func (sr *search) price() Cost {
	s := sr.st.Node.Shape
	// Spread: a touched domain weighs more the farther its level; what stays
	// free in touched cells comes last, so that tight places fill first.
	var spread int64
	for l := range levels {
		for d := range s.domains[l] {
			if sr.touches(&s.domains[l][d]) {
				spread += int64(1) << (8 + 6*l)
			}
		}
	}
	for _, r := range sr.b.res {
		for _, c := range sr.dom.cells[r] {
			if sr.take[c] > 0 {
				spread += int64(min(sr.st.free[c]-sr.take[c], 15))
			}
		}
	}
	return Cost{Spread: spread}
}

func (sr *search) touches(d *domain) bool {
	for _, r := range sr.b.res {
		for _, c := range d.cells[r] {
			if sr.take[c] > 0 {
				return true
			}
		}
	}
	return false
}

// pick takes the counted units of a resource out of their cells: from the
// physical functions with the fewest free units first, lowest address first.
func (st *State) pick(take []uint16, res int) []int {
	s := st.Node.Shape
	var out []int
	for _, c := range s.whole.cells[res] {
		k := int(take[c])
		if k == 0 {
			continue
		}
		var free []int
		perPF := map[int]int{}
		for _, u := range s.cells[c].units {
			if !st.taken.has(int(u)) {
				free = append(free, int(u))
				perPF[s.unitPF[u]]++
			}
		}
		slices.SortStableFunc(free, func(x, y int) int {
			return perPF[s.unitPF[x]] - perPF[s.unitPF[y]]
		})
		out = append(out, free[:k]...)
	}
	slices.Sort(out)
	return out
}

// Score turns a choice into 0 to 100, more being better: 20 points per level,
// the rest by spread.
func Score(c Choice) int64 {
	s := int64(topology.Other-c.Level) * 20
	return s + 19 - min(19, c.Cost.Spread>>9)
}
