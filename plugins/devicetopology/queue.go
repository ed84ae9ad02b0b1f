package devicetopology

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// EventsToRegister names the events after which a pod that the plugin rejected
// may fit. Inventories are not among them: they come through the plugin's own
// watches, because an informer for a resource that is not installed would keep
// the scheduler from starting; see the package comment.
func (pl *plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Delete}, QueueingHintFn: pl.podGone},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeTaint | fwk.UpdateNodeLabel}},
	}, nil
}

// podGone wakes a pod when another one that held devices of its kinds is gone.
func (pl *plugin) podGone(_ klog.Logger, pod *corev1.Pod, oldObj, _ any) (fwk.QueueingHint, error) {
	gone, ok := oldObj.(*corev1.Pod)
	if !ok || shareResources(gone, pod) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}

// shareResources reports whether two pods ask for an extended resource in
// common.
func shareResources(a, b *corev1.Pod) bool {
	want := map[corev1.ResourceName]bool{}
	eachContainer(a, func(c *corev1.Container, _ bool) {
		for name := range c.Resources.Requests {
			if extended(name) {
				want[name] = true
			}
		}
	})
	found := false
	eachContainer(b, func(c *corev1.Container, _ bool) {
		for name := range c.Resources.Requests {
			found = found || want[name]
		}
	})
	return found
}

// SignPod adds to the pod's signature what the plugin looks at beside the
// requests, which other plugins sign: which container asks for what, and the wish.
func (pl *plugin) SignPod(_ context.Context, pod *corev1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	if !asksExtended(pod) {
		return nil, nil
	}
	type request struct {
		Container string
		Init      bool
		Requests  corev1.ResourceList
		// Limits decide the quality of service, and with it exclusive CPUs.
		Limits corev1.ResourceList
	}
	var rs []request
	eachContainer(pod, func(c *corev1.Container, init bool) {
		rs = append(rs, request{c.Name, init, c.Resources.Requests, c.Resources.Limits})
	})
	return []fwk.SignFragment{
		{Key: Name + ".Requests", Value: rs},
		{Key: Name + ".Alignment", Value: pod.Annotations[v1alpha1.AlignmentAnnotation]},
	}, nil
}
