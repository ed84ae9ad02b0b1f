package engine

import (
	"slices"
	"sync"

	"github.com/kubevfio/kubevfio/topology"
)

// maxLeaves caps how many complete candidates one choice compares; the best of
// those seen wins. Feasibility and the level reached are never capped.
const maxLeaves = 96

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

// choose returns the memoised or computed result.
func (p *Profile) choose(req *Request, mix *Mix) *result {
	if r := p.lookup(req, mix); r != nil {
		return r
	}
	r := p.compute(req, mix)
	p.remember(req, mix, r)
	return r
}

// compute searches for the best candidate.
func (p *Profile) compute(req *Request, mix *Mix) *result {
	s := p.shape
	b := req.on(s)
	if b.missing != "" {
		return &result{level: topology.Other}
	}
	level, ok := p.level(b, req)
	if !ok {
		return &result{level: topology.Other}
	}
	sr := searchPool.Get().(*search)
	defer searchPool.Put(sr)
	sr.reset(p, b, mix)
	// A level nearer than the wish is worth no more than the wish: its domains
	// are inside those of the wish, and fragmentation decides. The nearest
	// domains come first all the same, for the search is capped.
	goal := max(level, req.Level)
	if singleUnit(b) {
		goal = topology.Other
	}
	sr.level(level)
	if goal != level {
		sr.level(goal)
	}
	res := &result{ok: sr.found, cost: sr.cost, take: slices.Clone(sr.best), before: sr.beforeCopies, after: sr.after, worth: mix.worths(&sr.types, b)}
	res.level = p.levelOf(b, sr.best)
	return res
}

// levelOf is the nearest level whose one domain holds all units taken.
func (p *Profile) levelOf(b *bound, take []uint16) topology.Distance {
	s := p.shape
	for l := topology.SameSwitch; l < topology.Other; l++ {
		dom, all := -1, true
		for _, r := range b.res {
			for _, c := range s.whole().cells[r] {
				if take[c] == 0 {
					continue
				}
				d := s.cells[c].dom[l]
				if d < 0 || (dom >= 0 && d != dom) {
					all = false
				}
				dom = d
			}
		}
		if all && dom >= 0 {
			return l
		}
	}
	return topology.Other
}

// search enumerates ways to take a request out of a domain's cells. It is
// scratch space, kept in a pool.
type search struct {
	fit
	b   *bound
	mix *Mix
	// types are the mix's types on the shape.
	types mixBounds
	// order are the request's items, scarcest resource first.
	order []int
	best  []uint16
	// before is what the mix cannot use without the request, beforeCopies its
	// copies by type.
	before       int64
	beforeCopies copies
	cost         Cost
	after        copies
	found        bool
	leaves       int
	// limit is the number of leaves at which the current domain's turn ends.
	limit int
	dom   int
}

var searchPool = sync.Pool{New: func() any { return &search{} }}

func (sr *search) reset(p *Profile, b *bound, mix *Mix) {
	s := p.shape
	*sr = search{
		fit: fit{
			p:    p,
			used: resized(sr.used, len(p.sums)),
			take: resized(sr.take, len(s.cells)),
		},
		b: b, mix: mix,
		order: sr.order[:0],
		best:  resized(sr.best, len(s.cells)),
	}
	for i := range b.res {
		sr.order = append(sr.order, i)
	}
	slices.SortStableFunc(sr.order, func(x, y int) int { return b.scarcity[y] - b.scarcity[x] })
	if mix != nil {
		sr.types = mix.on(s)
		var cp copies
		mix.count(&sr.fit, &sr.types, &cp)
		sr.before = mix.unusable(&sr.fit, &sr.types, &cp)
		sr.beforeCopies = cp
	}
}

// resized is a cleared slice of n elements, of the old one's memory if it can.
func resized[T any](old []T, n int) []T {
	if cap(old) < n {
		return make([]T, n)
	}
	old = old[:n]
	clear(old)
	return old
}

// add takes k more units of a cell (or gives them back when negative).
func (sr *search) add(c uint16, k int) {
	s := sr.p.shape
	cell := &s.cells[c]
	sr.take[c] = uint16(int(sr.take[c]) + k)
	nr := len(s.resources)
	for _, d := range cell.dom {
		if d >= 0 {
			sr.used[d*nr+cell.res] += int32(k)
		}
	}
	sr.used[s.wholeDom*nr+cell.res] += int32(k)
}

// level tries the domains of one level that hold the request; of domains that
// no objective tells apart only the first.
func (sr *search) level(l topology.Distance) {
	s := sr.p.shape
	if l == topology.Other {
		sr.domain(s.wholeDom)
		return
	}
next:
	for d := s.firstDom[l]; d < s.firstDom[l+1]; d++ {
		if !sr.p.fits(d, sr.b) {
			continue
		}
		for e := s.firstDom[l]; e < d; e++ {
			if sr.p.equalDomains(d, e) {
				continue next
			}
		}
		sr.domain(d)
	}
}

// equalDomains reports whether two domains of one level look alike, and all
// that is around them: swapping them would change nothing.
func (p *Profile) equalDomains(d, e int) bool {
	s := p.shape
	for d != e {
		up, down := -1, -1
		for r := range s.resources {
			a, b := s.doms[d].cells[r], s.doms[e].cells[r]
			if s.fabric[r] != nil || len(a) != len(b) {
				return false
			}
			for i := range a {
				if p.free[a[i]] != p.free[b[i]] {
					return false
				}
				up, down = s.doms[d].parent, s.doms[e].parent
			}
		}
		if up < 0 || down < 0 {
			return up == down
		}
		d, e = up, down
	}
	return true
}

func (sr *search) domain(d int) {
	sr.dom = d
	sr.limit = sr.leaves + maxLeaves/2
	sr.item(0)
}

// done says that the cap is reached.
func (sr *search) done() bool { return sr.leaves >= maxLeaves*4 || sr.leaves >= sr.limit }

// item places the item at place i of the order and then the following ones.
func (sr *search) item(i int) {
	if i == len(sr.order) {
		sr.leaf()
		return
	}
	p := sr.p
	r, n := sr.b.res[sr.order[i]], sr.b.n[sr.order[i]]
	cells := p.shape.doms[sr.dom].cells[r]
	switch {
	case n > 1 && p.shape.fabric[r] != nil:
		for _, set := range p.shape.fabric[r] {
			if len(set) != n || sr.done() || !p.setFree(set) || !subset(set, cells) {
				continue
			}
			for _, c := range set {
				sr.add(c, 1)
			}
			sr.item(i + 1)
			for _, c := range set {
				sr.add(c, -1)
			}
		}
	case i == 0:
		left := 0
		for _, c := range cells {
			left += int(p.free[c])
		}
		sr.spread(i, 0, n, left)
	default:
		// Items after the scarcest follow it by three rules instead of all ways.
		for rule := range rules {
			sr.follow(i, rule)
		}
	}
}

// spread places n units of the first item in the domain's cells from number at
// on, of which left units are free, in all ways that symmetry leaves.
func (sr *search) spread(i, at, n, left int) {
	if n == 0 {
		sr.item(i + 1)
		return
	}
	cells := sr.p.shape.doms[sr.dom].cells[sr.b.res[sr.order[i]]]
	if at == len(cells) || left < n || sr.done() {
		return
	}
	c := cells[at]
	free := int(sr.p.free[c])
	most := min(n, free)
	if at > 0 && sr.twins(cells[at-1], c) {
		// Of two equal cells side by side the first takes at least as much.
		most = min(most, int(sr.take[cells[at-1]]))
	}
	for k := most; k >= 0; k-- {
		sr.add(c, k)
		sr.spread(i, at+1, n-k, left-free)
		sr.add(c, -k)
	}
}

// twins are cells that no objective tells apart: siblings below one domain,
// with the same free units of every resource around them.
func (sr *search) twins(x, y uint16) bool {
	s, p := sr.p.shape, sr.p
	a, b := &s.cells[x], &s.cells[y]
	if p.free[x] != p.free[y] {
		return false
	}
	for l := range a.dom {
		da, db := a.dom[l], b.dom[l]
		if da == db {
			continue
		}
		if da < 0 || db < 0 {
			return false
		}
		for r := range s.resources {
			if p.sum(da, r) != p.sum(db, r) || len(s.doms[da].cells[r]) != len(s.doms[db].cells[r]) {
				return false
			}
		}
		if s.fabric[a.res] != nil {
			return false
		}
	}
	return true
}

// rules are the ways in which a later item follows the first: near it, tight
// cells first, roomy cells first.
const (
	ruleNear = iota
	ruleTight
	ruleRoomy
	rules
)

// follow places item i by one rule. It allocates nothing.
func (sr *search) follow(i, rule int) {
	p, s := sr.p, sr.p.shape
	r, n := sr.b.res[sr.order[i]], sr.b.n[sr.order[i]]
	cells := s.doms[sr.dom].cells[r]
	lead := sr.b.res[sr.order[0]]
	leadN := sr.b.n[sr.order[0]]
	placed := 0
	if rule == ruleNear {
		// As many per switch, then root, then NUMA node, as the lead has there
		// in proportion.
		for l := 0; l < levels && placed < n; l++ {
			for _, c := range cells {
				d := s.cells[c].dom[l]
				if d < 0 || placed == n {
					continue
				}
				nr := len(s.resources)
				share := int(sr.used[d*nr+lead])*n/leadN - int(sr.used[d*nr+r])
				if k := min(share, int(p.free[c])-int(sr.take[c]), n-placed); k > 0 {
					sr.add(c, k)
					placed += k
				}
			}
		}
	}
	for placed < n {
		// The next cell by the rule, all that it has.
		next, room := -1, 0
		for _, c := range cells {
			k := int(p.free[c]) - int(sr.take[c])
			if k <= 0 {
				continue
			}
			if next < 0 || (rule == ruleRoomy && k > room) || (rule != ruleRoomy && k < room) {
				next, room = int(c), k
			}
		}
		if next < 0 {
			break
		}
		k := min(room, n-placed)
		sr.add(uint16(next), k)
		placed += k
	}
	if placed == n && !sr.done() {
		sr.item(i + 1)
	}
	for _, c := range cells {
		if sr.take[c] > 0 {
			sr.add(c, -int(sr.take[c]))
		}
	}
}

func (sr *search) leaf() {
	sr.leaves++
	cost := Cost{Spread: sr.spreadCost()}
	var cp copies
	if sr.mix != nil {
		sr.mix.count(&sr.fit, &sr.types, &cp)
		cost.Fragmentation = sr.mix.unusable(&sr.fit, &sr.types, &cp) - sr.before
	}
	if !sr.found || cost.less(sr.cost) {
		sr.found, sr.cost, sr.after = true, cost, cp
		copy(sr.best, sr.take)
	}
}

// spreadCost weighs the places touched: a domain weighs more the farther its
// level; units that have no partner of the other kinds in their switch come
// next; what stays free in touched cells comes last, so that tight places fill
// first.
func (sr *search) spreadCost() int64 {
	s := sr.p.shape
	nr := len(s.resources)
	var cost int64
	for l := range levels {
		for d := s.firstDom[l]; d < s.firstDom[l+1]; d++ {
			touched := false
			for i, r := range sr.b.res {
				u := sr.used[d*nr+r]
				if u == 0 {
					continue
				}
				touched = true
				if i > 0 {
					continue
				}
				for j, q := range sr.b.res[1:] {
					// Off by how much from the proportion of the request.
					off := int64(u)*int64(sr.b.n[j+1]) - int64(sr.used[d*nr+q])*int64(sr.b.n[0])
					cost += max(off, -off) << (2 * l)
				}
			}
			if touched {
				cost += int64(1) << (8 + 6*l)
			}
		}
	}
	for _, r := range sr.b.res {
		for _, c := range s.doms[sr.dom].cells[r] {
			if sr.take[c] > 0 {
				cost += int64(min(sr.p.free[c]-sr.take[c], 15))
			}
		}
	}
	return cost
}

// evaluate is the result for units that are already chosen.
func (p *Profile) evaluate(b *bound, mix *Mix, take []uint16) result {
	sr := searchPool.Get().(*search)
	defer searchPool.Put(sr)
	sr.reset(p, b, mix)
	sr.dom = p.shape.wholeDom
	for c, k := range take {
		if k > 0 {
			sr.add(uint16(c), int(k))
		}
	}
	sr.leaf()
	return result{ok: true, level: p.levelOf(b, take), cost: sr.cost, take: slices.Clone(take), before: sr.beforeCopies, after: sr.after, worth: sr.mix.worths(&sr.types, sr.b)}
}

// pick takes the counted units of a resource out of their cells: from the
// physical functions with the fewest free units first, lowest address first.
// Units in skip are gone.
func (st *State) pick(take []uint16, res int, skip bitset) []int {
	s := st.Node.Shape
	var out []int
	for _, c := range s.whole().cells[res] {
		k := int(take[c])
		if k == 0 {
			continue
		}
		var free []int
		perPF := map[int]int{}
		for _, u := range s.cells[c].units {
			if !st.taken.has(int(u)) && !skip.has(int(u)) {
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
