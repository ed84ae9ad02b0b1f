package engine

import (
	"fmt"
	"strings"
)

// ids lists the NUMA nodes of a mask.
func (k *Kubelet) ids(m mask) string {
	var out []string
	for i := 0; k != nil && i < k.nodes(); i++ {
		if m&(1<<i) != 0 {
			out = append(out, fmt.Sprint(k.NUMA[i].ID))
		}
	}
	if len(out) == 0 {
		return "any"
	}
	return strings.Join(out, ",")
}

// Admit predicts what kubelet's managers hand out for a pod without devices of
// ours, in the order of containers, and returns the load with it. Pods that
// kubelet would refuse change nothing.
func (k *Kubelet) Admit(load *Load, containers []Container) *Load {
	l := load.Clone()
	var reuse [maxNUMA]int
	pod := verdictNUMA{}
	if k.aligned() && k.PodScope {
		cpus, memory := podSums(containers)
		pod = k.merge(k.managerHints(l, cpus, &reuse, memory))
	}
	for i := range containers {
		c := &containers[i]
		v := pod
		if k.aligned() && !k.PodScope {
			v = k.merge(k.managerHints(l, c.CPUs, &reuse, c.Memory))
		}
		if k.aligned() && !v.admit {
			return load
		}
		if k.StaticCPU && c.CPUs > 0 {
			if _, err := l.takeCPUs(k, v.affinity, c.CPUs, &reuse); err != nil {
				return load
			}
		}
		if err := l.allocateMemory(k, v, c.Memory); err != nil {
			return load
		}
	}
	return l
}

// AdmitNear is [Kubelet.Admit] for a pod whose devices are known to sit on some
// NUMA nodes (by ID): under a topology policy its CPUs and memory come from
// there, too.
func (k *Kubelet) AdmitNear(load *Load, containers []Container, numa []int) *Load {
	var m mask
	for _, id := range numa {
		if i := k.index(id); i >= 0 {
			m |= 1 << i
		}
	}
	if m == 0 || !k.aligned() {
		return k.Admit(load, containers)
	}
	l := load.Clone()
	var reuse [maxNUMA]int
	for i := range containers {
		c := &containers[i]
		v := verdictNUMA{affinity: m, admit: true}
		if k.StaticCPU && c.CPUs > 0 {
			if _, err := l.takeCPUs(k, m, c.CPUs, &reuse); err != nil {
				return load
			}
		}
		if err := l.allocateMemory(k, v, c.Memory); err != nil {
			return load
		}
	}
	return l
}
