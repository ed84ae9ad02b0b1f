package handoff

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Pod is what the ledger needs of a pod.
type Pod struct {
	UID, Namespace, Name, Node string
	// Terminal says that the pod's phase is Succeeded or Failed: it never runs
	// again and holds nothing.
	Terminal bool
	Created  time.Time
	// Containers in the order in which kubelet allocates: init containers, then
	// the others.
	Containers []Container
	// Assignment is the scheduler's decision for this very pod, nil without
	// one. AssignmentErr says why an annotation that is there does not count.
	Assignment    *v1alpha1.Assignment
	AssignmentErr error
}

// Container is what the ledger needs of a container.
type Container struct {
	Name string
	// Init containers hand their devices to later containers, except sidecars.
	Init, Sidecar bool
	// Limits of extended resources.
	Limits map[string]int
	// Started says that the container has been made, hence has its devices.
	Started bool
	// Devices that kubelet reports in the pod's status, by resource, unsorted.
	Devices map[string][]string
}

// Ref is namespace/name of a pod.
func (p *Pod) Ref() string { return p.Namespace + "/" + p.Name }

// Source lists pods of this node. Kubelet's own list is one, an informer's cache
// another.
type Source interface {
	Pods(ctx context.Context) ([]Pod, error)
}

// FromPod converts a pod.
func FromPod(p *corev1.Pod) Pod {
	out := Pod{
		UID: string(p.UID), Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName,
		Created:  p.CreationTimestamp.Time,
		Terminal: p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
	}
	out.Assignment, out.AssignmentErr = assignmentOf(p.Annotations[v1alpha1.AssignmentAnnotation], out.UID, out.Node)
	add := func(c *corev1.Container, statuses []corev1.ContainerStatus, init bool) {
		o := Container{
			Name: c.Name, Init: init,
			Sidecar: init && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways,
			Limits:  extended(c.Resources.Limits),
		}
		for i := range statuses {
			s := &statuses[i]
			if s.Name != c.Name {
				continue
			}
			o.Started = s.ContainerID != "" || s.State.Running != nil || s.State.Terminated != nil || s.RestartCount > 0
			for _, r := range s.AllocatedResourcesStatus {
				if o.Limits[string(r.Name)] == 0 {
					continue
				}
				for _, h := range r.Resources {
					if o.Devices == nil {
						o.Devices = map[string][]string{}
					}
					o.Devices[string(r.Name)] = append(o.Devices[string(r.Name)], string(h.ResourceID))
				}
			}
		}
		out.Containers = append(out.Containers, o)
	}
	for i := range p.Spec.InitContainers {
		add(&p.Spec.InitContainers[i], p.Status.InitContainerStatuses, true)
	}
	for i := range p.Spec.Containers {
		add(&p.Spec.Containers[i], p.Status.ContainerStatuses, false)
	}
	return out
}

// extended keeps the resources whose names have a domain: those may be ours.
func extended(l corev1.ResourceList) map[string]int {
	var out map[string]int
	for name, q := range l {
		for i := range len(name) {
			if name[i] == '/' && q.Value() > 0 {
				if out == nil {
					out = map[string]int{}
				}
				out[string(name)] = int(q.Value())
				break
			}
		}
	}
	return out
}

// assignmentOf reads the annotation; one that names another pod or node means
// nothing.
func assignmentOf(text, uid, node string) (*v1alpha1.Assignment, error) {
	if text == "" {
		return nil, nil
	}
	a, err := v1alpha1.DecodeAssignment(text)
	switch {
	case err != nil:
		return nil, err
	case a.PodUID != uid:
		return nil, errForeignUID
	case a.Node != node:
		return nil, errForeignNode
	}
	return a, nil
}
