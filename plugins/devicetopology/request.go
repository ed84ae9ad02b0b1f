package devicetopology

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
	"github.com/kubevfio/kubevfio/topology"
)

// podRequest is a pod's wish, parsed once per cycle.
type podRequest struct {
	pod *engine.Pod
	// alignment is the parsed wish, nil without one.
	alignment *v1alpha1.Alignment
}

// extended reports whether a resource name is one that device plugins offer.
func extended(name corev1.ResourceName) bool {
	s := string(name)
	return strings.Contains(s, "/") && !strings.Contains(s, "kubernetes.io/") && !strings.HasPrefix(s, v1alpha1.SlotPrefix)
}

// asksExtended reports whether any container asks for an extended resource
// other than our slots.
func asksExtended(pod *corev1.Pod) bool {
	for i := range pod.Spec.Containers {
		for name := range pod.Spec.Containers[i].Resources.Requests {
			if extended(name) {
				return true
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		for name := range pod.Spec.InitContainers[i].Resources.Requests {
			if extended(name) {
				return true
			}
		}
	}
	return false
}

// sidecar reports whether an init container runs as long as the pod.
func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// eachContainer calls fn for all containers in the order in which kubelet
// admits them; init tells those that end before the others start.
func eachContainer(pod *corev1.Pod, fn func(c *corev1.Container, init bool)) {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		fn(c, !sidecar(c))
	}
	for i := range pod.Spec.Containers {
		fn(&pod.Spec.Containers[i], false)
	}
}

// eachDeviceContainer calls fn for the containers that may hold devices, in
// the order in which kubelet admits them.
func eachDeviceContainer(pod *corev1.Pod, fn func(*corev1.Container)) {
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; sidecar(c) {
			fn(c)
		}
	}
	for i := range pod.Spec.Containers {
		fn(&pod.Spec.Containers[i])
	}
}

// parsePod reads a pod's wish. It returns nil for a pod without a request for
// our resources. Errors are for the pod's owner and name annotation or container.
func parsePod(pod *corev1.Pod, ours func(resource string) bool) (*podRequest, error) {
	pr := &podRequest{}
	wish, wished := pod.Annotations[v1alpha1.AlignmentAnnotation]
	if wished {
		a, err := v1alpha1.ParseAlignment(wish)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", v1alpha1.AlignmentAnnotation, err)
		}
		pr.alignment = &a
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if sidecar(c) {
			continue
		}
		for name, q := range c.Resources.Requests {
			if extended(name) && !q.IsZero() && ours(string(name)) {
				return nil, fmt.Errorf("init container %s asks for %s: devices in init containers are not supported, request them in a container or a sidecar", c.Name, name)
			}
		}
	}
	containers := exclusive(pod)
	items := 0
	next := 0
	eachContainer(pod, func(c *corev1.Container, init bool) {
		ec := &containers[next]
		next++
		if init {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(c.Resources.Requests)) {
			q := c.Resources.Requests[name]
			n := int(q.Value())
			if n == 0 || !extended(name) || !ours(string(name)) {
				continue
			}
			ec.Items = append(ec.Items, engine.Item{Resource: string(name), Count: n})
			items++
		}
	})
	if items == 0 {
		if wished {
			return nil, fmt.Errorf("annotation %s: the pod asks for no device resource that a DevicePool or a node's inventory offers", v1alpha1.AlignmentAnnotation)
		}
		return nil, nil
	}
	level, required := topology.Other, false
	if pr.alignment != nil {
		level, required = pr.alignment.Level, pr.alignment.Required
	}
	pr.pod = engine.NewPod(containers, level, required)
	return pr, nil
}

// assign turns a placement into the assignment of the pod's containers.
func (pr *podRequest) assign(n *engine.Node, p *engine.Placement, uid, node string) (*v1alpha1.Assignment, error) {
	a := &v1alpha1.Assignment{
		Version: v1alpha1.AssignmentVersion, PodUID: uid, Node: node,
		Containers: map[string]map[string][]topology.Address{},
		NUMANodes:  p.NUMA,
	}
	if pr.pod.Request.Units() > 1 {
		a.Alignment = p.Level.String()
	}
	for i, c := range pr.pod.Containers {
		for j, it := range c.Items {
			var addrs []topology.Address
			for _, u := range p.Units[i][j] {
				addr, err := topology.ParseAddress(n.IDs[u])
				if err != nil {
					return nil, fmt.Errorf("inventory of node %s: %w", node, err)
				}
				addrs = append(addrs, addr)
			}
			if a.Containers[c.Name] == nil {
				a.Containers[c.Name] = map[string][]topology.Address{}
			}
			a.Containers[c.Name][it.Resource] = addrs
		}
	}
	return a, nil
}
