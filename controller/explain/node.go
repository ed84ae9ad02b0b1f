package explain

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/hardware"
)

// NodeInput are the objects around one node; Node and Inventory may be absent.
type NodeInput struct {
	Name      string
	Node      *corev1.Node
	Inventory *v1alpha1.NodeInventory
	Held      hardware.Holders
}

// NodeReport is what is wrong with a node for guests, or that nothing is.
type NodeReport struct {
	OK bool `json:"ok"`
	// Cause in one line, Next what to do; empty when there is nothing.
	Cause string `json:"cause"`
	Next  string `json:"next,omitempty"`
	// Remarks are worth knowing and no fault.
	Remarks []string `json:"remarks,omitempty"`
	// Resources of the node by name.
	Resources map[string]NodeResource `json:"resources,omitempty"`
	// Problems are the reasons of units that are not ready, by address.
	Problems map[string]string `json:"problems,omitempty"`
	// Holders have units of the node: holder -> addresses.
	Holders map[string][]string `json:"holders,omitempty"`
	// Kubelet and Launcher are the inventory's.
	Kubelet  *v1alpha1.KubeletPolicy   `json:"kubelet,omitempty"`
	Launcher *v1alpha1.LauncherSupport `json:"launcher,omitempty"`
}

// NodeResource counts the units of one resource.
type NodeResource struct {
	Total int `json:"total"`
	Ready int `json:"ready"`
	Held  int `json:"held"`
	Free  int `json:"free"`
	// Allocatable is what kubelet offers; -1 when the node is not known.
	Allocatable int64 `json:"allocatable"`
}

// ExplainNode looks at a node. The first thing on the way of a guest that is wrong is
// the cause.
func ExplainNode(in NodeInput) NodeReport {
	r := NodeReport{}
	if in.Inventory != nil {
		r.units(in)
		r.Kubelet, r.Launcher = &in.Inventory.Spec.Kubelet, &in.Inventory.Spec.Launcher
		r.remarks()
	}
	r.Cause, r.Next, r.OK = r.cause(in)
	return r
}

func (r *NodeReport) units(in NodeInput) {
	r.Resources, r.Problems, r.Holders = map[string]NodeResource{}, map[string]string{}, map[string][]string{}
	for _, u := range hardware.Units(in.Inventory, in.Held) {
		if u.Problem != "" {
			r.Problems[u.Address] = u.Problem
		}
		if u.Holder != nil {
			r.Holders[u.Holder.String()] = append(r.Holders[u.Holder.String()], u.Address)
		}
		if u.Resource == "" {
			continue
		}
		c := r.Resources[u.Resource]
		c.Total++
		if u.Healthy {
			c.Ready++
		}
		switch u.State {
		case hardware.Held:
			c.Held++
		case hardware.Free:
			c.Free++
		}
		c.Allocatable = -1
		if in.Node != nil {
			q := in.Node.Status.Allocatable[corev1.ResourceName(u.Resource)]
			c.Allocatable = q.Value()
		}
		r.Resources[u.Resource] = c
	}
}

func (r *NodeReport) remarks() {
	switch r.Kubelet.TopologyManagerPolicy {
	case "", "none":
		r.Remarks = append(r.Remarks, "kubelet's topology policy is none: devices are aligned with each other, not with CPUs and memory")
	}
	if r.Kubelet.CPUManagerPolicy != "static" {
		r.Remarks = append(r.Remarks, "kubelet's CPU manager is not static: guests with dedicatedCpuPlacement do not run here")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Resources)) {
		if c := r.Resources[name]; c.Ready > 0 && c.Free == 0 {
			r.Remarks = append(r.Remarks, fmt.Sprintf("all %d ready units of %s are held", c.Ready, name))
		}
	}
}

func (r *NodeReport) cause(in NodeInput) (why, next string, ok bool) {
	agent := fmt.Sprintf("kubectl -n %s get pods -o wide --field-selector spec.nodeName=%s", v1alpha1.SystemNamespace, in.Name)
	inv := in.Inventory
	switch n := in.Node; {
	case n == nil && inv == nil:
		return fmt.Sprintf("there is no node %s", in.Name), "kubectl get nodes", false
	case n != nil && !nodeReady(n):
		return fmt.Sprintf("node %s is not ready: %s", in.Name, readyMessage(n)), "kubectl describe node " + in.Name, false
	case inv == nil:
		return fmt.Sprintf("node %s has no inventory: the agent does not run there", in.Name), agent, false
	case n != nil && inv.Spec.BootID != "" && n.Status.NodeInfo.BootID != "" && inv.Spec.BootID != n.Status.NodeInfo.BootID:
		return fmt.Sprintf("node %s has rebooted and its agent is not back: the inventory is that of before", in.Name), agent, false
	case n != nil && n.Annotations[v1alpha1.PauseAnnotation] == "true":
		return fmt.Sprintf("the agent of node %s is paused (annotation %s)", in.Name, v1alpha1.PauseAnnotation),
			fmt.Sprintf("kubectl annotate node %s %s-", in.Name, v1alpha1.PauseAnnotation), false
	case len(inv.Spec.Units) == 0:
		return fmt.Sprintf("no DevicePool selects anything of node %s", in.Name), "kubectl describe devicepools", false
	case !inv.Spec.Launcher.KVM:
		return fmt.Sprintf("node %s has no /dev/kvm", in.Name), "switch virtualisation on in the firmware; load kvm_intel or kvm_amd", false
	case !inv.Spec.Launcher.Seccomp:
		return fmt.Sprintf("node %s lacks the seccomp profile %s", in.Name, v1alpha1.SeccompProfile), "the agent installs it: " + agent, false
	}
	if n := len(r.Problems); n > 0 {
		first := slices.Sorted(maps.Keys(r.Problems))[0]
		why := r.Problems[first]
		if !strings.HasPrefix(why, first) {
			why = first + ": " + why
		}
		return fmt.Sprintf("%d of %d units of node %s are not ready: %s", n, len(inv.Spec.Units), in.Name, why),
			"see the reasons below; kubectl describe devicepools", false
	}
	for _, name := range slices.Sorted(maps.Keys(r.Resources)) {
		if c := r.Resources[name]; c.Allocatable >= 0 && c.Allocatable < int64(c.Ready) {
			return fmt.Sprintf("kubelet of node %s offers %d of %d ready units of %s: its device plugin is not registered", in.Name, c.Allocatable, c.Ready, name),
				"the agent registers it within seconds: " + agent, false
		}
	}
	if in.Node != nil && in.Node.Spec.Unschedulable {
		return fmt.Sprintf("node %s is cordoned: it gets no new guests", in.Name), "kubectl uncordon " + in.Name, false
	}
	free := 0
	for _, c := range r.Resources {
		free += c.Free
	}
	return fmt.Sprintf("node %s is in order: %d of %d units are free", in.Name, free, len(inv.Spec.Units)), "", true
}

func readyMessage(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return cmp.Or(c.Message, c.Reason, string(c.Status))
		}
	}
	return "kubelet has never reported"
}
