package engine

import "github.com/kubevfio/kubevfio/topology"

// Feasible reports whether the request fits on the node now, and the nearest
// level at which it does. It allocates nothing (but the first time that a
// request meets a shape).
func Feasible(st *State, req *Request) (topology.Distance, bool) {
	b := req.on(st.Node.Shape)
	if b.missing != "" {
		return topology.Other, false
	}
	return st.prof.level(b, req)
}

// level is the nearest level with a domain that holds the whole request.
func (p *Profile) level(b *bound, req *Request) (topology.Distance, bool) {
	s := p.shape
	if !p.fits(s.wholeDom, b) {
		return topology.Other, false
	}
	for l := topology.SameSwitch; l < topology.Other; l++ {
		if req.Required && l > req.Level {
			break
		}
		for d := s.firstDom[l]; d < s.firstDom[l+1]; d++ {
			if p.fits(d, b) {
				return l, true
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
func (p *Profile) fits(d int, b *bound) bool {
	for i, r := range b.res {
		if p.sum(d, r) < b.n[i] {
			return false
		}
		if b.n[i] > 1 && p.shape.fabric[r] != nil && !p.fabricFits(d, r, b.n[i]) {
			return false
		}
	}
	return true
}

// fabricFits reports whether a legal set of n units is free inside a domain.
// With units held by pods that do not say which, no set is sure.
func (p *Profile) fabricFits(d, res, n int) bool {
	if p.unknown[res] > 0 {
		return false
	}
	for _, set := range p.shape.fabric[res] {
		if len(set) == n && p.setFree(set) && subset(set, p.shape.doms[d].cells[res]) {
			return true
		}
	}
	return false
}

func (p *Profile) setFree(set []uint16) bool {
	for _, c := range set {
		if p.free[c] == 0 {
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
