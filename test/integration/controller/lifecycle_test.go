package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// One machine from its creation over its guest's run to its deletion.
func TestLife(t *testing.T) {
	ns := newNamespace(t)
	inv := inventory(t)
	newMachine(t, ns, "web", v1alpha1.RunAlways)
	vmi := waitInstance(t, ns, "web", "waits for a node", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.Status.Phase == v1alpha1.VMIScheduling
	})
	waitMachine(t, ns, "web", "is starting", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.PrintableStatus == v1alpha1.VMStarting && vm.Status.Created && !vm.Status.Ready
	})
	pod := podOf(t, vmi)
	if pod.Spec.SchedulerName != v1alpha1.SchedulerName || pod.Annotations[v1alpha1.AlignmentAnnotation] != "preferred:numa" {
		t.Errorf("scheduler %q, alignment %q", pod.Spec.SchedulerName, pod.Annotations[v1alpha1.AlignmentAnnotation])
	}

	report(t, pod, func(s *corev1.PodStatus) {
		s.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes"}}
	})
	waitMachine(t, ns, "web", "says that no node fits", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.PrintableStatus == v1alpha1.VMUnschedulable
	})

	bind(t, pod)
	waitInstance(t, ns, "web", "is on a node", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.Status.Phase == v1alpha1.VMIScheduled && v.Status.NodeName == node
	})
	report(t, pod, running(false, assigned))
	report(t, pod, running(true, assigned))
	vmi = waitInstance(t, ns, "web", "runs", func(v *v1alpha1.VirtualMachineInstance) bool {
		return conditionIs(v.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue)
	})
	one, zero := int32(1), int32(0)
	want := []v1alpha1.DeviceStatus{
		{Name: "gpu0", Resource: "kubevfio.io/gpu", Address: "0000:41:00.0", Members: []string{"0000:41:00.1"}, Product: "Test GPU", NUMANode: &zero, Root: "pci0000:40", Node: node},
		{Name: "vf0", Resource: "kubevfio.io/igb-vf", Address: "0000:82:10.2", Product: "8086:10ca", NUMANode: &one, Root: "pci0000:80", Node: node},
		{Name: "vf1", Resource: "kubevfio.io/igb-vf", Address: "0000:82:10.0", Product: "8086:10ca", NUMANode: &one, Root: "pci0000:80", Node: node},
	}
	if diff := cmp.Diff(want, vmi.Status.Devices, cmpopts.IgnoreFields(v1alpha1.DeviceStatus{}, "Since")); diff != "" {
		t.Errorf("status.devices (-want +got):\n%s", diff)
	}
	wantSummary := &v1alpha1.DeviceSummary{Devices: "3/3", Addresses: "0000:41:00.0,0000:82:10.2,0000:82:10.0", Alignment: "numa"}
	if diff := cmp.Diff(wantSummary, vmi.Status.DeviceSummary); diff != "" {
		t.Errorf("status.deviceSummary (-want +got):\n%s", diff)
	}
	for _, kind := range []string{v1alpha1.ConditionDevicesReady, v1alpha1.ConditionAligned, v1alpha1.ConditionPodCreated} {
		if !conditionIs(vmi.Status.Conditions, kind, metav1.ConditionTrue) {
			t.Errorf("condition %s is not True: %s", kind, text(vmi.Status.Conditions))
		}
	}
	if len(vmi.Status.Interfaces) != 1 || vmi.Status.Interfaces[0].IPAddress != "10.0.0.7" {
		t.Errorf("interfaces: %s", text(vmi.Status.Interfaces))
	}
	waitMachine(t, ns, "web", "runs", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.PrintableStatus == v1alpha1.VMRunning && vm.Status.Ready && vm.Status.Devices == "3/3" && vm.Status.NodeName == node
	})

	// A device goes bad under the guest: the inventory says so, then the instance.
	inv.Spec.Units[0].NotReady = "config space reads all ones"
	if err := server.Admin.Update(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	waitInstance(t, ns, "web", "names the bad device", func(v *v1alpha1.VirtualMachineInstance) bool {
		return conditionIs(v.Status.Conditions, v1alpha1.ConditionDevicesReady, metav1.ConditionFalse) &&
			v.Status.Devices[0].Problem == "config space reads all ones"
	})

	vm := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}}
	if err := server.Admin.Delete(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	waitMachine(t, ns, "web", "is terminating", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.PrintableStatus == v1alpha1.VMTerminating
	})
	// Neither object goes while the pod is there.
	vmi = waitInstance(t, ns, "web", "waits for its pod", func(v *v1alpha1.VirtualMachineInstance) bool { return !v.DeletionTimestamp.IsZero() })
	pod = podOf(t, vmi)
	if got := *pod.DeletionGracePeriodSeconds; got != 35 {
		t.Errorf("grace period of the pod's deletion: %d s, want the guest's 20 s and 15 s for the launcher", got)
	}
	kubeletDeletes(t, pod)
	waitGone(t, vmi)
	waitGone(t, vm)
}

// inventory publishes what the agent of the node would.
func inventory(t *testing.T) *v1alpha1.NodeInventory {
	t.Helper()
	zero, one := int32(0), int32(1)
	inv := &v1alpha1.NodeInventory{ObjectMeta: metav1.ObjectMeta{Name: node}}
	inv.Spec.Attachments = []v1alpha1.Attachment{{Name: "pci0000:40"}, {Name: "pci0000:80"}, {Name: "0000:81:00.0", Parent: &one}}
	inv.Spec.Kinds = []v1alpha1.DeviceKind{{Vendor: "1234", Device: "1111", Class: "030000", Product: "Test GPU"}, {Vendor: "8086", Device: "10ca", Class: "020000"}}
	inv.Spec.Units = []v1alpha1.InventoryUnit{
		{ID: "0000:41:00.0", Members: []string{"0000:41:00.1"}, Kind: 0, At: 0, NUMA: &zero},
		{ID: "0000:82:10.0", Kind: 1, At: 2, NUMA: &one},
		{ID: "0000:82:10.2", Kind: 1, At: 2, NUMA: &one},
	}
	if err := server.Admin.Create(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Admin.Delete(t.Context(), inv); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return inv
}

// How the launcher ended is told in its own words; an out-of-memory kill is named.
func TestOutcomes(t *testing.T) {
	said := text(launcherrpcv1.Outcome{ExitCode: 65, Reason: launcherrpcv1.ReasonDeviceNotViable, Message: "group 12 is not viable", Address: "0000:41:00.0"})
	cases := map[string]struct {
		pod      func(*corev1.PodStatus)
		phase    v1alpha1.VirtualMachineInstancePhase
		code     int32
		reason   string
		contains string
	}{
		"device": {terminated(65, "Error", said), v1alpha1.VMIFailed, 65, launcherrpcv1.ReasonDeviceNotViable, "group 12"},
		"oom":    {terminated(137, "OOMKilled", ""), v1alpha1.VMIFailed, 137, "OOMKilled", "limits.memory"},
		"clean":  {terminated(0, "Completed", text(launcherrpcv1.Outcome{Reason: launcherrpcv1.ReasonGuestShutdown, Message: "bye"})), v1alpha1.VMISucceeded, 0, launcherrpcv1.ReasonGuestShutdown, "bye"},
		"silent": {terminated(1, "Error", "not JSON"), v1alpha1.VMIFailed, 1, "Error", "not JSON"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			newMachine(t, ns, "vm", v1alpha1.RunOnce)
			_, pod := start(t, ns, "vm")
			report(t, pod, tc.pod)
			vmi := waitInstance(t, ns, "vm", "ended", func(v *v1alpha1.VirtualMachineInstance) bool { return v.Status.Phase == tc.phase })
			o := vmi.Status.Outcome
			if o == nil || o.ExitCode != tc.code || o.Reason != tc.reason || !contains(o.Message, tc.contains) {
				t.Errorf("outcome %s", text(o))
			}
			// Once: nothing follows, and the instance stays to be read.
			vm := waitMachine(t, ns, "vm", "is stopped", func(vm *v1alpha1.VirtualMachine) bool {
				return vm.Status.PrintableStatus == v1alpha1.VMStopped && vm.Status.LastOutcome != nil
			})
			if vm.Status.InstanceUID != vmi.UID {
				t.Errorf("instance %s follows %s", vm.Status.InstanceUID, vmi.UID)
			}
		})
	}
}

// A spec that the launcher would refuse never gets in.
func TestInvalidSpec(t *testing.T) {
	ns := newNamespace(t)
	vmi := &v1alpha1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "bad"}}
	vmi.Spec.Domain.CPU = &v1alpha1.CPU{Cores: 1}
	err := server.Admin.Create(t.Context(), vmi)
	if !apierrors.IsInvalid(err) || !contains(err.Error(), "spec.domain.memory.guest", "say how much memory") {
		t.Errorf("error = %v; want a refusal that names spec.domain.memory.guest", err)
	}
}

// Kubelet refuses a pod: another one follows that avoids the node.
func TestRefusedByKubelet(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	vmi := waitInstance(t, ns, "vm", "has a pod", func(v *v1alpha1.VirtualMachineInstance) bool { return v.Status.PodName != "" })
	first := podOf(t, vmi)
	bind(t, first)
	report(t, first, func(s *corev1.PodStatus) {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, "TopologyAffinityError", "Resources cannot be allocated with Topology locality"
	})
	vmi = waitInstance(t, ns, "vm", "has another pod", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.Status.PodName != "" && v.Status.PodName != first.Name
	})
	if len(vmi.Status.Refusals) != 1 || vmi.Status.Refusals[0].Node != node || vmi.Status.Refusals[0].Reason != "TopologyAffinityError" {
		t.Errorf("refusals: %s", text(vmi.Status.Refusals))
	}
	second := podOf(t, vmi)
	if a := text(second.Spec.Affinity); !contains(a, "metadata.name", "NotIn", node) {
		t.Errorf("the second pod does not avoid the node: %s", a)
	}
	kubeletDeletes(t, first)
	bind(t, second)
	report(t, second, running(true, assigned))
	vmi = waitInstance(t, ns, "vm", "runs", func(v *v1alpha1.VirtualMachineInstance) bool { return v.Status.Phase == v1alpha1.VMIRunning })
	if vmi.Status.Attempt != 2 {
		t.Errorf("attempt %d", vmi.Status.Attempt)
	}
}

// Kubelet gave other devices than chosen: the instance says so.
func TestAssignmentDiffers(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	vmi := waitInstance(t, ns, "vm", "has a pod", func(v *v1alpha1.VirtualMachineInstance) bool { return v.Status.PodName != "" })
	pod := podOf(t, vmi)
	bind(t, pod)
	report(t, pod, running(true, map[string][]string{
		"kubevfio.io/gpu": assigned["kubevfio.io/gpu"], "kubevfio.io/igb-vf": {"0000:82:10.4", "0000:82:10.0"},
	}))
	waitInstance(t, ns, "vm", "reports the difference", func(v *v1alpha1.VirtualMachineInstance) bool {
		for _, c := range v.Status.Conditions {
			if c.Type == v1alpha1.ConditionDevicesReady && c.Reason == "AssignmentDiffers" && contains(c.Message, "0000:82:10.2", "0000:82:10.4") {
				return true
			}
		}
		return false
	})
}

// Somebody deletes the pod under a running guest: the machine starts another.
func TestPodDeletedUnderGuest(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	vmi, pod := start(t, ns, "vm")
	if err := server.Admin.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	vm := waitMachine(t, ns, "vm", "counts a failure", func(vm *v1alpha1.VirtualMachine) bool { return vm.Status.StartFailure != nil })
	if vm.Status.LastOutcome == nil || vm.Status.LastOutcome.Reason != "PodDeleted" {
		t.Errorf("last outcome %s", text(vm.Status.LastOutcome))
	}
	waitGone(t, vmi)
	next := waitInstance(t, ns, "vm", "is a new one", func(v *v1alpha1.VirtualMachineInstance) bool { return v.UID != vmi.UID && v.Status.PodName != "" })
	if next.Status.PodName == pod.Name {
		t.Error("the new instance has the old pod's name")
	}
}
