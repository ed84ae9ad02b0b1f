package main

import (
	"math/rand/v2"
	"slices"

	"github.com/kubevfio/kubevfio/topology"
)

// arrivals is how much demand a run draws, as a share of the capacity.
const arrivals = 1.3

// gridPoints are the arrived demands at which a run is looked at, in percent.
const gridPoints = 131

// outcome is what one run with one policy and seed gave.
type outcome struct {
	// allocated[d] is the share of GPUs allocated when the demand that arrived
	// is d percent of the capacity.
	allocated [gridPoints]float64
	// gpus is the number of GPUs allocated at the end.
	gpus int
	// saturation is allocated at the end; full at 100 % of demand.
	full, saturation float64
	// aligned[l] is the share of pods with several units that got them within
	// level l or nearer; wished the share of pods with a wish that got it.
	aligned [topology.Other + 1]float64
	wished  float64
	// failures are pods that kubelet would have refused, per pod placed.
	failures float64
	// pending is the share of arrived pods that found no place.
	pending float64
	// fragmented is the share of free GPUs, at the end, on nodes where no pod
	// of the trace's typical kinds fits.
	fragmented float64
}

// run replays the trace once.
func run(name string, nodes []nodeRow, pods []podRow, o *overlay, seed uint64) (*outcome, error) {
	c, err := newCluster(nodes, o)
	if err != nil {
		return nil, err
	}
	// The same seed draws the same pods for every policy.
	list, err := draw(rand.New(rand.NewPCG(seed, 1)), c.capacity, pods, o)
	if err != nil {
		return nil, err
	}
	return replay(name, c, list, shares(pods), seed)
}

// draw takes pods out of the trace at random until their GPUs are more than the
// capacity by the share of arrivals.
func draw(r *rand.Rand, capacity int, pods []podRow, o *overlay) ([]*pod, error) {
	var out []*pod
	for demand := 0; float64(demand) < arrivals*float64(capacity); {
		p, err := o.podFor(r, &pods[r.IntN(len(pods))])
		if err != nil {
			return nil, err
		}
		if p == nil {
			continue
		}
		out = append(out, p)
		demand += p.gpus
	}
	return out, nil
}

// replay lets a policy place the pods of a list in turn on an empty cluster.
func replay(name string, c *cluster, list []*pod, mix []typeShare, seed uint64) (*outcome, error) {
	pol, err := newPolicy(name, rand.New(rand.NewPCG(seed, 2)), mix)
	if err != nil {
		return nil, err
	}
	out := &outcome{}
	demand, allocated := 0, 0
	placed, multi, wishes, granted, failed, arrived, waiting := 0, 0, 0, 0, 0, 0, 0
	point := 0
	for _, p := range list {
		if p.gpus == 0 {
			if n := neutral(c, p); n != nil {
				n.take(p, nil)
			}
			continue
		}
		arrived++
		demand += p.gpus
		switch n, units := pol.place(c, p); {
		case n == nil:
			waiting++
		case !legal(n, p, units) && name != "fgd":
			// The scheduler sends it, kubelet (or the launcher) refuses it.
			failed++
		default:
			n.take(p, units)
			placed++
			allocated += p.gpus
			l := n.level(units)
			if len(units) > 1 {
				multi++
				for k := l; k <= topology.Other; k++ {
					out.aligned[k]++
				}
			}
			if p.level < topology.Other {
				wishes++
				if len(units) == 1 || l <= p.level {
					granted++
				}
			}
		}
		for ; point < gridPoints && demand*100 >= point*c.capacity; point++ {
			out.allocated[point] = float64(allocated) / float64(c.capacity)
		}
	}
	for ; point < gridPoints; point++ {
		out.allocated[point] = float64(allocated) / float64(c.capacity)
	}
	out.gpus = allocated
	out.full, out.saturation = out.allocated[100], out.allocated[gridPoints-1]
	for l := range out.aligned {
		out.aligned[l] /= float64(max(1, multi))
	}
	out.wished = float64(granted) / float64(max(1, wishes))
	out.failures = float64(failed) / float64(max(1, placed+failed))
	out.pending = float64(waiting) / float64(max(1, arrived))
	out.fragmented = fragmented(c, mix)
	return out, nil
}

// legal reports whether what a policy chose obeys a required wish and the fabric.
func legal(n *node, p *pod, units []int) bool {
	if p.required && len(units) > 1 && n.level(units) > p.level {
		return false
	}
	var gpus []int
	for _, u := range units {
		if n.res[u] == 0 {
			gpus = append(gpus, u)
		}
	}
	return n.shape.Shape.Legal(gpus)
}

// shares are the kinds of pods with GPUs by GPU count, with their mean CPU.
func shares(pods []podRow) []typeShare {
	var out []typeShare
	for i := range pods {
		k := slices.IndexFunc(out, func(t typeShare) bool { return t.gpus == pods[i].gpus })
		if k < 0 {
			out = append(out, typeShare{gpus: pods[i].gpus})
			k = len(out) - 1
		}
		out[k].share++
		out[k].milliCPU += pods[i].milliCPU
	}
	for i := range out {
		out[i].milliCPU /= int64(out[i].share)
		out[i].share /= float64(len(pods))
	}
	return out
}

// fragmented weighs free GPUs by the share of kinds that cannot use them.
func fragmented(c *cluster, mix []typeShare) float64 {
	free, lost := 0.0, 0.0
	for _, n := range c.nodes {
		free += float64(n.freeGPU)
		for _, t := range mix {
			if t.gpus > 0 && (n.freeGPU < t.gpus || n.have.MilliCPU < t.milliCPU) {
				lost += t.share * float64(n.freeGPU)
			}
		}
	}
	if free == 0 {
		return 0
	}
	return lost / free
}
