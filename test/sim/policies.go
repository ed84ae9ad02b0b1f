package main

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
	"github.com/kubevfio/kubevfio/topology"
)

// policy places one pod with GPUs: it returns a node and the units, nil when it
// finds no node. Units that miss a required wish are an admission failure, which
// the caller counts.
type policy interface {
	place(c *cluster, p *pod) (*node, []int)
}

// newPolicy makes a policy by name for one run.
func newPolicy(name string, r *rand.Rand, mix []typeShare) (policy, error) {
	switch name {
	case "ours":
		return &ours{}, nil
	case "random":
		return &random{r}, nil
	case "first-fit":
		return firstFit{}, nil
	case "greedy-joint":
		return greedyJoint{}, nil
	case "numa-counts":
		return &numaCounts{r}, nil
	case "fgd":
		return &fgd{r: r, mix: mix}, nil
	}
	return nil, fmt.Errorf("policy %q is none of %v", name, policyNames)
}

// policyNames in the order of plots.
var policyNames = []string{"ours", "random", "first-fit", "greedy-joint", "numa-counts", "fgd"}

// ours is the scheduler plugin: Filter, Score and Reserve by its engine.
type ours struct {
	seen engine.Observer
}

func (o *ours) place(c *cluster, p *pod) (*node, []int) {
	if p.want == nil {
		items := []engine.Item{{Resource: gpu, Count: p.gpus}}
		if p.vfs > 0 {
			items = append(items, engine.Item{Resource: vf, Count: p.vfs})
		}
		p.want = engine.NewPod([]engine.Container{{Name: "vm", Items: items}}, p.level, p.required)
	}
	p.want = c.in.Pod(p.want)
	o.seen.Observe(p.want.Request, p.need)
	mix := o.seen.Mix()
	var best *node
	score := int64(-1)
	for _, n := range c.nodes {
		if !n.roomy(p) || !engine.Fits(n.state, p.want, mix) {
			continue
		}
		if s := engine.Score(n.state, p.want, mix, n.have, p.need); s > score {
			best, score = n, s
		}
	}
	if best == nil {
		return nil, nil
	}
	pl, _ := engine.Place(best.state, p.want, mix)
	var units []int
	for _, item := range pl.Units[0] {
		units = append(units, item...)
	}
	return best, units
}

// sample draws n of the units.
func sample(r *rand.Rand, units []int, n int) []int {
	units = slices.Clone(units)
	r.Shuffle(len(units), func(i, j int) { units[i], units[j] = units[j], units[i] })
	return units[:n]
}

// random is extended resources without a plugin: the emptiest of the nodes with
// room, kubelet picks any units.
type random struct{ r *rand.Rand }

func (o *random) place(c *cluster, p *pod) (*node, []int) {
	var fit []*node
	for _, n := range c.nodes {
		if n.roomy(p) {
			fit = append(fit, n)
		}
	}
	if len(fit) == 0 {
		return nil, nil
	}
	n := fit[o.r.IntN(len(fit))]
	return n, anyUnits(o.r, n, p)
}

func anyUnits(r *rand.Rand, n *node, p *pod) []int {
	return append(sample(r, n.free(0, nil), p.gpus), sample(r, n.free(1, nil), p.vfs)...)
}

// firstFit takes the first node that has room and a legal set, and there the
// first set in the order of addresses.
type firstFit struct{}

func (firstFit) place(c *cluster, p *pod) (*node, []int) {
	for _, n := range c.nodes {
		if !n.roomy(p) {
			continue
		}
		units := append(n.free(0, nil)[:p.gpus:p.gpus], n.free(1, nil)[:p.vfs]...)
		if p.required && len(units) > 1 && n.level(units) > p.level {
			continue
		}
		return n, units
	}
	return nil, nil
}

// greedyJoint chooses GPUs first, from the places with the fewest free ones,
// then network functions near them, and rejects the node when those do not
// suffice: no backtracking. Among nodes it packs.
type greedyJoint struct{}

func (greedyJoint) place(c *cluster, p *pod) (*node, []int) {
	var best *node
	var bestUnits []int
	for _, n := range c.nodes {
		if !n.roomy(p) || (best != nil && n.freeGPU >= best.freeGPU) {
			continue
		}
		if units := joint(n, p); units != nil {
			best, bestUnits = n, units
		}
	}
	return best, bestUnits
}

func joint(n *node, p *pod) []int {
	count := map[int]int{}
	gpus := n.free(0, nil)
	for _, u := range gpus {
		count[n.place[u]]++
	}
	// The place that holds all and has the fewest; else places in turn.
	slices.SortStableFunc(gpus, func(a, b int) int {
		fa, fb := count[n.place[a]] >= p.gpus, count[n.place[b]] >= p.gpus
		if fa != fb {
			if fa {
				return -1
			}
			return 1
		}
		if d := count[n.place[a]] - count[n.place[b]]; d != 0 {
			return d
		}
		return n.place[a] - n.place[b]
	})
	units := slices.Clone(gpus[:p.gpus])
	near := n.free(1, func(u int) bool {
		return slices.ContainsFunc(units, func(g int) bool { return n.place[g] == n.place[u] })
	})
	if len(near) < p.vfs {
		near = n.free(1, func(u int) bool {
			return slices.ContainsFunc(units, func(g int) bool { return n.numa[g] == n.numa[u] })
		})
	}
	if len(near) < p.vfs {
		if p.required {
			return nil
		}
		near = n.free(1, nil)
	}
	units = append(units, near[:p.vfs]...)
	if p.required && len(units) > 1 && n.level(units) > p.level {
		return nil
	}
	return units
}

// numaCounts knows how many units each NUMA node has, not which hang together:
// it takes nodes where one NUMA node has enough when the pod wishes alignment,
// and kubelet picks any units of that NUMA node.
type numaCounts struct{ r *rand.Rand }

func (o *numaCounts) place(c *cluster, p *pod) (*node, []int) {
	var best *node
	var units []int
	for _, n := range c.nodes {
		if !n.roomy(p) || (best != nil && n.freeGPU >= best.freeGPU) {
			continue
		}
		if p.level == topology.Other {
			best, units = n, anyUnits(o.r, n, p)
			continue
		}
		for numa := range 8 {
			in := func(u int) bool { return n.numa[u] == numa }
			g, v := n.free(0, in), n.free(1, in)
			if len(g) >= p.gpus && len(v) >= p.vfs {
				best, units = n, append(sample(o.r, g, p.gpus), sample(o.r, v, p.vfs)...)
				break
			}
		}
		if best != n && !p.required {
			best, units = n, anyUnits(o.r, n, p)
		}
	}
	return best, units
}

// typeShare is a kind of pod and its share of the trace.
type typeShare struct {
	gpus     int
	milliCPU int64
	share    float64
}

// fgd descends the gradient of expected fragmentation over counts (Weng et al.,
// USENIX ATC '23), without topology: wishes are ignored and kubelet picks any
// units.
type fgd struct {
	r   *rand.Rand
	mix []typeShare
}

func (f *fgd) fragment(gpus int, milliCPU int64) float64 {
	sum := 0.0
	for _, t := range f.mix {
		if t.gpus == 0 || gpus < t.gpus || milliCPU < t.milliCPU {
			sum += t.share * float64(gpus)
		}
	}
	return sum
}

func (f *fgd) place(c *cluster, p *pod) (*node, []int) {
	var best *node
	least := 0.0
	for _, n := range c.nodes {
		if !n.roomy(p) {
			continue
		}
		d := f.fragment(n.freeGPU-p.gpus, n.have.MilliCPU-p.need.MilliCPU) - f.fragment(n.freeGPU, n.have.MilliCPU)
		if best == nil || d < least {
			best, least = n, d
		}
	}
	if best == nil {
		return nil, nil
	}
	return best, anyUnits(f.r, best, p)
}

// neutral places a pod without GPUs, the same way under all policies: on the
// node with the fewest GPUs per CPU, most used first.
func neutral(c *cluster, p *pod) *node {
	var best *node
	for _, n := range c.nodes {
		if !n.roomy(p) {
			continue
		}
		if best == nil || n.freeGPU < best.freeGPU || (n.freeGPU == best.freeGPU && n.have.MilliCPU < best.have.MilliCPU) {
			best = n
		}
	}
	return best
}
