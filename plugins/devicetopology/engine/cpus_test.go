package engine

import "testing"

// cpuNode has four NUMA nodes of five CPUs; sockets are the nodes' sockets.
func cpuNode(sockets ...int) *Kubelet {
	k := &Kubelet{StaticCPU: true}
	for i, s := range sockets {
		k.NUMA = append(k.NUMA, KubeletNUMA{ID: i, Socket: s, CPUs: 5, Assignable: 5})
	}
	return k
}

// TestTakeCPUs: which CPUs kubelet takes when those of the affinity do not
// suffice, by takeByTopologyNUMAPacked of its static CPU manager.
func TestTakeCPUs(t *testing.T) {
	for name, tc := range map[string]struct {
		k        *Kubelet
		free     [maxNUMA]int
		affinity mask
		n        int
		want     [maxNUMA]int
	}{
		"in the affinity":                        {cpuNode(0, 0, 1, 1), [maxNUMA]int{5, 5, 5, 5}, 1 << 2, 3, [maxNUMA]int{2: 3}},
		"the rest from the fullest node":         {cpuNode(0, 1, 2, 3), [maxNUMA]int{0, 3, 5, 2}, 1, 2, [maxNUMA]int{3: 2}},
		"the fullest socket comes first":         {cpuNode(0, 0, 1, 1), [maxNUMA]int{0, 3, 5, 2}, 1, 2, [maxNUMA]int{1: 2}},
		"and in it the fullest node":             {cpuNode(0, 0, 1, 1), [maxNUMA]int{4, 3, 5, 5}, 0, 4, [maxNUMA]int{0: 1, 1: 3}},
		"a whole node before what is left":       {cpuNode(0, 1, 2, 3), [maxNUMA]int{2, 5, 3, 0}, 0, 6, [maxNUMA]int{0: 1, 1: 5}},
		"a whole socket before a whole node":     {cpuNode(0, 0, 1, 1), [maxNUMA]int{5, 1, 5, 5}, 0, 10, [maxNUMA]int{2: 5, 3: 5}},
		"a socket that is not wanted whole":      {cpuNode(0, 0, 1, 1), [maxNUMA]int{5, 1, 5, 5}, 0, 9, [maxNUMA]int{0: 5, 1: 1, 2: 3}},
		"the affinity has half of a free socket": {cpuNode(0, 0, 1, 1), [maxNUMA]int{5, 5, 5, 5}, 1<<1 | 1<<2, 10, [maxNUMA]int{1: 5, 2: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			l := &Load{cpu: tc.free}
			got, err := l.takeCPUs(tc.k, tc.affinity, tc.n, &[maxNUMA]int{})
			if err != nil || got != tc.want {
				t.Errorf("took %v, %v; want %v", got, err, tc.want)
			}
			for i := range got {
				if l.cpu[i] != tc.free[i]-got[i] {
					t.Errorf("%d CPUs of node %d are left, want %d", l.cpu[i], i, tc.free[i]-got[i])
				}
			}
		})
	}
	if _, err := (&Load{cpu: [maxNUMA]int{1, 1}}).takeCPUs(cpuNode(0, 1), 1, 3, &[maxNUMA]int{}); err == nil {
		t.Error("three of two CPUs were taken")
	}
}
