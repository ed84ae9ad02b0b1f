package main

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
	"github.com/kubevfio/kubevfio/topology"
)

const (
	// exactNodes is the size of the small clusters.
	exactNodes = 3
	// exactVisits bounds one search; clusters beyond it are reported as not
	// solved. Counted, so that results repeat.
	exactVisits = 300_000
)

// gap is one small cluster: the most GPUs that anybody who knows all pods in
// advance can allocate with every required wish granted, and what the policies
// allocated as the pods arrived one by one.
type gap struct {
	optimum int
	// solved is false when the search was cut off; optimum is then the best found.
	solved bool
	// got are the GPUs allocated by policy.
	got map[string]int
}

// exactGaps draws small clusters from the trace and solves them.
func exactGaps(o *options, nodes []nodeRow, pods []podRow, ov *overlay) ([]gap, error) {
	var withGPUs []nodeRow
	for _, n := range nodes {
		if n.gpus > 0 && n.gpus <= 16 {
			withGPUs = append(withGPUs, n)
		}
	}
	if len(withGPUs) == 0 {
		return nil, fmt.Errorf("%w: no node has 1 to 16 GPUs, which --exact can solve", errTrace)
	}
	mix := shares(pods)
	var out []gap
	for i := range o.exact {
		r := rand.New(rand.NewPCG(uint64(i), 9))
		var rows []nodeRow
		for range exactNodes {
			rows = append(rows, withGPUs[r.IntN(len(withGPUs))])
		}
		c, err := newCluster(rows, ov)
		if err != nil {
			return nil, err
		}
		var list []*pod
		drawn, err := draw(r, c.capacity, pods, ov)
		if err != nil {
			return nil, err
		}
		for _, p := range drawn {
			// Pods without GPUs go by one rule under every policy: left out here.
			if p.gpus > 0 {
				list = append(list, p)
			}
		}
		g := gap{got: map[string]int{}}
		if g.optimum, g.solved, err = solve(c, list); err != nil {
			return nil, err
		}
		for _, name := range o.policies {
			fresh, err := newCluster(rows, ov)
			if err != nil {
				return nil, err
			}
			res, err := replay(name, fresh, list, mix, uint64(i))
			if err != nil {
				return nil, err
			}
			g.got[name] = res.gpus
		}
		out = append(out, g)
	}
	return out, nil
}

// exactNode is a node as the solver sees it. GPUs are bits in the order of
// their index among the node's GPUs.
type exactNode struct {
	n    *node
	gpus []int
	free uint16
	have engine.Resources
	// levels are the domains of each level; the whole node is the last one.
	levels [topology.Other + 1][]domain
	// legal says which sets the fabric allows; nil for all.
	legal map[uint16]bool
}

// domain is what is near at some level.
type domain struct {
	gpus uint16
	// vf: there are network functions in it.
	vf bool
}

// solver is a branch and bound search over pods, biggest first.
type solver struct {
	nodes  []*exactNode
	pods   []*pod
	rest   []int // GPUs wanted by the pods from i on
	best   int
	visits int
	seen   map[string]int
}

// solve finds the most GPUs that can be allocated to a subset of the pods. Network
// functions must be plenty: then only their being there near the GPUs matters.
func solve(c *cluster, list []*pod) (best int, solved bool, err error) {
	s := &solver{seen: map[string]int{}}
	perGPU := 0
	for _, p := range list {
		perGPU = max(perGPU, (p.vfs+p.gpus-1)/p.gpus)
	}
	for _, n := range c.nodes {
		en, err := newExactNode(n, perGPU)
		if err != nil {
			return 0, false, err
		}
		s.nodes = append(s.nodes, en)
	}
	s.pods = slices.Clone(list)
	slices.SortStableFunc(s.pods, func(a, b *pod) int {
		return cmp.Or(cmp.Compare(b.gpus, a.gpus), cmp.Compare(a.kind(), b.kind()))
	})
	s.rest = make([]int, len(s.pods)+1)
	for i := len(s.pods) - 1; i >= 0; i-- {
		s.rest[i] = s.rest[i+1] + s.pods[i].gpus
	}
	s.search(0, 0)
	return s.best, s.visits < exactVisits, nil
}

// kind is equal for pods that the solver cannot tell apart.
func (p *pod) kind() string {
	return fmt.Sprint(p.gpus, p.vfs > 0, p.level, p.required, p.need, p.row.models)
}

func newExactNode(n *node, perGPU int) (*exactNode, error) {
	e := &exactNode{n: n, have: n.have}
	var vfs []int
	near := map[int]int{} // network functions by place
	for u := range n.used {
		if n.res[u] == 0 {
			e.gpus = append(e.gpus, u)
			continue
		}
		vfs = append(vfs, u)
		near[n.place[u]]++
	}
	e.free = uint16(1<<len(e.gpus) - 1)
	for _, k := range near {
		if k < perGPU*len(e.gpus) {
			return nil, fmt.Errorf("%w: --exact takes network functions for plenty: with %d per GPU a server of %d GPUs needs %d below every switch, not %d",
				errTrace, perGPU, len(e.gpus), perGPU*len(e.gpus), k)
		}
	}
	for l := topology.SameSwitch; l <= topology.Other; l++ {
		for i, u := range e.gpus {
			at := slices.IndexFunc(e.levels[l], func(d domain) bool {
				return n.level([]int{e.gpus[bits.TrailingZeros16(d.gpus)], u}) <= l
			})
			if at < 0 {
				e.levels[l] = append(e.levels[l], domain{vf: slices.ContainsFunc(vfs, func(v int) bool { return n.level([]int{u, v}) <= l })})
				at = len(e.levels[l]) - 1
			}
			e.levels[l][at].gpus |= 1 << i
		}
	}
	e.learnFabric()
	return e, nil
}

// learnFabric asks for every set of GPUs once, where there are partitions.
func (e *exactNode) learnFabric() {
	s := e.n.shape.Shape
	var units []int
	all := true
	legal := map[uint16]bool{}
	for m := uint32(1); m < 1<<len(e.gpus); m++ {
		units = units[:0]
		for i, u := range e.gpus {
			if m&(1<<i) != 0 {
				units = append(units, u)
			}
		}
		ok := s.Legal(units)
		legal[uint16(m)] = ok
		all = all && ok
	}
	if !all {
		e.legal = legal
	}
}

// key is equal for equal situations of a node: places that are alike may be
// swapped.
func (e *exactNode) key() string {
	free := e.form(topology.Other, e.free, e.levels[topology.Other][0].gpus)
	if e.legal != nil {
		free = fmt.Sprint(e.free) // legal sets tell alike places apart
	}
	return fmt.Sprintf("%p %s %s %d %d", e.n.shape.Shape, e.n.row.model, free, e.have.MilliCPU, e.have.Memory)
}

// form describes a set of GPUs within a domain, whatever the order of the
// domains inside.
func (e *exactNode) form(l topology.Distance, set, within uint16) string {
	if l == topology.SameSwitch {
		return fmt.Sprint(bits.OnesCount16(set & within))
	}
	var parts []string
	for _, d := range e.levels[l-1] {
		if d.gpus&within != 0 {
			parts = append(parts, e.form(l-1, set, d.gpus))
		}
	}
	slices.Sort(parts)
	return "(" + strings.Join(parts, ",") + ")"
}

// key is equal for equal situations of the cluster.
func (s *solver) key(i int) string {
	parts := make([]string, 0, len(s.nodes))
	for _, e := range s.nodes {
		parts = append(parts, e.key())
	}
	slices.Sort(parts)
	return fmt.Sprint(i, parts)
}

// search decides about pod i when got GPUs are allocated.
func (s *solver) search(i, got int) {
	s.best = max(s.best, got)
	if i == len(s.pods) || s.visits >= exactVisits {
		return
	}
	s.visits++
	free := 0
	for _, e := range s.nodes {
		free += bits.OnesCount16(e.free)
	}
	if got+min(free, s.rest[i]) <= s.best {
		return
	}
	key := s.key(i)
	if old, ok := s.seen[key]; ok && old >= got {
		return
	}
	s.seen[key] = got
	p := s.pods[i]
	for _, e := range s.nodes {
		if len(p.row.models) > 0 && !slices.Contains(p.row.models, e.n.row.model) {
			continue
		}
		if e.have.MilliCPU < p.need.MilliCPU || e.have.Memory < p.need.Memory {
			continue
		}
		before, have := e.free, e.have
		e.have.MilliCPU -= p.need.MilliCPU
		e.have.Memory -= p.need.Memory
		for _, set := range e.sets(p) {
			e.free = before &^ set
			s.search(i+1, got+p.gpus)
		}
		e.free, e.have = before, have
	}
	// Without this pod: then without those that are like it, too.
	j := i + 1
	for j < len(s.pods) && s.pods[j].kind() == p.kind() {
		j++
	}
	s.search(j, got)
}

// sets are the sets of free GPUs that a pod may get, one of each kind.
func (e *exactNode) sets(p *pod) []uint16 {
	level := topology.Other
	if p.required && p.gpus+p.vfs > 1 {
		level = p.level
	}
	var out []uint16
	seen := map[string]bool{}
	for _, d := range e.levels[level] {
		if p.vfs > 0 && !d.vf {
			continue
		}
		pool := e.free & d.gpus
		for m := pool; m != 0; m = (m - 1) & pool {
			if bits.OnesCount16(m) != p.gpus || (e.legal != nil && !e.legal[m]) {
				continue
			}
			if e.legal == nil {
				// What is left decides, not which of alike ones go.
				k := e.form(topology.Other, e.free&^m, e.levels[topology.Other][0].gpus)
				if seen[k] {
					continue
				}
				seen[k] = true
			}
			out = append(out, m)
		}
	}
	return out
}

// reportGaps prints the policies' gap to the optimum, adds it to the summary and
// writes exact.csv. FGD is left out: it does not grant wishes, so that it can
// allocate more than the optimum that does.
func reportGaps(o *options, gaps []gap, summary map[string]map[string]stat) error {
	if len(gaps) == 0 {
		return nil
	}
	var csv strings.Builder
	csv.WriteString("cluster,solved,optimum_gpus,policy,allocated_gpus\n")
	solved := 0
	values := map[string][]float64{}
	for i, g := range gaps {
		if g.solved {
			solved++
		}
		for _, p := range o.policies {
			fmt.Fprintf(&csv, "%d,%t,%d,%s,%d\n", i, g.solved, g.optimum, p, g.got[p])
			if g.solved && g.optimum > 0 && p != "fgd" {
				values[p] = append(values[p], 100*float64(g.optimum-g.got[p])/float64(g.optimum))
			}
		}
	}
	fmt.Printf("gap to the optimum of %d small clusters (%d solved), percent of its GPUs, mean ± spread:\n", len(gaps), solved)
	for _, p := range o.policies {
		if len(values[p]) == 0 {
			continue
		}
		s := statOfValues(values[p])
		summary[p]["gapToOptimum"] = s
		fmt.Printf("%-14s %13.2f ± %5.2f\n", p, s.Mean, s.Spread)
	}
	return os.WriteFile(filepath.Join(o.out, "exact.csv"), []byte(csv.String()), 0o644)
}
