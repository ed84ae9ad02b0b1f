package explain

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// unscheduled finds why a pod has no node.
func unscheduled(f Facts, r *Report) (why, next string, ok bool) {
	said := ""
	for _, c := range f.Pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			said = oneLine(c.Message)
		}
	}
	for _, res := range slices.Sorted(maps.Keys(r.Asked)) {
		if strings.HasPrefix(res, v1alpha1.SlotPrefix) {
			continue
		}
		if why, next := short(f, r, res); why != "" {
			return why, next, false
		}
	}
	switch {
	case said == "":
		return "the scheduler has not looked at the pod", fmt.Sprintf("is there a scheduler %q? kubectl -n %s get pods", f.Pod.Spec.SchedulerName, v1alpha1.SystemNamespace), false
	case strings.Contains(said, "(required: ") || strings.HasPrefix(r.Alignment, "required:") && strings.Contains(said, "align"):
		// The words of plugins/devicetopology.
		return fmt.Sprintf("no node can give the devices with alignment %s: %s", r.Alignment, said), "use preferred:…, or free devices that are near each other: kubectl vfio topology node NAME", false
	case strings.Contains(said, corev1.ResourceHugePagesPrefix):
		return "no node has the huge pages, on the NUMA nodes where they are needed: " + said, "reserve huge pages on the node (kernel command line, per NUMA node), or ask for less memory", false
	}
	for _, n := range r.Nodes {
		if len(n.Lacks) > 0 && (n.Lacks[0] == notReadyText || n.Lacks[0] == cordonedText) && len(r.Nodes) == 1 {
			return fmt.Sprintf("node %s, the only one, %s: %s", n.Node, n.Lacks[0], said), "kubectl describe node " + n.Node, false
		}
	}
	return "no node fits: " + said, "see what each node lacks below", false
}

// short says why there are too few units of a resource; empty when there are
// enough of them on a node that can take the pod.
func short(f Facts, r *Report, res string) (why, next string) {
	want := int(r.Asked[res])
	offered, ready, free, most, usable := 0, 0, 0, 0, 0
	var reasons, blocked []string
	for _, n := range r.Nodes {
		u := n.Units[res]
		offered, ready, free, most = offered+u.Total, ready+u.Ready, free+u.Free, max(most, u.Free)
		for _, address := range slices.Sorted(maps.Keys(u.NotReady)) {
			reasons = append(reasons, fmt.Sprintf("%s on %s: %s", address, n.Node, oneLine(u.NotReady[address])))
		}
		switch node := f.Nodes[n.Node]; {
		case u.Free < want:
		case node != nil && !nodeReady(node):
			blocked = append(blocked, "node "+n.Node+" "+notReadyText)
		case node != nil && node.Spec.Unschedulable:
			blocked = append(blocked, "node "+n.Node+" "+cordonedText)
		default:
			usable = max(usable, u.Free)
		}
	}
	switch {
	case offered == 0:
		return fmt.Sprintf("no node offers %s", res), "make a DevicePool for it, or correct the name: kubectl get devicepools"
	case ready == 0:
		return fmt.Sprintf("no unit of %s is ready: %s", res, strings.Join(reasons, "; ")), "kubectl describe devicepools"
	case most < want && len(reasons) > 0:
		return fmt.Sprintf("needs %d %s, no node has more than %d free; not ready: %s", want, res, most, strings.Join(reasons, "; ")), "repair these devices or ask for less"
	case most < want:
		return fmt.Sprintf("needs %d %s, no node has more than %d free (%d free of %d in the cluster)", want, res, most, free, offered),
			"ask for less, or free some: kubectl vfio devices"
	case usable < want:
		return fmt.Sprintf("needs %d %s, which are free, but %s", want, res, strings.Join(blocked, ", ")), "kubectl describe nodes; kubectl uncordon one that is cordoned"
	}
	return "", ""
}

// refusals is what kubelets said to earlier pods, the latest last.
func refusals(vmi *v1alpha1.VirtualMachineInstance) string {
	var said []string
	for _, r := range vmi.Status.Refusals {
		times := ""
		if r.Count > 1 {
			times = fmt.Sprintf(" %d times", r.Count)
		}
		said = append(said, fmt.Sprintf("kubelet of node %s refused the pod%s: %s: %s", r.Node, times, r.Reason, oneLine(r.Message)))
	}
	return strings.Join(said, "; ")
}

// moveOf is the move under way, nil when there is none.
func moveOf(vmi *v1alpha1.VirtualMachineInstance) *v1alpha1.MoveStatus {
	if vmi == nil || vmi.Status.Move == nil {
		return nil
	}
	switch m := vmi.Status.Move; m.Step {
	case v1alpha1.MovePreparing, v1alpha1.MoveStopping, v1alpha1.MoveStarting:
		return m
	}
	return nil
}

// imageOf is the image that a message of kubelet's is about: volumes are images,
// too, and then the container's own is not the one that is missing.
func imageOf(message, container string) string {
	if m := regexp.MustCompile(`(?i)\bimage "([^"]+)"`).FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return container
}

// oneLine keeps causes to one line whatever was quoted.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
