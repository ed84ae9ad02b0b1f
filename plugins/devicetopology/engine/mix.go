package engine

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kubevfio/kubevfio/topology"
)

// maxTypes is how many types of requests fragmentation looks at.
const maxTypes = 8

// copies counts, by type of a mix, how many requests of it fit.
type copies [maxTypes]int32

// Mix is what kinds of requests the cluster sees, with their shares. It is
// immutable.
type Mix struct {
	types []mixType
}

// mixType is one kind of request.
type mixType struct {
	req *Request
	// weight is its share in thousandths.
	weight int64
	// needs stand for what its requests ask for beside devices: the middles of
	// equal parts of the latest ones, by CPU. A mean would call a node useless
	// that has room for half of them.
	needs [needParts]Resources
}

// needParts is how many needs stand for a type, needsKept how many of its latest
// requests they are chosen from.
const needParts, needsKept = 4, 32

// Resources are what a node has, or a pod needs, beside devices.
type Resources struct {
	MilliCPU int64
	// Memory in bytes.
	Memory int64
}

// Observer keeps a decayed histogram of requests and makes mixes of it. It is
// safe for concurrent use; the zero value is ready. Decay is by requests, not
// by time, so that the same sequence gives the same mix.
type Observer struct {
	mu      sync.Mutex
	seen    int
	entries []observed
	current atomic.Pointer[Mix]
}

type observed struct {
	req   *Request
	count float64
	// recent are the latest needs, the oldest at next when there are needsKept.
	recent []Resources
	next   int
}

func (e *observed) add(need Resources) {
	e.count++
	if len(e.recent) < needsKept {
		e.recent = append(e.recent, need)
		return
	}
	e.recent[e.next] = need
	e.next = (e.next + 1) % needsKept
}

// demand is how many units of its largest item the type asks for in all: a rare
// type of eight units has more to lose than a frequent one of one.
func (e *observed) demand() float64 {
	most := 0
	for _, it := range e.req.Items {
		most = max(most, it.Count)
	}
	return e.count * float64(most)
}

// needs are the middles of equal parts of the latest needs.
func (e *observed) needs() (out [needParts]Resources) {
	sorted := slices.Clone(e.recent)
	slices.SortFunc(sorted, func(a, b Resources) int {
		return cmp.Or(cmp.Compare(a.MilliCPU, b.MilliCPU), cmp.Compare(a.Memory, b.Memory))
	})
	for i := range out {
		out[i] = sorted[(2*i+1)*len(sorted)/(2*needParts)]
	}
	return out
}

const (
	// observeDecay is what a request's weight is multiplied with at each
	// renewal: the weight halves in about 700 requests.
	observeDecay = 0.94
	// observeEvery is how many requests there are between renewals.
	observeEvery = 64
	// maxObserved bounds the histogram.
	maxObserved = 64
)

// Mix is the current mix. It changes rarely: memo entries hang on its pointer.
func (o *Observer) Mix() *Mix {
	if m := o.current.Load(); m != nil {
		return m
	}
	return nil
}

// Observe counts one request. req must come from an [Interner].
func (o *Observer) Observe(req *Request, need Resources) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.entries, func(e observed) bool { return e.req == req })
	fresh := i < 0
	if fresh {
		o.entries = append(o.entries, observed{req: req})
		i = len(o.entries) - 1
	}
	o.entries[i].add(need)
	o.seen++
	if o.seen%observeEvery == 0 || (fresh && len(o.entries) <= maxTypes) {
		o.renew()
	}
}

// renew makes the mix from the heaviest types and lets the histogram decay.
func (o *Observer) renew() {
	slices.SortStableFunc(o.entries, func(a, b observed) int {
		return cmp.Compare(b.demand(), a.demand())
	})
	if len(o.entries) > maxObserved {
		o.entries = o.entries[:maxObserved]
	}
	total := 0.0
	for _, e := range o.entries {
		total += e.count
	}
	m := &Mix{}
	for _, e := range o.entries[:min(len(o.entries), maxTypes)] {
		m.types = append(m.types, mixType{
			req:    e.req,
			weight: int64(1000 * e.count / total),
			needs:  e.needs(),
		})
	}
	o.current.Store(m)
	if o.seen%observeEvery == 0 {
		for i := range o.entries {
			e := &o.entries[i]
			e.count *= observeDecay
		}
	}
}

// fit is free units with some taken: what copies are counted in.
type fit struct {
	p *Profile
	// used and take are what is taken by domain and resource, and by cell.
	used []int32
	take []uint16
}

// left is the free units of a resource in a domain beside those taken.
func (f *fit) left(dom, res int) int32 {
	i := dom*len(f.p.shape.resources) + res
	return f.p.sums[i] - f.used[i]
}

// setLeft reports whether a fabric set is free beside what is taken.
func (f *fit) setLeft(set []uint16) bool {
	for _, c := range set {
		if f.p.free[c] <= f.take[c] {
			return false
		}
	}
	return true
}

// sets counts the free fabric sets of n units inside a domain.
func (f *fit) sets(dom, res, n int) int32 {
	k := int32(0)
	for _, set := range f.p.shape.fabric[res] {
		if len(set) == n && f.setLeft(set) && subset(set, f.p.shape.doms[dom].cells[res]) {
			k++
		}
	}
	return k
}

// copies counts how many copies of a request fit, each within one domain of
// its wished level.
func (f *fit) copies(b *bound, req *Request) int32 {
	s := f.p.shape
	if b.missing != "" || len(b.res) == 0 {
		return 0
	}
	first, last := s.wholeDom, s.wholeDom+1
	if req.Level < topology.Other && !singleUnit(b) {
		first, last = s.levelDoms(req.Level)
	}
	total := int32(0)
	for d := first; d < last; d++ {
		most := int32(1 << 30)
		for i, r := range b.res {
			n := b.n[i]
			switch {
			case n == 1:
				most = min(most, f.left(d, r))
			case s.fabric[r] != nil:
				most = min(most, f.sets(d, r, n))
			default:
				most = min(most, f.left(d, r)/int32(n))
			}
		}
		total += most
	}
	return total
}

// mixBounds are the bounds of a mix's types on a shape.
type mixBounds [maxTypes]*bound

func (m *Mix) on(s *Shape) (mb mixBounds) {
	for t := range m.types {
		mb[t] = m.types[t].req.on(s)
	}
	return mb
}

// count counts the copies of every type.
func (m *Mix) count(f *fit, mb *mixBounds, cp *copies) {
	for t := range m.types {
		cp[t] = f.copies(mb[t], m.types[t].req)
	}
}

// unusable is the expected number of free units, in thousandths and weighed by
// how scarce their resource is, that the mix could not use: for each type what
// stays free after as many copies as fit. CPU and memory do not come into it:
// they are the same for all choices inside one node.
func (m *Mix) unusable(f *fit, mb *mixBounds, cp *copies) int64 {
	total := int64(0)
	whole := f.p.shape.wholeDom
	for t := range m.types {
		mt, b := &m.types[t], mb[t]
		if b.missing != "" {
			// The type never uses this node: nothing here is lost to it.
			continue
		}
		n := int64(cp[t])
		left := int64(0)
		for i, r := range b.res {
			left += (int64(f.left(whole, r)) - n*int64(b.n[i])) * int64(b.scarcity[i])
		}
		total += mt.weight * left / 1000
	}
	return total
}

// Score rates a node for a request, 0 to 100, by the objective: how near the
// choice comes to the wish counts 60 points, then what the node loses for the
// mix of requests, CPU and memory included, then tightness. have is what the
// node has free beside devices, need what the pod asks for. A node on which the
// pod does not fit gets 0.
func Score(st *State, pod *Pod, mix *Mix, have, need Resources) int64 {
	req := pod.Request
	var r *result
	if st.predicted() {
		r = &st.placement(pod, mix).res
	} else {
		r = st.prof.choose(req, mix)
	}
	if !r.ok {
		return 0
	}
	// A level nearer than the wish is worth no more than the wish.
	points := int64(60)
	if over := r.level - req.Level; over > 0 {
		points -= int64(over) * 15
	}
	loss := int64(0)
	if mix != nil {
		loss = mix.loss(r, have, need)
	}
	// Sigmoid-like without floating point: 0 loss is 16 of 32 points, every
	// unit of loss or gain moves it less than the one before.
	const scale = 1000
	f := int64(16) - 16*loss/(scale+max(loss, -loss))
	points += f
	return points + max(0, 8-r.cost.Spread>>11)
}

// worth says what the resources of a type of a mix count for, by scarcity.
type worth struct {
	// copy is one copy of the type, taken what a request takes of its resources.
	copy, taken int64
}

// worths are the worths of a mix's types beside a request. A type that never
// uses the node has none: nothing there is lost to it.
func (m *Mix) worths(mb *mixBounds, req *bound) (out [maxTypes]worth) {
	if m == nil {
		return out
	}
	for t := range m.types {
		b := mb[t]
		if b.missing != "" {
			continue
		}
		for i, r := range b.res {
			out[t].copy += int64(b.n[i]) * int64(b.scarcity[i])
			if j := slices.Index(req.res, r); j >= 0 {
				out[t].taken += int64(req.n[j]) * int64(b.scarcity[i])
			}
		}
	}
	return out
}

// loss is by how much the units that the mix cannot use grow when the node
// takes the request, in thousandths, with CPU and memory in the picture. It runs
// for every node of every pod: what the choice alone decides is in its result.
func (m *Mix) loss(r *result, have, need Resources) int64 {
	total := int64(0)
	after := Resources{MilliCPU: have.MilliCPU - need.MilliCPU, Memory: have.Memory - need.Memory}
	for t := range m.types {
		mt, w := &m.types[t], r.worth[t]
		if w.copy == 0 {
			continue
		}
		// By how many copies of the type fewer fit, over all needs.
		fewer := int64(0)
		for i := range mt.needs {
			nd := &mt.needs[i]
			fewer += nd.limit(int64(r.before[t]), have) - nd.limit(int64(r.after[t]), after)
		}
		// What is free falls by what the request takes of the resources.
		total += mt.weight * (fewer*w.copy - w.taken*needParts) / (1000 * needParts)
	}
	return total
}

// limit is n when CPU and memory hold one copy with the need, else 0. Counting how
// many they hold would let small differences in CPU, which every pod makes, weigh
// more than a whole node that is broken into.
func (need *Resources) limit(n int64, have Resources) int64 {
	if need.MilliCPU > 0 && have.MilliCPU < need.MilliCPU || need.Memory > 0 && have.Memory < need.Memory {
		return 0
	}
	return n
}
