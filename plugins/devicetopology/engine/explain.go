package engine

import (
	"fmt"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
)

// Never reports whether a node of this shape could not hold the request even if it were
// empty: its hardware, not its pods, is in the way. Units that are not ready
// count as there, for they may recover.
func Never(s *Shape, req *Request) bool {
	b := req.on(s)
	if b.missing != "" {
		return true
	}
	_, ok := s.empty().level(b, req)
	return !ok
}

// empty is the profile of the shape with every unit free.
func (s *Shape) empty() *Profile {
	s.emptyOnce.Do(func() {
		free := make([]uint16, len(s.cells))
		for c := range s.cells {
			free[c] = uint16(len(s.cells[c].units))
		}
		s.emptyProfile = newProfile(s, free, make([]uint16, len(s.resources)))
	})
	return s.emptyProfile
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

// Explain says in plain words why a pod does not fit on a node now. The text
// has no trailing dot. It is for pods that [Fits] refused. Without a node name
// it says "the node", so that a scheduler can count equal reasons.
//
// The text is remembered: in a full cluster every node is asked for every pod.
func Explain(st *State, pod *Pod, node string) string {
	if w := st.why.Load(); w != nil && w.pod == pod && w.node == node {
		return w.text
	}
	text := st.explain(pod, node)
	st.why.Store(&why{pod: pod, node: node, text: text})
	return text
}

// why is a remembered explanation.
type why struct {
	pod        *Pod
	node, text string
}

func (st *State) explain(pod *Pod, node string) string {
	req := pod.Request
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
	b := req.on(s)
	if !st.prof.fits(s.wholeDom, b) {
		for i, r := range b.res {
			if b.n[i] > 1 && s.fabric[r] != nil && !st.prof.fabricFits(s.wholeDom, r, b.n[i]) {
				return fmt.Sprintf("needs %d %s, %s has %s but no free fabric partition of %d", b.n[i], s.resources[r], node, st.freeOf(r), b.n[i])
			}
		}
	}
	if _, ok := Feasible(st, req); ok {
		p, _ := Place(st, pod, nil)
		return fmt.Sprintf("needs %s, %s has them free but its kubelet would refuse: %s", req, node, p.reason)
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
	for _, c := range s.whole().cells[res] {
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
	if k := st.prof.unknown[res]; k > 0 {
		out += fmt.Sprintf(" (%d held by pods without an assignment)", k)
	}
	return out
}

// nearest is ", would fit with required:LEVEL" for the nearest level that does.
func (st *State) nearest(b *bound) string {
	l, ok := st.prof.level(b, &Request{Level: topology.Other})
	if !ok || l == topology.Other {
		return ""
	}
	return fmt.Sprintf(", would fit with %s", l)
}

// Near collects why hardware cannot hold a request and keeps the nearest miss.
type Near struct {
	best  float64
	text  string
	nodes int
	req   *Request
}

// Add looks at one shape that cannot hold the request, of which node is an
// example.
func (n *Near) Add(s *Shape, req *Request, node string) {
	n.req = req
	n.nodes++
	b := req.on(s)
	// How much of the request the shape has, plus its nearest level.
	part := 0.0
	var have []string
	enough := true
	for i, it := range req.Items {
		total := 0
		if b.res[i] >= 0 {
			total = s.Total(b.res[i])
		}
		if total < it.Count {
			enough = false
		}
		part += min(1, float64(total)/float64(it.Count)) / float64(len(req.Items))
		have = append(have, fmt.Sprintf("%d %s", total, it.Resource))
	}
	text := fmt.Sprintf("node %s has %s in all", node, strings.Join(have, " and "))
	if enough && b.missing == "" {
		p := s.empty()
		if l, ok := p.level(b, &Request{Level: topology.Other}); ok {
			part += float64(topology.Other-l+1) / 10
			text = fmt.Sprintf("node %s has them, but not behind one %s", node, levelPhrase(req.Level))
			if l < topology.Other {
				text += fmt.Sprintf("; it could with %s", l)
			}
		} else {
			text = fmt.Sprintf("node %s has %s, but no fabric partition of that size", node, strings.Join(have, " and "))
		}
	}
	if n.text == "" || part > n.best || (part == n.best && text < n.text) {
		n.best, n.text = part, text
	}
}

// String is the message for the pod's owner.
func (n *Near) String() string {
	return fmt.Sprintf("no node's hardware can ever fit this pod: needs %s, nearest: %s", n.req, n.text)
}
