package engine

import (
	"fmt"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
)

// Never reports whether the node could not hold the request even if it were
// empty: its hardware, not its pods, is in the way. Units that are not ready
// count as there, for they may recover.
func Never(n *Node, req *Request) bool {
	st := NewState(n)
	for i := range n.IDs {
		if st.taken.has(i) {
			st.free[n.Shape.unitCell[i]]++
		}
	}
	clear(st.taken)
	_, ok := Feasible(st, req)
	return !ok
}

// levelPhrase is the place that units of one level share.
func levelPhrase(l topology.Distance) string {
	switch l {
	case topology.SameSwitch:
		return "PCIe switch"
	case topology.SameRoot:
		return "PCIe root complex"
	case topology.SameNUMA:
		return "NUMA node"
	case topology.SameSocket:
		return "CPU socket"
	default:
		return "node"
	}
}

// Explain says in plain words why a request does not fit on a node now. The
// text has no trailing dot. It is for requests that [Feasible] refused. Without
// a node name it says "the node", so that a scheduler can count equal reasons.
func Explain(st *State, req *Request, node string) string {
	s := st.Node.Shape
	if node = "node " + node; node == "node " {
		node = "the node"
	}
	var lacking []string
	for _, it := range req.Items {
		r := s.Resource(it.Resource)
		if r < 0 {
			return fmt.Sprintf("needs %d %s, %s offers none", it.Count, it.Resource, node)
		}
		if free := st.Free(r); free < it.Count {
			lacking = append(lacking, fmt.Sprintf("needs %d %s, %s has %s", it.Count, it.Resource, node, st.freeOf(r)))
		}
	}
	if len(lacking) > 0 {
		return strings.Join(lacking, "; ")
	}
	b := bind(s, req)
	if !st.fits(&s.whole, b) {
		for i, r := range b.res {
			if b.n[i] > 1 && s.fabric[r] != nil && !st.fabricFits(&s.whole, r, b.n[i]) {
				return fmt.Sprintf("needs %d %s, %s has %s but no free fabric partition of %d", b.n[i], s.resources[r], node, st.freeOf(r), b.n[i])
			}
		}
	}
	var have []string
	for _, r := range b.res {
		have = append(have, fmt.Sprintf("%d %s", st.Free(r), s.resources[r]))
	}
	level := levelPhrase(req.Level)
	return fmt.Sprintf("needs %s, %s has %s free but not behind one %s (required: %s)%s",
		itemsOf(req), node, strings.Join(have, " and "), level, req.Level, st.nearest(b))
}

// itemsOf is "2 a and 1 b".
func itemsOf(req *Request) string {
	var parts []string
	for _, it := range req.Items {
		parts = append(parts, fmt.Sprintf("%d %s", it.Count, it.Resource))
	}
	return strings.Join(parts, " and ")
}

// freeOf is "1 free of 8", with what is not ready.
func (st *State) freeOf(res int) string {
	s := st.Node.Shape
	total, bad := 0, 0
	for _, c := range s.whole.cells[res] {
		for _, u := range s.cells[c].units {
			total++
			if !st.Node.ready.has(int(u)) {
				bad++
			}
		}
	}
	out := fmt.Sprintf("%d free of %d", st.Free(res), total)
	if bad > 0 {
		out += fmt.Sprintf(" (%d not ready)", bad)
	}
	if k := st.unknown[res]; k > 0 {
		out += fmt.Sprintf(" (%d held by pods without an assignment)", k)
	}
	return out
}

// nearest is ", would fit with required:LEVEL" for the nearest level that does.
func (st *State) nearest(b *bound) string {
	l, ok := st.level(b, &Request{Level: topology.Other})
	if !ok || l == topology.Other {
		return ""
	}
	return fmt.Sprintf(", would fit with %s", l)
}
