package engine

import (
	"cmp"
	"fmt"
	"slices"
)

// takeCPUs hands out n CPUs by count: from the affinity first, then anywhere. It
// is what the packing of kubelet's static CPU manager (takeByTopologyNUMAPacked)
// comes to in counts: whole sockets and NUMA nodes that are free and wanted
// whole, then what is left of the fullest ones.
func (l *Load) takeCPUs(k *Kubelet, affinity mask, n int, reuse *[maxNUMA]int) (got [maxNUMA]int, err error) {
	avail := l.cpu
	for i := range reuse {
		avail[i] += reuse[i]
	}
	if sumIn(&avail, k.full()) < n {
		return got, fmt.Errorf("%d CPUs are free for exclusive use, needs %d", sumIn(&avail, k.full()), n)
	}
	take := func(i, c int) {
		c = min(c, avail[i], n)
		avail[i] -= c
		got[i] += c
		n -= c
	}
	near := affinity
	if near != 0 && k.AlignBySocket {
		for i := range k.nodes() {
			for j := range k.nodes() {
				if affinity&(1<<j) != 0 && k.NUMA[i].Socket == k.NUMA[j].Socket {
					near |= 1 << i
				}
			}
		}
	}
	for _, m := range []mask{near, k.full()} {
		if k.nested() {
			for _, i := range k.cpuOrder(m, &avail) {
				if s := k.socket(i); k.wholeIn(m&s, s, &avail) && sumIn(&avail, s) <= n {
					for j := range k.nodes() {
						if s&(1<<j) != 0 {
							take(j, n)
						}
					}
				}
			}
		}
		for _, i := range k.cpuOrder(m, &avail) {
			if one := mask(1) << i; k.wholeIn(one, one, &avail) && avail[i] <= n {
				take(i, n)
			}
		}
		for _, i := range k.cpuOrder(m, &avail) {
			take(i, n)
		}
	}
	for i := range got {
		l.cpu[i] -= max(0, got[i]-reuse[i])
	}
	return got, nil
}

// nested: sockets have several NUMA nodes. Kubelet then looks at sockets first.
func (k *Kubelet) nested() bool {
	for i := range k.nodes() {
		if k.NUMA[i].Socket < 0 {
			return false
		}
		for j := range i {
			if k.NUMA[i].Socket == k.NUMA[j].Socket {
				return true
			}
		}
	}
	return false
}

// socket is the NUMA nodes of a node's socket.
func (k *Kubelet) socket(node int) (m mask) {
	for i := range k.nodes() {
		if k.NUMA[i].Socket == k.NUMA[node].Socket {
			m |= 1 << i
		}
	}
	return m
}

// wholeIn reports whether all CPUs of the nodes in all are free and within m.
func (k *Kubelet) wholeIn(m, all mask, avail *[maxNUMA]int) bool {
	for i := range k.nodes() {
		if all&(1<<i) != 0 && (m&(1<<i) == 0 || avail[i] != k.NUMA[i].CPUs) {
			return false
		}
	}
	return true
}

// cpuOrder is the order in which kubelet takes CPUs from the nodes of a mask that
// have some: the fullest socket first where sockets are nested, in it the fullest
// node, equal ones by number.
func (k *Kubelet) cpuOrder(m mask, avail *[maxNUMA]int) []int {
	var order []int
	for i := range k.nodes() {
		if m&(1<<i) != 0 && avail[i] > 0 {
			order = append(order, i)
		}
	}
	nested := k.nested()
	slices.SortFunc(order, func(a, b int) int {
		if nested && k.NUMA[a].Socket != k.NUMA[b].Socket {
			return cmp.Or(cmp.Compare(sumIn(avail, m&k.socket(a)), sumIn(avail, m&k.socket(b))), cmp.Compare(k.NUMA[a].Socket, k.NUMA[b].Socket))
		}
		return cmp.Or(cmp.Compare(avail[a], avail[b]), cmp.Compare(a, b))
	})
	return order
}
