package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
)

// Pod is what one pod wants: of devices in all, and container by container of
// kubelet's managers. Get it from [Interner.Pod].
type Pod struct {
	Request *Request
	// Containers in the order in which kubelet admits them.
	Containers []Container
}

// NewPod sums up the containers' devices. Containers without devices, CPUs of
// their own and managed memory may be left out.
func NewPod(containers []Container, level topology.Distance, required bool) *Pod {
	var items []Item
	for i := range containers {
		slices.SortFunc(containers[i].Items, func(a, b Item) int { return cmp.Compare(a.Resource, b.Resource) })
		items = append(items, containers[i].Items...)
	}
	return &Pod{Request: NewRequest(items, level, required), Containers: containers}
}

// key is equal for equal pods.
func (p *Pod) key() string {
	var b strings.Builder
	b.WriteString(p.Request.String())
	for _, c := range p.Containers {
		fmt.Fprintf(&b, ";%q %d %d %v %v", c.Name, c.Kind, c.CPUs, c.Memory, c.Items)
	}
	return b.String()
}

// Placement is where a pod's devices come from on a node.
type Placement struct {
	// Units are unit indexes by container of the pod and item of the container.
	Units [][][]int
	// Level is the nearest level whose one domain holds all units.
	Level topology.Distance
	// NUMA nodes that the units touch, sorted; unknown nodes are left out.
	NUMA []int
	// Load is what kubelet's managers will have handed out on the node with the
	// pod; nil where they are not predicted.
	Load *Load

	res    result
	ok     bool
	reason string
}

// predicted reports whether kubelet's managers decide on this node.
func (st *State) predicted() bool {
	return st.Kubelet != nil && (st.Kubelet.aligned() || st.Kubelet.StaticMemory)
}

// Fits reports whether the node has a legal set of units for the pod that
// kubelet will admit and hand out. The mix does not change the answer; it is
// the one that [Place] will be asked with, so that work is done once.
func Fits(st *State, pod *Pod, mix *Mix) bool {
	if _, ok := Feasible(st, pod.Request); !ok {
		return false
	}
	return !st.predicted() || st.placement(pod, mix).ok
}

// Place picks the units. The same state, pod and mix (nil: none) give the same
// placement. ok is false when the pod does not fit.
func Place(st *State, pod *Pod, mix *Mix) (*Placement, bool) {
	p := st.placement(pod, mix)
	return p, p.ok
}

// placementSlots is how many placements a state remembers.
const placementSlots = 4

// placed is a memoised placement.
type placed struct {
	pod *Pod
	mix *Mix
	p   *Placement
}

// placement returns the memoised or computed placement.
func (st *State) placement(pod *Pod, mix *Mix) *Placement {
	for i := range st.memo {
		if m := st.memo[i].Load(); m != nil && m.pod == pod && m.mix == mix {
			return m.p
		}
	}
	p := st.place(pod, mix)
	st.memo[(st.nextMemo.Add(1)-1)%placementSlots].Store(&placed{pod: pod, mix: mix, p: p})
	return p
}

// place computes a placement. Where what the node's memory manager remembers is
// not certain, the same units must be admitted whatever it is.
func (st *State) place(pod *Pod, mix *Mix) *Placement {
	p := st.placeWith(pod, mix, st.Load)
	if !p.ok || st.Load == nil || !st.Kubelet.StaticMemory || !pod.wantsMemory() {
		return p
	}
	for _, l := range st.Load.variants() {
		if q := st.placeWith(pod, mix, l); !q.ok || !sameUnits(p.Units, q.Units) {
			p.ok, p.Load = false, nil
			p.reason = "containers hold memory across NUMA nodes, which makes its memory manager's choice uncertain"
			return p
		}
	}
	return p
}

// placeWith computes a placement on top of a load.
func (st *State) placeWith(pod *Pod, mix *Mix, load *Load) *Placement {
	w := &placing{st: st, pod: pod, mix: mix, before: load, p: &Placement{Units: make([][][]int, len(pod.Containers))}}
	w.reset()
	for i, c := range pod.Containers {
		w.p.Units[i] = make([][]int, len(c.Items))
	}
	k := st.Kubelet
	var err error
	_, feasible := Feasible(st, pod.Request)
	switch {
	case !feasible:
		// The reason is found when somebody asks: see Explain.
		return w.p
	case !st.predicted():
		err = w.freely()
	case !k.aligned():
		if err = w.freely(); err == nil {
			err = w.managers(verdictNUMA{})
		}
	case k.PodScope:
		err = w.podScope()
	default:
		err = w.containerScope()
	}
	w.finish(err)
	return w.p
}

// placing is the work on one placement.
type placing struct {
	st  *State
	pod *Pod
	mix *Mix
	p   *Placement
	// free are the free units by cell as containers take theirs.
	free []uint16
	take []uint16
	// chosen units.
	chosen bitset
	// before is what kubelet's managers had handed out, load with the pod's
	// containers so far.
	before, load *Load
	reuse        [maxNUMA]int
}

func (w *placing) reset() {
	w.free = slices.Clone(w.st.free)
	w.take = make([]uint16, len(w.st.free))
	w.chosen = newBitset(len(w.st.Node.IDs))
	w.reuse = [maxNUMA]int{}
	if w.before != nil {
		w.load = w.before.Clone()
	}
}

// finish fills in what follows from the units.
func (w *placing) finish(err error) {
	p, s := w.p, w.st.Node.Shape
	b := w.pod.Request.on(s)
	if err == nil {
		p.Level = w.st.prof.levelOf(b, w.take)
		if w.pod.Request.Required && p.Level > w.pod.Request.Level && !singleUnit(b) {
			err = fmt.Errorf("kubelet's topology policy %s would not give units behind one %s", w.st.Kubelet.Policy, levelPhrase(w.pod.Request.Level))
		}
	}
	if err != nil {
		p.reason = err.Error()
		return
	}
	p.ok, p.Load = true, w.load
	p.res = w.st.prof.evaluate(b, w.mix, w.take)
	p.res.level = p.Level
	for i := range w.st.Node.IDs {
		if !w.chosen.has(i) {
			continue
		}
		if n := s.NUMAOf(i); n != topology.NUMAUnknown && !slices.Contains(p.NUMA, n) {
			p.NUMA = append(p.NUMA, n)
		}
	}
	slices.Sort(p.NUMA)
}

// choose takes the units of a request out of the cells of the affinity (0: of
// the whole node), as kubelet will: where the affinity has as many units as
// needed, only from there; where it has fewer, all of them and the rest from
// elsewhere. It returns unit indexes by item, units of the affinity first.
func (w *placing) choose(req *Request, affinity mask) ([][]int, error) {
	st, s, k := w.st, w.st.Node.Shape, w.st.Kubelet
	b := req.on(s)
	out := make([][]int, len(req.Items))
	free := slices.Clone(w.free)
	rest := make([]Item, 0, len(req.Items))
	forced := make([]uint16, len(free))
	for i, it := range req.Items {
		r := b.res[i]
		if r < 0 {
			return nil, fmt.Errorf("the node has no %s", it.Resource)
		}
		need := it.Count
		if affinity != 0 && k.view(s, free, r).bear != 0 {
			near := 0
			for _, c := range s.whole().cells[r] {
				if n := k.index(s.cells[c].numa); n >= 0 && affinity&(1<<n) != 0 {
					near += int(free[c])
				}
			}
			for _, c := range s.whole().cells[r] {
				n := k.index(s.cells[c].numa)
				in := n >= 0 && affinity&(1<<n) != 0
				switch {
				case near >= need && !in:
					free[c] = 0
				case near < need && in:
					forced[c], free[c] = free[c], 0
				}
			}
			if near < need {
				need -= near
			}
		}
		rest = append(rest, Item{Resource: it.Resource, Count: need})
	}
	// A wish is looked at again for the whole pod at the end.
	sub := s.in.Request(NewRequest(rest, req.Level, false))
	prof := st.prof
	if !slices.Equal(free, st.free) {
		prof = s.in.profile(s, free, st.unknown)
	}
	res := prof.choose(sub, w.mix)
	if !res.ok {
		return nil, fmt.Errorf("the units that kubelet would hand out (NUMA nodes %s) are not enough or not a legal set", k.ids(affinity))
	}
	for i := range req.Items {
		r := b.res[i]
		out[i] = append(w.pick(forced, r), w.pick(res.take, r)...)
	}
	return out, nil
}

// pick takes counted units of a resource and notes them.
func (w *placing) pick(take []uint16, res int) []int {
	units := w.st.pick(take, res, w.chosen)
	for _, u := range units {
		c := w.st.Node.Shape.unitCell[u]
		w.chosen.set(u)
		w.take[c]++
		w.free[c]--
	}
	return units
}

// freely places the pod where kubelet's topology manager has no say.
func (w *placing) freely() error {
	units, err := w.choose(w.pod.Request, 0)
	if err != nil {
		return err
	}
	w.deal(units)
	return nil
}

// deal hands the pod's units to its containers in order.
func (w *placing) deal(units [][]int) {
	for c := range w.pod.Containers {
		for i, it := range w.pod.Containers[c].Items {
			j := slices.IndexFunc(w.pod.Request.Items, func(x Item) bool { return x.Resource == it.Resource })
			w.p.Units[c][i], units[j] = slices.Clone(units[j][:it.Count]), units[j][it.Count:]
		}
	}
}

// managers lets the CPU and memory managers serve all containers by one
// decision.
func (w *placing) managers(v verdictNUMA) error {
	for c := range w.pod.Containers {
		if err := w.manage(&w.pod.Containers[c], v); err != nil {
			return err
		}
	}
	return nil
}

// manage lets the CPU and memory managers serve one container.
func (w *placing) manage(c *Container, v verdictNUMA) error {
	k := w.st.Kubelet
	if k.StaticCPU && c.CPUs > 0 {
		if k.FullCores && c.CPUs%2 != 0 {
			return fmt.Errorf("container %s asks for %d CPUs; the node's kubelet gives whole cores only (full-pcpus-only)", c.Name, c.CPUs)
		}
		got, err := w.load.takeCPUs(k, v.affinity, c.CPUs, &w.reuse)
		if err != nil {
			return fmt.Errorf("container %s: %w", c.Name, err)
		}
		for i := range got {
			if c.Kind == Init {
				w.reuse[i] = max(w.reuse[i], got[i])
			} else {
				w.reuse[i] = max(0, w.reuse[i]-got[i])
			}
		}
	}
	if err := w.load.allocateMemory(k, v, c.Memory); err != nil {
		return fmt.Errorf("container %s: %w", c.Name, err)
	}
	return nil
}

// podScope places by one decision for the whole pod.
func (w *placing) podScope() error {
	k := w.st.Kubelet
	if err := w.certain(); err != nil {
		return err
	}
	cpus, memory := podSums(w.pod.Containers)
	hs := k.managerHints(w.load, cpus, &w.reuse, memory)
	v, err := w.decide(w.pod.Request.Items, hs)
	if err != nil {
		return err
	}
	units, err := w.choose(w.pod.Request, v.affinity)
	if err != nil {
		return err
	}
	w.deal(units)
	return w.managers(v)
}

// containerScope places container by container. Where several containers have
// devices and their greedy choices miss the wish, it chooses for the whole pod
// first and looks whether kubelet would agree.
func (w *placing) containerScope() error {
	if err := w.certain(); err != nil {
		return err
	}
	holders := 0
	for i := range w.pod.Containers {
		if len(w.pod.Containers[i].Items) > 0 {
			holders++
		}
	}
	err := w.inOrder(nil)
	if holders < 2 {
		return err
	}
	if err == nil {
		b := w.pod.Request.on(w.st.Node.Shape)
		if w.st.prof.levelOf(b, w.take) <= w.pod.Request.Level || !w.pod.Request.Required {
			return nil
		}
	}
	w.reset()
	units, errAll := w.choose(w.pod.Request, 0)
	if errAll != nil {
		return cmp.Or(err, errAll)
	}
	w.deal(units)
	plan := w.p.Units
	w.reset()
	return w.inOrder(plan)
}

// inOrder serves container after container. With a plan it takes the plan's
// units and fails where kubelet would take others.
func (w *placing) inOrder(plan [][][]int) error {
	k, s := w.st.Kubelet, w.st.Node.Shape
	for c := range w.pod.Containers {
		ct := &w.pod.Containers[c]
		hs := k.managerHints(w.load, ct.CPUs, &w.reuse, ct.Memory)
		v, err := w.decide(ct.Items, hs)
		if err != nil {
			return fmt.Errorf("container %s: %w", ct.Name, err)
		}
		if len(ct.Items) > 0 && plan == nil {
			req := s.in.Request(NewRequest(ct.Items, w.pod.Request.Level, false))
			if w.p.Units[c], err = w.choose(req, v.affinity); err != nil {
				return fmt.Errorf("container %s: %w", ct.Name, err)
			}
		}
		if len(ct.Items) > 0 && plan != nil {
			if err := w.follow(ct, plan[c], v.affinity); err != nil {
				return fmt.Errorf("container %s: %w", ct.Name, err)
			}
		}
		if err := w.manage(ct, v); err != nil {
			return err
		}
	}
	return nil
}

// follow takes planned units if kubelet can be steered to them.
func (w *placing) follow(ct *Container, plan [][]int, affinity mask) error {
	k, s := w.st.Kubelet, w.st.Node.Shape
	for i, it := range ct.Items {
		r := s.Resource(it.Resource)
		near, mine := 0, 0
		for _, c := range s.whole().cells[r] {
			if n := k.index(s.cells[c].numa); n >= 0 && affinity&(1<<n) != 0 {
				near += int(w.free[c])
			}
		}
		for _, u := range plan[i] {
			if n := k.index(s.NUMAOf(u)); n >= 0 && affinity&(1<<n) != 0 {
				mine++
			}
		}
		if affinity != 0 && k.view(s, w.free, r).bear != 0 && mine != min(near, it.Count) {
			return fmt.Errorf("kubelet would take %s from NUMA nodes %s", it.Resource, k.ids(affinity))
		}
		for _, u := range plan[i] {
			c := s.unitCell[u]
			w.chosen.set(u)
			w.take[c]++
			w.free[c]--
		}
	}
	return nil
}

// certain fails where pods hold units that nobody has named yet: the hints
// cannot be predicted then.
func (w *placing) certain() error {
	b := w.pod.Request.on(w.st.Node.Shape)
	for _, r := range b.res {
		if r >= 0 && w.st.unknown[r] > 0 {
			return fmt.Errorf("waiting for kubelet's report of the %s that a pod without an assignment holds (topology policy %s)", w.st.Node.Shape.resources[r], w.st.Kubelet.Policy)
		}
	}
	if len(w.st.Kubelet.NUMA) > maxNUMA {
		return fmt.Errorf("the node has %d NUMA nodes under topology policy %s; kubelet's choice is predicted up to %d", len(w.st.Kubelet.NUMA), w.st.Kubelet.Policy, maxNUMA)
	}
	return nil
}

// decide adds the devices' hints and merges.
func (w *placing) decide(items []Item, hs []hints) (verdictNUMA, error) {
	k, s := w.st.Kubelet, w.st.Node.Shape
	for _, it := range items {
		r := s.Resource(it.Resource)
		if r < 0 {
			return verdictNUMA{}, fmt.Errorf("the node has no %s", it.Resource)
		}
		d := k.view(s, w.free, r)
		hs = append(hs, k.deviceHints(&d, it.Count))
	}
	v := k.merge(hs)
	if !v.admit {
		return v, fmt.Errorf("kubelet's topology policy %s finds no NUMA nodes that have devices, exclusive CPUs and memory together", k.Policy)
	}
	return v, nil
}
