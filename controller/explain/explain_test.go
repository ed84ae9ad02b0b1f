package explain

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// world is a cluster of one node with two virtual functions and a pod that wants
// them.
type world struct {
	f    Facts
	pod  *corev1.Pod
	node *corev1.Node
	inv  *v1alpha1.NodeInventory
}

func newWorld() *world {
	w := &world{
		pod:  &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "vm", Namespace: "vms", UID: "u1", Annotations: map[string]string{}}},
		node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}},
		inv:  &v1alpha1.NodeInventory{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}},
	}
	w.node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	w.node.Status.Allocatable = corev1.ResourceList{v1alpha1.ResourceKVM: resource.MustParse("10")}
	zero := int32(0)
	w.inv.Spec.Resources = []string{"kubevfio.io/igb-vf"}
	w.inv.Spec.Units = []v1alpha1.InventoryUnit{{ID: "0000:82:10.0", Resource: &zero}, {ID: "0000:82:10.2", Resource: &zero}}
	w.pod.Spec.SchedulerName = v1alpha1.SchedulerName
	w.pod.Spec.Containers = []corev1.Container{{Name: launcherpod.Container, Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{
		"kubevfio.io/igb-vf": resource.MustParse("2"), v1alpha1.ResourceKVM: resource.MustParse("1"),
	}}, ReadinessProbe: &corev1.Probe{}}}
	w.pod.Status.Phase = corev1.PodPending
	w.pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: launcherpod.Container}}
	w.f = Facts{
		Pod: w.pod, Nodes: map[string]*corev1.Node{"node-a": w.node},
		Inventories: map[string]*v1alpha1.NodeInventory{"node-a": w.inv},
	}
	return w
}

func (w *world) unschedulable(message string) {
	w.pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: message}}
}

func (w *world) bound() {
	w.pod.Spec.NodeName = "node-a"
	w.pod.Annotations[v1alpha1.AssignmentAnnotation] =
		`{"version":"v1","podUID":"u1","node":"node-a","containers":{"compute":{"kubevfio.io/igb-vf":["0000:82:10.0","0000:82:10.2"]}}}`
}

func (w *world) ended(code int32, reason, message string) {
	w.bound()
	w.pod.Status.Phase = corev1.PodFailed
	w.pod.Status.ContainerStatuses[0].State.Terminated = &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message}
}

// Prepared failures: the first line must name the cause.
func TestCauses(t *testing.T) {
	cases := map[string]struct {
		breakIt func(*world)
		cause   []string
		ok      bool
	}{
		"no VFs offered": {func(w *world) {
			w.inv.Spec.Units = nil
			w.unschedulable("0/1 nodes")
		}, []string{"no node offers kubevfio.io/igb-vf"}, false},
		"all VFs held": {func(w *world) {
			other := w.pod.DeepCopy()
			other.Name, other.UID, other.Spec.NodeName, other.Status.Phase = "other", "u2", "node-a", corev1.PodRunning
			other.Annotations[v1alpha1.AssignmentAnnotation] =
				`{"version":"v1","podUID":"u2","node":"node-a","containers":{"compute":{"kubevfio.io/igb-vf":["0000:82:10.0"]}}}`
			w.f.Pods = []corev1.Pod{*other}
			w.unschedulable("0/1 nodes")
		}, []string{"needs 2 kubevfio.io/igb-vf", "more than 1 free"}, false},
		"wrong alignment": {func(w *world) {
			w.pod.Annotations[v1alpha1.AlignmentAnnotation] = "required:switch"
			w.unschedulable("0/1 nodes are available: 1 needs 2 kubevfio.io/igb-vf, the node has 2 kubevfio.io/igb-vf free but not behind one PCIe switch (required: switch).")
		}, []string{"alignment required:switch", "not behind one PCIe switch"}, false},
		"group not viable": {func(w *world) {
			w.ended(65, "Error", `{"exitCode":65,"reason":"DeviceNotViable","message":"group 12 is not viable: 0000:82:10.4 is bound to igbvf","address":"0000:82:10.0"}`)
		}, []string{"cannot be passed through", "0000:82:10.0", "0000:82:10.4"}, false},
		"no huge pages on the NUMA node": {func(w *world) {
			w.ended(67, "Error", `{"exitCode":67,"reason":"HostCannotHold","message":"NUMA node 1 has 0 free pages of 1Gi, the guest needs 4"}`)
		}, []string{"node cannot hold the guest", "NUMA node 1"}, false},
		"no huge pages by the scheduler": {func(w *world) {
			w.unschedulable("0/1 nodes are available: 1 needs 2 kubevfio.io/igb-vf, the node has them free but its kubelet would refuse: no NUMA nodes have 4096 MiB of hugepages-1Gi free together.")
		}, []string{"huge pages", "NUMA", "4096 MiB of hugepages-1Gi"}, false},
		"node not ready before": {func(w *world) {
			w.node.Status.Conditions[0].Status = corev1.ConditionFalse
			w.unschedulable("0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.")
		}, []string{"node node-a is not ready"}, false},
		"node cordoned": {func(w *world) {
			w.node.Spec.Unschedulable = true
			w.unschedulable("0/1 nodes are available: 1 node(s) were unschedulable.")
		}, []string{"node node-a is cordoned"}, false},
		"refused, and no other node": {func(w *world) {
			w.refused()
			w.unschedulable("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
		}, []string{"kubelet of node node-a refused the pod 2 times", "TopologyAffinityError", "elsewhere: no node fits"}, false},
		"refused, the next pod is not there": {func(w *world) {
			w.refused()
			w.f.Pod = nil
		}, []string{"kubelet of node node-a refused the pod 2 times"}, false},
		"being moved": {func(w *world) {
			w.bound()
			w.pod.Status.Phase = corev1.PodRunning
			w.pod.Status.ContainerStatuses[0].State.Running = &corev1.ContainerStateRunning{}
			w.f.VMI = &v1alpha1.VirtualMachineInstance{}
			w.f.VMI.Status.Move = &v1alpha1.MoveStatus{Step: v1alpha1.MovePreparing, From: "node-a", Message: "no node fits yet"}
		}, []string{"moved away from node node-a", "no node fits yet"}, false},
		"guest image missing": {func(w *world) {
			w.bound()
			w.pod.Status.ContainerStatuses[0].Image = "example.com/launcher:1"
			w.waiting("ImagePullBackOff", "Back-off pulling image \"example.com/guest:9\": ErrImagePull: not found")
		}, []string{"image example.com/guest:9 cannot be had"}, false},
		"evicted": {func(w *world) {
			w.f.Pod = nil
			w.f.VMI = &v1alpha1.VirtualMachineInstance{}
			w.f.VMI.Status.Outcome = &v1alpha1.LauncherOutcome{Reason: "Evicted", Message: "the pod was taken from node node-a"}
		}, []string{"was evicted", "node-a"}, false},
		"kubelet refused": {func(w *world) {
			w.bound()
			w.pod.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "TopologyAffinityError", Message: "Resources cannot be allocated with Topology locality"}
		}, []string{"kubelet of node node-a refused", "TopologyAffinityError"}, false},
		"spec error": {func(w *world) {
			w.ended(64, "Error", `{"exitCode":64,"reason":"BadSpec","message":"unknown field","field":"spec.domain.cpu.coers"}`)
		}, []string{"spec is wrong", "spec.domain.cpu.coers"}, false},
		"lock limit": {func(w *world) {
			w.ended(66, "Error", `{"exitCode":66,"reason":"MemoryLock","message":"8 MiB may be locked, 1.5 GiB are needed"}`)
		}, []string{"memory cannot be locked", "8 MiB"}, false},
		"out of memory": {func(w *world) { w.ended(137, "OOMKilled", "") }, []string{"more memory than its limit"}, false},
		"image missing": {func(w *world) {
			w.bound()
			w.pod.Status.ContainerStatuses[0].Image = "example.com/launcher:1"
			w.pod.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "not found"}
		}, []string{"image example.com/launcher:1 cannot be had", "node-a"}, false},
		"node not ready": {func(w *world) {
			w.bound()
			w.node.Status.Conditions[0].Status = corev1.ConditionUnknown
		}, []string{"node node-a is not ready"}, false},
		"quarantined device": {func(w *world) {
			w.bound()
			w.pod.Status.Phase = corev1.PodRunning
			w.pod.Status.ContainerStatuses[0].State.Running = &corev1.ContainerStateRunning{}
			w.inv.Spec.Units[1].NotReady = "config space reads all ones"
		}, []string{"0000:82:10.2", "quarantined", "config space reads all ones"}, false},
		"quarantined before": {func(w *world) {
			w.inv.Spec.Units[0].NotReady = "reset failed"
			w.unschedulable("0/1 nodes")
		}, []string{"no node has more than 1 free", "0000:82:10.0 on node-a: reset failed"}, false},
		"no scheduler":    {func(*world) {}, []string{"scheduler has not looked"}, false},
		"seccomp missing": {func(w *world) { w.bound(); w.waiting("CreateContainerError", "cannot load seccomp profile") }, []string{"container cannot be made", "seccomp"}, false},
		"other devices given": {func(w *world) {
			w.bound()
			w.pod.Status.ContainerStatuses[0].AllocatedResourcesStatus = []corev1.ResourceStatus{{
				Name: "kubevfio.io/igb-vf", Resources: []corev1.ResourceHealth{{ResourceID: "0000:82:10.4"}, {ResourceID: "0000:82:10.6"}},
			}}
		}, []string{"other devices than the scheduler chose", "0000:82:10.4"}, false},
		"runs": {func(w *world) {
			w.bound()
			w.pod.Status.Phase = corev1.PodRunning
			w.pod.Status.ContainerStatuses[0].Ready = true
			w.pod.Status.ContainerStatuses[0].State.Running = &corev1.ContainerStateRunning{}
		}, []string{"the guest runs on node node-a"}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			tc.breakIt(w)
			r := Explain(w.f)
			for _, part := range tc.cause {
				if !strings.Contains(r.Cause, part) {
					t.Errorf("cause %q; want it to contain %q", r.Cause, part)
				}
			}
			if r.OK != tc.ok || (!tc.ok && r.Next == "") {
				t.Errorf("ok %v, next %q", r.OK, r.Next)
			}
			if strings.Contains(r.Cause, "\n") {
				t.Errorf("the cause has more than one line: %q", r.Cause)
			}
		})
	}
}

func (w *world) refused() {
	w.f.VMI = &v1alpha1.VirtualMachineInstance{}
	w.f.VMI.Status.Refusals = []v1alpha1.NodeRefusal{{
		Node: "node-a", Reason: "TopologyAffinityError", Message: "Resources cannot be allocated with Topology locality", Count: 2,
	}}
}

func (w *world) waiting(reason, message string) {
	w.pod.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
}

func TestMachineWithoutInstance(t *testing.T) {
	for name, tc := range map[string]struct {
		vm    v1alpha1.VirtualMachine
		cause string
	}{
		"halted": {v1alpha1.VirtualMachine{Spec: v1alpha1.VirtualMachineSpec{RunStrategy: v1alpha1.RunHalted}}, "switched off"},
		"manual": {v1alpha1.VirtualMachine{Spec: v1alpha1.VirtualMachineSpec{RunStrategy: v1alpha1.RunManual}}, "not started"},
		"fails": {v1alpha1.VirtualMachine{
			Spec: v1alpha1.VirtualMachineSpec{RunStrategy: v1alpha1.RunAlways},
			Status: v1alpha1.VirtualMachineStatus{
				StartFailure: &v1alpha1.StartFailure{Count: 3},
				LastOutcome:  &v1alpha1.LauncherOutcome{ExitCode: 68, Reason: "GuestPanicked", Message: "no root file system"},
			},
		}, "no root file system (3 failures in a row)"},
	} {
		t.Run(name, func(t *testing.T) {
			if r := Explain(Facts{VM: &tc.vm}); !strings.Contains(r.Cause, tc.cause) {
				t.Errorf("cause %q; want it to contain %q", r.Cause, tc.cause)
			}
		})
	}
}
