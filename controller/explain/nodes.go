package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/hardware"
)

const notReadyText, cordonedText = "is not ready", "is cordoned"

// asked are the extended resources of all containers of a pod.
func asked(pod *corev1.Pod) map[string]int64 {
	sum := map[string]int64{}
	for _, c := range pod.Spec.Containers {
		for name, q := range c.Resources.Limits {
			if strings.Contains(string(name), "/") {
				sum[string(name)] += q.Value()
			}
		}
	}
	return sum
}

func given(pod *corev1.Pod) map[string][]string {
	list := map[string][]string{}
	for _, c := range pod.Status.ContainerStatuses {
		for _, s := range c.AllocatedResourcesStatus {
			for _, d := range s.Resources {
				list[string(s.Name)] = append(list[string(s.Name)], string(d.ResourceID))
			}
		}
	}
	for r := range list {
		slices.Sort(list[r])
	}
	return list
}

// nodes compares each node with what is asked for.
func nodes(f Facts, asked map[string]int64) []NodeFacts {
	held := hardware.NewHolders(f.Pods, f.Usages)
	var list []NodeFacts
	for _, name := range slices.Sorted(maps.Keys(f.Nodes)) {
		n := NodeFacts{Node: name, Units: map[string]Units{}}
		node, inv := f.Nodes[name], f.Inventories[name]
		if !nodeReady(node) {
			n.Lacks = append(n.Lacks, notReadyText)
		}
		if node.Spec.Unschedulable {
			n.Lacks = append(n.Lacks, cordonedText)
		}
		if inv == nil {
			n.Lacks = append(n.Lacks, "has no inventory: the agent does not run there")
			list = append(list, n)
			continue
		}
		n.Policy = inv.Spec.Kubelet.TopologyManagerPolicy
		for _, res := range slices.Sorted(maps.Keys(asked)) {
			want := int(asked[res])
			if strings.HasPrefix(res, v1alpha1.SlotPrefix) {
				if q := node.Status.Allocatable[corev1.ResourceName(res)]; int(q.Value()) < want {
					n.Lacks = append(n.Lacks, fmt.Sprintf("%s: %s allocatable", res, q.String()))
				}
				continue
			}
			u := count(inv, res, held[name])
			n.Units[res] = u
			if u.Free < want {
				n.Lacks = append(n.Lacks, fmt.Sprintf("%s: needs %d, %d free of %d", res, want, u.Free, u.Total))
			}
		}
		list = append(list, n)
	}
	return list
}

func count(inv *v1alpha1.NodeInventory, res string, held map[string]hardware.Holder) Units {
	u := Units{}
	for i := range inv.Spec.Units {
		unit := &inv.Spec.Units[i]
		if unit.Resource == nil || int(*unit.Resource) >= len(inv.Spec.Resources) || inv.Spec.Resources[*unit.Resource] != res {
			continue
		}
		u.Total++
		switch {
		case unit.NotReady != "":
			if u.NotReady == nil {
				u.NotReady = map[string]string{}
			}
			u.NotReady[unit.ID] = unit.NotReady
		case held[unit.ID] != (hardware.Holder{}):
			u.Ready++
		default:
			u.Ready++
			u.Free++
		}
	}
	return u
}
