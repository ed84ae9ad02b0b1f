package engine

import (
	"fmt"
	"math/bits"
	"slices"
)

// Topology manager policies of kubelet.
const (
	PolicyNone       = "none"
	PolicyBestEffort = "best-effort"
	PolicyRestricted = "restricted"
	PolicySingleNUMA = "single-numa-node"
)

// maxNUMA is the number of NUMA nodes up to which kubelet's choice is
// predicted; kubelet itself refuses more unless told otherwise.
const maxNUMA = 8

// Kubelet is how a node's kubelet places containers, as far as it decides
// which devices a container can get.
type Kubelet struct {
	// Policy of the topology manager; empty is none.
	Policy string
	// PodScope: one decision for all containers of a pod.
	PodScope bool
	// PreferClosest is the option prefer-closest-numa-nodes.
	PreferClosest bool
	// StaticCPU and StaticMemory are the managers' policies.
	StaticCPU    bool
	StaticMemory bool
	// AlignBySocket, FullCores and DistributeNUMA are options of the static CPU
	// manager.
	AlignBySocket  bool
	FullCores      bool
	DistributeNUMA bool
	// NUMA nodes, sorted by ID.
	NUMA []KubeletNUMA
	// MemoryTypes are the names that KubeletNUMA.Memory counts: "memory" first.
	MemoryTypes []string
}

// KubeletNUMA is a NUMA node as kubelet's managers see it.
type KubeletNUMA struct {
	ID     int
	Socket int
	// CPUs online, and Assignable ones: those that are not reserved.
	CPUs, Assignable int
	// Distances to the nodes in order; nil when unknown.
	Distances []int
	// Memory is what the memory manager can hand out, in bytes, by type.
	Memory []int64
}

// ContainerKind says how long a container runs.
type ContainerKind int

// Kinds of containers, in kubelet's sense.
const (
	App ContainerKind = iota
	Sidecar
	Init
)

// Container is what one container asks of kubelet's managers.
type Container struct {
	Name string
	Kind ContainerKind
	// CPUs that it gets for itself from the static CPU manager; 0 for none.
	CPUs int
	// Memory and huge pages, for the static memory manager; nil for containers
	// that it leaves alone.
	Memory []MemoryNeed
	// Items are the devices, sorted by resource.
	Items []Item
}

// MemoryNeed is memory of one type, in bytes.
type MemoryNeed struct {
	Type  string
	Bytes int64
}

// mask is a set of NUMA nodes by index in Kubelet.NUMA. 0 stands for kubelet's
// "no affinity".
type mask uint16

func (m mask) count() int { return bits.OnesCount16(uint16(m)) }

// maskSet is a set of masks of up to maxNUMA nodes.
type maskSet [1 << maxNUMA / 64]uint64

func (s *maskSet) add(m mask)      { s[m/64] |= 1 << (m % 64) }
func (s *maskSet) has(m mask) bool { return s[m/64]&(1<<(m%64)) != 0 }
func (s *maskSet) empty() bool     { return *s == maskSet{} }

func (s *maskSet) and(o *maskSet) {
	for i := range s {
		s[i] &= o[i]
	}
}

// hints are what one resource says: nothing (care is false), or a list of masks
// of which some are preferred. An empty list means that no mask is possible.
type hints struct {
	care      bool
	all, pref maskSet
}

// Load is what kubelet's managers have handed out on a node.
type Load struct {
	// cpu are the free assignable CPUs by NUMA node.
	cpu [maxNUMA]int
	// mem[type] is free memory by NUMA node.
	mem [][maxNUMA]int64
	// group is the set of nodes that allocations on a node span, 0 without any;
	// wide is the one of several nodes among them.
	group, wide [maxNUMA]mask
}

// NewLoad is a node on which nothing runs.
func (k *Kubelet) NewLoad() *Load {
	l := &Load{mem: make([][maxNUMA]int64, len(k.MemoryTypes))}
	for i := range k.nodes() {
		l.cpu[i] = k.NUMA[i].Assignable
		for t := range k.MemoryTypes {
			l.mem[t][i] = k.NUMA[i].Memory[t]
		}
	}
	return l
}

// Clone is a copy that can be changed.
func (l *Load) Clone() *Load {
	c := *l
	c.mem = slices.Clone(l.mem)
	return &c
}

// nodes is the number of NUMA nodes that the model looks at.
func (k *Kubelet) nodes() int { return min(len(k.NUMA), maxNUMA) }

// aligned reports whether kubelet's topology manager has a say.
func (k *Kubelet) aligned() bool { return k != nil && k.Policy != "" && k.Policy != PolicyNone }

// index is the place of a NUMA node ID, -1 when it is not there.
func (k *Kubelet) index(id int) int {
	for i := range k.nodes() {
		if k.NUMA[i].ID == id {
			return i
		}
	}
	return -1
}

func (k *Kubelet) memoryType(name string) int { return slices.Index(k.MemoryTypes, name) }

// full is the mask of all nodes.
func (k *Kubelet) full() mask { return mask(1)<<k.nodes() - 1 }

// UseCPUs notes exclusive CPUs by NUMA node ID.
func (l *Load) UseCPUs(k *Kubelet, numa, n int) {
	if i := k.index(numa); i >= 0 {
		l.cpu[i] -= n
	}
}

// UseMemory notes memory that may come from a set of NUMA nodes.
func (l *Load) UseMemory(k *Kubelet, typ string, numa []int, bytes int64) {
	var m mask
	for _, id := range numa {
		if i := k.index(id); i >= 0 {
			m |= 1 << i
		}
	}
	l.takeMemory(k, m, k.memoryType(typ), bytes)
}

// takeMemory fills memory from the lowest node of the mask upwards, as kubelet
// does.
func (l *Load) takeMemory(k *Kubelet, m mask, typ int, bytes int64) {
	for i := range k.nodes() {
		if m&(1<<i) == 0 {
			continue
		}
		l.group[i] = m
		if m.count() > 1 {
			l.wide[i] = m
		}
		if typ < 0 {
			continue
		}
		n := min(bytes, max(0, l.mem[typ][i]))
		l.mem[typ][i] -= n
		bytes -= n
	}
}

// devices is the view of one resource's units by NUMA node.
type devices struct {
	// all units and available ones; those of unknown NUMA node are in none.
	all, free [maxNUMA]int
	// bear are the nodes that have units at all.
	bear mask
}

// view counts the units of a resource by NUMA node.
func (k *Kubelet) view(s *Shape, free []uint16, res int) (d devices) {
	for _, c := range s.whole().cells[res] {
		if i := k.index(s.cells[c].numa); i >= 0 {
			d.all[i] += len(s.cells[c].units)
			d.free[i] += int(free[c])
			d.bear |= 1 << i
		}
	}
	return d
}

func sumIn(v *[maxNUMA]int, m mask) int {
	n := 0
	for i := 0; m>>i != 0; i++ {
		if m&(1<<i) != 0 {
			n += v[i]
		}
	}
	return n
}

// deviceHints are the device manager's for n units of a resource.
func (k *Kubelet) deviceHints(d *devices, n int) hints {
	if d.bear == 0 {
		return hints{}
	}
	h := hints{care: true}
	least := d.bear.count()
	for m := mask(1); m <= k.full(); m++ {
		if m&^d.bear == 0 && sumIn(&d.all, m) >= n {
			least = min(least, m.count())
		}
	}
	for m := mask(1); m <= k.full(); m++ {
		if m&^d.bear != 0 || sumIn(&d.free, m) < n {
			continue
		}
		h.all.add(m)
		if m.count() == least {
			h.pref.add(m)
		}
	}
	return h
}

// cpuHints are the static CPU manager's for n exclusive CPUs. reuse are CPUs of
// the pod's finished init containers.
func (k *Kubelet) cpuHints(l *Load, n int, reuse *[maxNUMA]int) hints {
	if n == 0 || !k.StaticCPU {
		return hints{}
	}
	h := hints{care: true}
	least := k.nodes()
	for m := mask(1); m <= k.full(); m++ {
		total := 0
		for i := range k.nodes() {
			if m&(1<<i) != 0 {
				total += k.NUMA[i].CPUs
			}
		}
		if total >= n {
			least = min(least, m.count())
		}
	}
	for m := mask(1); m <= k.full(); m++ {
		if sumIn(reuse, k.full()&^m) > 0 || sumIn(reuse, m)+sumIn(&l.cpu, m) < n {
			continue
		}
		h.all.add(m)
		if m.count() == least || (k.AlignBySocket && k.socketAligned(m, least)) {
			h.pref.add(m)
		}
	}
	return h
}

// sockets counts the packages that a mask touches.
func (k *Kubelet) sockets(m mask) int {
	var seen []int
	for i := range k.nodes() {
		if m&(1<<i) != 0 && !slices.Contains(seen, k.NUMA[i].Socket) {
			seen = append(seen, k.NUMA[i].Socket)
		}
	}
	return len(seen)
}

// socketAligned: the mask touches no more packages than the fewest nodes that
// would do.
func (k *Kubelet) socketAligned(m mask, least int) bool {
	per := k.nodes() / max(1, k.sockets(k.full()))
	return per > 0 && k.sockets(m) == (least+per-1)/per
}

// managerHints are those of the CPU manager and, for every type of memory, of the
// memory manager: they are the same for all types, but each type is a resource
// of its own, and what two different hints have in common is an answer too.
func (k *Kubelet) managerHints(l *Load, cpus int, reuse *[maxNUMA]int, memory []MemoryNeed) []hints {
	hs := []hints{k.cpuHints(l, cpus, reuse)}
	h := k.memoryHints(l, memory)
	for range memory {
		hs = append(hs, h)
	}
	return hs
}

// memoryHints are the static memory manager's for each type of memory asked for;
// without any possible mask the manager says nothing.
func (k *Kubelet) memoryHints(l *Load, need []MemoryNeed) hints {
	if len(need) == 0 || !k.StaticMemory {
		return hints{}
	}
	h := hints{}
	least := k.nodes()
	for m := mask(1); m <= k.full(); m++ {
		if !k.memoryIn(m, need, func(t, i int) int64 { return k.NUMA[i].Memory[t] }) {
			continue
		}
		least = min(least, m.count())
		if l.conflicts(m) || !k.memoryIn(m, need, func(t, i int) int64 { return l.mem[t][i] }) {
			continue
		}
		h.care = true
		h.all.add(m)
	}
	for m := mask(1); m <= k.full(); m++ {
		if h.all.has(m) && m.count() == least {
			h.pref.add(m)
		}
	}
	return h
}

// conflicts: a node belongs either to allocations of its own or to those of one
// group of nodes.
func (l *Load) conflicts(m mask) bool {
	for i := range maxNUMA {
		if m&(1<<i) == 0 || l.group[i] == 0 {
			continue
		}
		if m.count() == 1 && l.group[i].count() == 1 {
			continue
		}
		if l.group[i] != m {
			return true
		}
	}
	return false
}

// memoryIn reports whether a mask has the memory by some count.
func (k *Kubelet) memoryIn(m mask, need []MemoryNeed, of func(typ, node int) int64) bool {
	for _, n := range need {
		t := k.memoryType(n.Type)
		sum := int64(0)
		for i := range k.nodes() {
			if t >= 0 && m&(1<<i) != 0 {
				sum += of(t, i)
			}
		}
		if sum < n.Bytes {
			return false
		}
	}
	return true
}

// allocateMemory does what the memory manager does after the decision. Its
// errors fail the pod's admission under every policy.
func (l *Load) allocateMemory(k *Kubelet, v verdictNUMA, need []MemoryNeed) error {
	if len(need) == 0 || !k.StaticMemory {
		return nil
	}
	h := k.memoryHints(l, need)
	pick := func(base mask) (best mask) {
		for m := mask(1); m <= k.full(); m++ {
			if !h.all.has(m) || m&base != base {
				continue
			}
			switch {
			case best == 0, h.pref.has(m) && !h.pref.has(best):
				best = m
			case h.pref.has(m) == h.pref.has(best) && (m.count() < best.count() || (m.count() == best.count() && m < best)):
				best = m
			}
		}
		return best
	}
	m := v.affinity
	if m == 0 || !k.memoryIn(m, need, func(t, i int) int64 { return l.mem[t][i] }) {
		if m = pick(v.affinity); m == 0 {
			return fmt.Errorf("no NUMA nodes have %s free together", describeMemory(need))
		}
		if v.preferred && !h.pref.has(m) {
			return fmt.Errorf("%s would be spread over more NUMA nodes than it needs", describeMemory(need))
		}
	}
	if m.count() > 1 && l.conflicts(m) {
		return fmt.Errorf("%s would span NUMA nodes that other containers use alone", describeMemory(need))
	}
	for _, n := range need {
		l.takeMemory(k, m, k.memoryType(n.Type), n.Bytes)
	}
	return nil
}

func describeMemory(need []MemoryNeed) string {
	s := ""
	for i, n := range need {
		if i > 0 {
			s += " and "
		}
		s += fmt.Sprintf("%d MiB of %s", n.Bytes>>20, n.Type)
	}
	return s
}
