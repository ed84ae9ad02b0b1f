package explain

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/hardware"
)

// Prepared faults of a node: the first line must name the cause.
func TestNodeCauses(t *testing.T) {
	const vf = "kubevfio.io/igb-vf"
	for name, c := range map[string]struct {
		breakIt func(*NodeInput)
		want    string
		ok      bool
	}{
		"in order":            {func(*NodeInput) {}, "node n is in order: 1 of 2 units are free", true},
		"absent":              {func(in *NodeInput) { in.Node, in.Inventory = nil, nil }, "there is no node n", false},
		"kubelet gone":        {func(in *NodeInput) { in.Node.Status.Conditions[0].Status = corev1.ConditionUnknown }, "node n is not ready: kubelet stopped posting", false},
		"no agent":            {func(in *NodeInput) { in.Inventory = nil }, "has no inventory", false},
		"agent not back":      {func(in *NodeInput) { in.Node.Status.NodeInfo.BootID = "2" }, "has rebooted and its agent is not back", false},
		"paused":              {func(in *NodeInput) { in.Node.Annotations = map[string]string{v1alpha1.PauseAnnotation: "true"} }, "is paused", false},
		"no pool":             {func(in *NodeInput) { in.Inventory.Spec.Units = nil }, "no DevicePool selects anything of node n", false},
		"no KVM":              {func(in *NodeInput) { in.Inventory.Spec.Launcher.KVM = false }, "no /dev/kvm", false},
		"no profile":          {func(in *NodeInput) { in.Inventory.Spec.Launcher.Seccomp = false }, "lacks the seccomp profile", false},
		"quarantined":         {func(in *NodeInput) { in.Inventory.Spec.Units[1].NotReady = "reset failed" }, "1 of 2 units of node n are not ready: 0000:82:10.2: reset failed", false},
		"plugin missing":      {func(in *NodeInput) { in.Node.Status.Allocatable = nil }, "offers 0 of 2 ready units of " + vf, false},
		"cordoned":            {func(in *NodeInput) { in.Node.Spec.Unschedulable = true }, "is cordoned", false},
		"node not to be seen": {func(in *NodeInput) { in.Node = nil }, "in order", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.node.Name, w.inv.Name = "n", "n"
			w.node.Status.Conditions[0].Message = "kubelet stopped posting"
			w.node.Status.NodeInfo.BootID, w.inv.Spec.BootID = "1", "1"
			w.node.Status.Allocatable[vf] = resource.MustParse("2")
			w.inv.Spec.Launcher = v1alpha1.LauncherSupport{KVM: true, Seccomp: true}
			in := NodeInput{Name: "n", Node: w.node, Inventory: w.inv, Held: hardware.Holders{"n": {"0000:82:10.0": {Namespace: "vms", Instance: "vm"}}}}
			c.breakIt(&in)
			r := ExplainNode(in)
			if !strings.Contains(r.Cause, c.want) || strings.Contains(r.Cause, "\n") || r.OK != c.ok || (r.Next == "") != c.ok {
				t.Errorf("%+v; want %q", r, c.want)
			}
		})
	}
}

func TestNodeReport(t *testing.T) {
	w := newWorld()
	w.inv.Spec.Units[1].NotReady = "reset failed"
	w.inv.Spec.Kubelet = v1alpha1.KubeletPolicy{TopologyManagerPolicy: "none"}
	in := NodeInput{Name: "node-a", Node: w.node, Inventory: w.inv, Held: hardware.NewHolders([]corev1.Pod{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "vms", Name: "p", UID: "u", Annotations: map[string]string{
			v1alpha1.AssignmentAnnotation: `{"version":"v1","podUID":"u","node":"node-a","containers":{"compute":{"r":["0000:82:10.0"]}}}`,
		}},
		Spec: corev1.PodSpec{NodeName: "node-a"},
	}}, nil)}
	r := ExplainNode(in)
	if d := cmp.Diff(map[string]NodeResource{"kubevfio.io/igb-vf": {Total: 2, Ready: 1, Held: 1}}, r.Resources); d != "" {
		t.Errorf("resources (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string][]string{"pod vms/p": {"0000:82:10.0"}}, r.Holders); d != "" {
		t.Errorf("holders (-want +got):\n%s", d)
	}
	if len(r.Remarks) != 3 {
		t.Errorf("remarks %q; want the two policies and that nothing is free", r.Remarks)
	}
}

// A unit that only NodeUsage knows as held is not free.
func TestHeldByUsage(t *testing.T) {
	w := newWorld()
	w.f.Usages = []v1alpha1.NodeUsage{{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: v1alpha1.NodeUsageSpec{
		Pods: []v1alpha1.PodUsage{{UID: "x", Devices: map[string][]string{"kubevfio.io/igb-vf": {"0000:82:10.0"}}}},
	}}}
	w.unschedulable("0/1 nodes")
	if r := Explain(w.f); !strings.Contains(r.Cause, "more than 1 free") {
		t.Errorf("cause %q", r.Cause)
	}
}
