package main

import (
	"slices"

	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
	"github.com/kubevfio/kubevfio/topology"
)

// pod is one arrival.
type pod struct {
	row      *podRow
	need     engine.Resources
	gpus     int
	vfs      int
	level    topology.Distance
	required bool
	want     *engine.Pod
}

// node is a simulated node.
type node struct {
	row   *nodeRow
	shape *engine.Node
	// unit facts, by unit index.
	res, numa, place []int
	used             []bool
	have             engine.Resources
	freeGPU, freeVF  int
	state            *engine.State
}

// cluster is all nodes and what happened so far.
type cluster struct {
	in    *engine.Interner
	nodes []*node
	// capacity in GPUs.
	capacity int
}

func newCluster(rows []nodeRow, o *overlay) (*cluster, error) {
	c := &cluster{in: &engine.Interner{}}
	for i := range rows {
		row := &rows[i]
		sp := o.shapeFor(row).spec(row.gpus)
		en, err := engine.NewNode(sp, c.in)
		if err != nil {
			return nil, err
		}
		n := &node{
			row: row, shape: en, used: make([]bool, len(en.IDs)),
			have: engine.Resources{MilliCPU: row.milliCPU, Memory: row.memoryMiB << 20},
			res:  make([]int, len(en.IDs)), numa: make([]int, len(en.IDs)), place: make([]int, len(en.IDs)),
		}
		for _, u := range sp.Units {
			k := en.Unit(u.ID)
			n.res[k], n.numa[k], n.place[k] = u.Resource, u.NUMA, u.Place
			if u.Resource == 0 {
				n.freeGPU++
			} else {
				n.freeVF++
			}
		}
		n.refresh()
		c.capacity += row.gpus
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// refresh rebuilds the engine's state from what is used.
func (n *node) refresh() {
	st := engine.NewState(n.shape)
	for u, used := range n.used {
		if used {
			st.Use(u)
		}
	}
	n.state = st.Seal()
}

// roomy reports whether sums of CPU, memory and devices and the model suit.
func (n *node) roomy(p *pod) bool {
	return n.have.MilliCPU >= p.need.MilliCPU && n.have.Memory >= p.need.Memory &&
		n.freeGPU >= p.gpus && n.freeVF >= p.vfs &&
		(len(p.row.models) == 0 || p.gpus == 0 || slices.Contains(p.row.models, n.row.model))
}

// take gives units to a pod.
func (n *node) take(p *pod, units []int) {
	for _, u := range units {
		n.used[u] = true
	}
	n.have.MilliCPU -= p.need.MilliCPU
	n.have.Memory -= p.need.Memory
	n.freeGPU -= p.gpus
	n.freeVF -= p.vfs
	if len(units) > 0 {
		n.refresh()
	}
}

// free are the free units of a resource that pass a test, in order.
func (n *node) free(res int, ok func(u int) bool) []int {
	var out []int
	for u, used := range n.used {
		if !used && n.res[u] == res && (ok == nil || ok(u)) {
			out = append(out, u)
		}
	}
	return out
}

// level is the nearest level that holds all units.
func (n *node) level(units []int) topology.Distance {
	return n.shape.Shape.LevelOf(units)
}
