package devicetopology

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
)

// lookup gives what is free on a node, and what its inventory says; the status
// says why the node cannot be judged. Filter and Score ask for hundreds of nodes
// per pod: see memos.
func (pl *plugin) lookup(ni fwk.NodeInfo) (*nodeEntry, *engine.State, *fwk.Status) {
	gen, epoch := ni.GetGeneration(), pl.ledger.epoch.Load()
	if m := pl.memos.get(ni); m != nil && m.generation == gen && m.epoch == epoch && pl.current(m) {
		return m.entry, m.state, nil
	}
	node := ni.Node()
	e := pl.inv.get(node.Name)
	if st := usable(e, node); st != nil {
		return nil, nil, st
	}
	m := &nodeMemo{generation: gen, epoch: epoch, entry: e, appeared: pl.usage.appeared.Load(), usage: pl.usage.get(node.Name)}
	m.state, m.until = pl.buildState(e, node.Name, ni.GetPods(), "")
	if own, err := pl.handle.SnapshotSharedLister().NodeInfos().Get(node.Name); err == nil && own == ni {
		pl.memos.put(ni, m)
	}
	return e, m.state, nil
}

// current reports whether the inventory, the usage report and the holds that a
// memo was made from are those of now.
func (pl *plugin) current(m *nodeMemo) bool {
	// Both only grow, and after what they count is there.
	if news := pl.inv.gen.Load() + pl.usage.changes.Load(); m.news.Load() != news {
		switch {
		case m.entry.replaced.Load():
			return false
		case m.usage != nil && m.usage.replaced.Load(), m.usage == nil && m.appeared != pl.usage.appeared.Load():
			return false
		}
		m.news.Store(news)
	}
	return m.until.IsZero() || pl.ledger.now().Before(m.until)
}

// buildState reads off the node's pods what is taken. The pod with UID skip is
// left out: in pod group cycles the snapshot already holds the pod that is
// being reserved. until is when the state ends because a hold does.
func (s *shared) buildState(e *nodeEntry, node string, pods []fwk.PodInfo, skip types.UID) (st *engine.State, until time.Time) {
	st = engine.NewState(e.node)
	held, until := s.ledger.held(node)
	var nominated []*corev1.Pod
	for _, pi := range pods {
		pod := pi.GetPod()
		if held != nil {
			delete(held, pod.UID)
		}
		if pod.UID == skip || terminated(pod) || !asksExtended(pod) {
			continue
		}
		if pod.Spec.NodeName == "" {
			nominated = append(nominated, pod)
			continue
		}
		s.usePod(st, node, pod)
	}
	for uid, a := range held {
		if uid == skip {
			continue
		}
		for _, resources := range a.Containers {
			for _, units := range resources {
				for _, addr := range units {
					if u := st.Node.Unit(addr.String()); u >= 0 {
						st.Use(u)
					}
				}
			}
		}
	}
	if e.kubelet != nil {
		st.Kubelet = e.kubelet.model
		st.Load = s.load(e.kubelet, e, node, s.usage.get(node), pods, string(skip))
	}
	st.Seal()
	for _, pod := range nominated {
		st = s.useNominated(st, pod)
	}
	return st, until
}

// useNominated makes room for a pod that preemption has promised the node to.
// It has no units yet: the engine chooses as it would.
func (s *shared) useNominated(st *engine.State, pod *corev1.Pod) *engine.State {
	pr, err := parsePod(pod, s.inv.ours)
	if err != nil || pr == nil {
		return st
	}
	p, ok := engine.Place(st, s.inv.interner.Pod(pr.pod), s.seen.Mix())
	next := st.Clone()
	for i := range pr.pod.Containers {
		for j, it := range pr.pod.Containers[i].Items {
			if !ok {
				// It does not fit now; whatever it gets will be of these.
				if r := st.Node.Shape.Resource(it.Resource); r >= 0 {
					next.UseUnknown(r, it.Count)
				}
				continue
			}
			for _, u := range p.Units[i][j] {
				next.Use(u)
			}
		}
	}
	if ok && p.Load != nil {
		next.Load = p.Load
	}
	return next.Seal()
}

// terminated pods hold nothing: kubelet has freed their devices.
func terminated(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// usePod marks what a pod holds: what kubelet reports, else what we decided,
// else a count of unknown units.
func (s *shared) usePod(st *engine.State, node string, pod *corev1.Pod) {
	n := st.Node
	decided := s.decision(pod, node)
	eachDeviceContainer(pod, func(c *corev1.Container) {
		for name, q := range c.Resources.Requests {
			if !extended(name) {
				continue
			}
			res := n.Shape.Resource(string(name))
			if res < 0 {
				continue
			}
			want := int(q.Value())
			got := 0
			for _, id := range allocated(pod, c.Name, name) {
				if u := n.Unit(id); u >= 0 && st.Use(u) {
					got++
				}
			}
			if got == 0 && decided != nil {
				for _, a := range decided.Containers[c.Name][string(name)] {
					if u := n.Unit(a.String()); u >= 0 {
						st.Use(u)
						got++
					}
				}
			}
			if got == 0 {
				got = s.useReported(st, node, pod.UID, string(name), want)
			}
			if got < want {
				st.UseUnknown(res, want-got)
			}
		}
	})
}

// useReported marks the units that the node's agent reports for a pod without
// an assignment (NodeUsage).
func (s *shared) useReported(st *engine.State, node string, uid types.UID, resource string, want int) int {
	got := 0
	for _, id := range s.usage.devices(node, uid, resource) {
		if got == want {
			break
		}
		if u := st.Node.Unit(id); u >= 0 && st.Use(u) {
			got++
		}
	}
	return got
}

// decision is the assignment that holds for a pod on a node, nil when there is
// none: the reservation while it is live, then the annotation, then what is
// left of the reservation.
func (s *shared) decision(pod *corev1.Pod, node string) *v1alpha1.Assignment {
	r := s.ledger.get(pod.UID)
	if r != nil && r.node != node {
		r = nil
	}
	if r != nil && r.live {
		return r.assignment
	}
	if text, ok := pod.Annotations[v1alpha1.AssignmentAnnotation]; ok {
		if r != nil && r.encoded == text {
			return r.assignment
		}
		a, err := v1alpha1.DecodeAssignment(text)
		if err == nil && a.PodUID == string(pod.UID) && a.Node == node {
			return a
		}
	}
	if r != nil {
		return r.assignment
	}
	return nil
}

// allocated are the unit IDs that kubelet reports for a container's resource;
// nil when it has not reported.
func allocated(pod *corev1.Pod, container string, resource corev1.ResourceName) []string {
	for i := range pod.Status.ContainerStatuses {
		cs := &pod.Status.ContainerStatuses[i]
		if cs.Name != container {
			continue
		}
		for j := range cs.AllocatedResourcesStatus {
			rs := &cs.AllocatedResourcesStatus[j]
			if rs.Name != resource {
				continue
			}
			ids := make([]string, 0, len(rs.Resources))
			for _, h := range rs.Resources {
				ids = append(ids, string(h.ResourceID))
			}
			return ids
		}
	}
	return nil
}
