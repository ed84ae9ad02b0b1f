package devicetopology

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
)

// buildState reads off the node's pods what is taken. The pod with UID skip is
// left out: in pod group cycles the snapshot already holds the pod that is
// being reserved.
func (s *shared) buildState(e *nodeEntry, node string, pods []fwk.PodInfo, skip types.UID) *engine.State {
	st := engine.NewState(e.node)
	for _, pi := range pods {
		pod := pi.GetPod()
		if pod.UID == skip || terminated(pod) || !asksExtended(pod) {
			continue
		}
		s.usePod(st, node, pod)
	}
	return st
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
			if got < want {
				st.UseUnknown(res, want-got)
			}
		}
	})
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
