package hardware

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// Holder is who holds a unit.
type Holder struct {
	Namespace string `json:"namespace,omitempty"`
	// Pod is empty when only its UID is known.
	Pod string `json:"pod,omitempty"`
	// Instance is the VirtualMachineInstance of the pod, empty for a plain pod.
	Instance string `json:"instance,omitempty"`
	UID      string `json:"uid"`
}

// String is the holder for people: "vmi vms/trainer", "pod vms/plain".
func (h Holder) String() string {
	switch {
	case h.Instance != "":
		return "vmi " + h.Namespace + "/" + h.Instance
	case h.Pod != "":
		return "pod " + h.Namespace + "/" + h.Pod
	case h.UID != "":
		return "pod with UID " + h.UID
	}
	return ""
}

// Holders maps node -> unit -> holder.
type Holders map[string]map[string]Holder

// NewHolders reads who holds what. Pods that ended hold nothing. Either list may be
// incomplete or nil.
func NewHolders(pods []corev1.Pod, usages []v1alpha1.NodeUsage) Holders {
	all := Holders{}
	byUID := map[string]Holder{}
	ended := map[string]bool{}
	for i := range pods {
		p := &pods[i]
		h := Holder{Namespace: p.Namespace, Pod: p.Name, Instance: instanceOf(p), UID: string(p.UID)}
		byUID[h.UID] = h
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			ended[h.UID] = true
			continue
		}
		if p.Spec.NodeName == "" {
			continue
		}
		for _, id := range unitsOfPod(p) {
			all.add(p.Spec.NodeName, id, h)
		}
	}
	for i := range usages {
		for _, use := range usages[i].Spec.Pods {
			if ended[use.UID] {
				continue
			}
			h, ok := byUID[use.UID]
			if !ok {
				h = Holder{UID: use.UID}
			}
			for _, ids := range use.Devices {
				for _, id := range ids {
					all.add(usages[i].Name, id, h)
				}
			}
		}
	}
	return all
}

// instanceOf is the name of the instance that a pod is of: its owner's, for a label
// does not hold a long one; the label's where a copy of the pod has no owners.
func instanceOf(p *corev1.Pod) string {
	for _, o := range p.OwnerReferences {
		if o.Kind == "VirtualMachineInstance" {
			return o.Name
		}
	}
	return p.Labels[launcherpod.LabelInstance]
}

func (h Holders) add(node, unit string, who Holder) {
	if h[node] == nil {
		h[node] = map[string]Holder{}
	}
	if _, ok := h[node][unit]; !ok {
		h[node][unit] = who
	}
}

// unitsOfPod are the units of all containers of a pod: what kubelet reported, else
// what the scheduler decided.
func unitsOfPod(p *corev1.Pod) []string {
	var ids []string
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		for _, s := range c.AllocatedResourcesStatus {
			for _, d := range s.Resources {
				ids = append(ids, string(d.ResourceID))
			}
		}
	}
	if len(ids) > 0 {
		return ids
	}
	a, err := v1alpha1.DecodeAssignment(p.Annotations[v1alpha1.AssignmentAnnotation])
	if err != nil || a.PodUID != string(p.UID) {
		return nil
	}
	for _, resources := range a.Containers {
		for _, units := range resources {
			for _, u := range units {
				ids = append(ids, u.String())
			}
		}
	}
	return ids
}
