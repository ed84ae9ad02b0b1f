package main

import (
	"math/rand/v2"
	"testing"

	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
	"github.com/kubevfio/kubevfio/topology"
)

// bruteForce is the optimum by trying every set of units for every pod, with no
// symmetry removed and no bound.
func bruteForce(c *cluster, list []*pod) int {
	if len(list) == 0 {
		return 0
	}
	p := list[0]
	best := bruteForce(c, list[1:])
	for _, n := range c.nodes {
		if !n.roomy(p) {
			continue
		}
		gpus, vfs := n.free(0, nil), n.free(1, nil)
		for m := 0; m < 1<<len(gpus); m++ {
			var units []int
			for i, u := range gpus {
				if m&(1<<i) != 0 {
					units = append(units, u)
				}
			}
			if len(units) != p.gpus {
				continue
			}
			if p.vfs > 0 {
				// Network functions are plenty: the nearest ones do.
				first := units[0]
				near := vfs
				for l := topology.SameSwitch; l <= topology.Other; l++ {
					if in := n.free(1, func(u int) bool { return n.level([]int{first, u}) <= l }); len(in) >= p.vfs {
						near = in
						break
					}
				}
				units = append(units, near[:p.vfs]...)
			}
			if !legal(n, p, units) {
				continue
			}
			for _, u := range units {
				n.used[u] = true
			}
			before, gpu, vf := n.have, n.freeGPU, n.freeVF
			n.have.MilliCPU -= p.need.MilliCPU
			n.have.Memory -= p.need.Memory
			n.freeGPU -= p.gpus
			n.freeVF -= p.vfs
			best = max(best, p.gpus+bruteForce(c, list[1:]))
			n.have, n.freeGPU, n.freeVF = before, gpu, vf
			for _, u := range units {
				n.used[u] = false
			}
		}
	}
	return best
}

// TestSolve: the solver finds what brute force finds.
func TestSolve(t *testing.T) {
	shapes := []shape{
		{NUMA: 2, Sockets: 2, Switches: 2, VFsPerSwitch: 8},
		{NUMA: 2, Sockets: 1, VFsPerSwitch: 8},
		{NUMA: 1, Switches: 1, VFsPerSwitch: 8, Partitions: []int{1, 2, 4}},
	}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		o := &overlay{Shapes: shapes[r.IntN(3):]}
		var rows []nodeRow
		for range 1 + r.IntN(2) {
			rows = append(rows, nodeRow{gpus: 3 + r.IntN(2), milliCPU: int64(4+r.IntN(8)) * 1000, memoryMiB: 1 << 20})
		}
		c, err := newCluster(rows, o)
		if err != nil {
			t.Fatal(err)
		}
		var list []*pod
		for range 4 {
			p := &pod{row: &podRow{}, gpus: 1 + r.IntN(3), need: engine.Resources{MilliCPU: int64(1+r.IntN(4)) * 1000}}
			p.vfs = p.gpus * r.IntN(2)
			p.level, p.required = topology.Distance(r.IntN(int(topology.Other)+1)), r.IntN(3) > 0
			if p.level == topology.Other {
				p.required = false
			}
			list = append(list, p)
		}
		got, solved, err := solve(c, list)
		if err != nil || !solved {
			t.Fatalf("seed %d: solved %t, %v", seed, solved, err)
		}
		if want := bruteForce(c, list); got != want {
			t.Errorf("seed %d: the solver allocates %d GPUs, brute force %d", seed, got, want)
		}
	}
}

// TestNoPolicyBeatsTheOptimum holds on clusters of the own trace.
func TestNoPolicyBeatsTheOptimum(t *testing.T) {
	nodes, pods := ownTrace(rand.New(rand.NewPCG(1, 1)), 20)
	gaps, err := exactGaps(&options{exact: 6, policies: []string{"ours", "greedy-joint", "first-fit"}}, nodes, pods, defaultOverlay())
	if err != nil {
		t.Fatal(err)
	}
	solved := 0
	for i, g := range gaps {
		if !g.solved {
			continue
		}
		solved++
		for p, n := range g.got {
			if n > g.optimum {
				t.Errorf("cluster %d: %s allocates %d GPUs, the optimum is %d", i, p, n, g.optimum)
			}
		}
	}
	if solved == 0 {
		t.Error("no cluster was solved")
	}
}
