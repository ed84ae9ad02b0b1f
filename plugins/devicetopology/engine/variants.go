package engine

import "slices"

// variants are the other states that kubelet's memory manager may be in with
// the same allocations; none where there is no doubt.
//
// For every NUMA node the manager remembers which group of nodes the node belongs
// to, and takes over the group of whatever is allocated last. A container whose
// affinity is one node of a group (possible where the manager had no hint to
// give) leaves that node as a group of its own, and so it stays when that
// container is gone. The allocations do not tell: each node of a group of
// several may stand alone. (Kubelet 1.36, memorymanager: updateMachineState,
// isAffinityViolatingNUMAAllocations, releaseMemory.)
func (l *Load) variants() []*Load {
	var doubtful []int
	for i, m := range l.wide {
		if m != 0 {
			doubtful = append(doubtful, i)
		}
	}
	if len(doubtful) == 0 {
		return nil
	}
	out := make([]*Load, 0, 1<<len(doubtful))
	for alone := range 1 << len(doubtful) {
		v := l.Clone()
		for k, i := range doubtful {
			v.group[i] = l.wide[i]
			if alone&(1<<k) != 0 {
				v.group[i] = 1 << i
			}
		}
		if v.group != l.group {
			out = append(out, v)
		}
	}
	return out
}

// wantsMemory reports whether the memory manager has anything to do for the pod.
func (p *Pod) wantsMemory() bool {
	return slices.ContainsFunc(p.Containers, func(c Container) bool { return len(c.Memory) > 0 })
}

// sameUnits compares the units of two placements of one pod.
func sameUnits(a, b [][][]int) bool {
	return slices.EqualFunc(a, b, func(x, y [][]int) bool {
		return slices.EqualFunc(x, y, slices.Equal[[]int])
	})
}
