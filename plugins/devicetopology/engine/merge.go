package engine

import "slices"

// verdictNUMA is the topology manager's decision: affinity 0 means none.
type verdictNUMA struct {
	affinity  mask
	preferred bool
	admit     bool
}

// merge does what the topology manager does with the hints of all resources.
func (k *Kubelet) merge(all []hints) verdictNUMA {
	cares, possible := false, true
	pref := maskSet{}
	for i := range pref {
		pref[i] = ^uint64(0)
	}
	for i := range all {
		h := &all[i]
		if !h.care {
			continue
		}
		cares = true
		if h.all.empty() {
			possible = false
			continue
		}
		pref.and(&h.pref)
	}
	if !cares {
		if k.Policy == PolicySingleNUMA {
			return verdictNUMA{preferred: true, admit: true}
		}
		return verdictNUMA{affinity: k.full(), preferred: true, admit: true}
	}
	best := mask(0)
	if possible {
		for m := mask(1); m <= k.full(); m++ {
			if pref.has(m) && (k.Policy != PolicySingleNUMA || m.count() == 1) && k.better(m, best) {
				best = m
			}
		}
	}
	switch {
	case best != 0 && k.Policy == PolicySingleNUMA && best == k.full():
		return verdictNUMA{preferred: true, admit: true}
	case best != 0:
		return verdictNUMA{affinity: best, preferred: true, admit: true}
	case k.Policy == PolicyBestEffort:
		return verdictNUMA{affinity: k.mergeLoosely(all), admit: true}
	}
	return verdictNUMA{}
}

// better reports whether kubelet takes mask m over the mask old (0: none yet).
func (k *Kubelet) better(m, old mask) bool {
	if old == 0 {
		return true
	}
	if m.count() != old.count() {
		return m.count() < old.count()
	}
	if k.PreferClosest && k.Policy != PolicySingleNUMA {
		if a, b := k.meanDistance(m), k.meanDistance(old); a != b {
			return a < b
		}
	}
	return m < old
}

// meanDistance is the mean over all ordered pairs, times the number of pairs of
// equally large masks: comparable only between those.
func (k *Kubelet) meanDistance(m mask) int {
	sum := 0
	for i := range k.nodes() {
		for j := range k.nodes() {
			if m&(1<<i) != 0 && m&(1<<j) != 0 && j < len(k.NUMA[i].Distances) {
				sum += k.NUMA[i].Distances[j]
			}
		}
	}
	return sum
}

// mergeLoosely is the best-effort policy's choice when no mask suits all: of
// the intersections that are not empty, the one whose size comes nearest from
// below to what the hungriest resource needs, else the smallest.
func (k *Kubelet) mergeLoosely(all []hints) mask {
	want := 0
	var reach maskSet
	reach.add(k.full())
	for i := range all {
		h := &all[i]
		if !h.care || h.all.empty() {
			continue
		}
		least := maxNUMA
		var next maskSet
		for m := mask(1); m <= k.full(); m++ {
			if !h.all.has(m) {
				continue
			}
			least = min(least, m.count())
			for r := mask(1); r <= k.full(); r++ {
				if reach.has(r) && r&m != 0 {
					next.add(r & m)
				}
			}
		}
		want = max(want, least)
		reach = next
	}
	best := mask(0)
	for m := mask(1); m <= k.full(); m++ {
		if !reach.has(m) {
			continue
		}
		switch c, b := m.count(), best.count(); {
		case best == 0,
			c <= want && b > want,
			c <= want && c > b,
			b > want && c < b,
			c == b && k.better(m, best):
			best = m
		}
	}
	if best == 0 {
		return k.full()
	}
	return best
}

// podSums are the CPUs and memory of a pod as kubelet's pod scope counts them:
// what runs for long together, or the largest init container with the sidecars
// before it.
func podSums(cs []Container) (cpus int, memory []MemoryNeed) {
	long, sidecars, peak := 0, 0, 0
	var memLong, memSide, memPeak []MemoryNeed
	for _, c := range cs {
		switch c.Kind {
		case Init:
			peak = max(peak, sidecars+c.CPUs)
			memPeak = joinMemory(memPeak, joinMemory(memSide, c.Memory, add64), max64)
		case Sidecar:
			sidecars += c.CPUs
			long += c.CPUs
			memSide = joinMemory(memSide, c.Memory, add64)
			memLong = joinMemory(memLong, c.Memory, add64)
		case App:
			long += c.CPUs
			memLong = joinMemory(memLong, c.Memory, add64)
		}
	}
	return max(long, peak), joinMemory(memLong, memPeak, max64)
}

func add64(a, b int64) int64 { return a + b }
func max64(a, b int64) int64 { return max(a, b) }

func joinMemory(a, b []MemoryNeed, f func(x, y int64) int64) []MemoryNeed {
	out := slices.Clone(a)
	for _, n := range b {
		if i := slices.IndexFunc(out, func(x MemoryNeed) bool { return x.Type == n.Type }); i >= 0 {
			out[i].Bytes = f(out[i].Bytes, n.Bytes)
		} else {
			out = append(out, n)
		}
	}
	return out
}
