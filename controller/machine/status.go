package machine

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// describe copies what the instance says into the machine's status. vmi is nil
// when there is none.
func describe(vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance, deleting bool) {
	s := &vm.Status
	s.Created, s.Ready, s.NodeName, s.Devices = vmi != nil, false, "", ""
	ready := metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: "NoInstance", Message: "",
		ObservedGeneration: vm.Generation,
	}
	if vmi != nil {
		s.NodeName = vmi.Status.NodeName
		if d := vmi.Status.DeviceSummary; d != nil {
			s.Devices = d.Devices
		}
		ready.Reason = "NotReported"
		if c := meta.FindStatusCondition(vmi.Status.Conditions, v1alpha1.ConditionReady); c != nil {
			ready.Status, ready.Reason, ready.Message = c.Status, c.Reason, c.Message
		}
		s.Ready = ready.Status == metav1.ConditionTrue
	}
	meta.SetStatusCondition(&s.Conditions, ready)
	s.PrintableStatus = printable(vm, vmi, deleting)
}

// printable is the one word of the STATUS column.
func printable(vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance, deleting bool) string {
	wanted := vm.Spec.RunStrategy == v1alpha1.RunAlways || vm.Spec.RunStrategy == v1alpha1.RunRerunOnFailure
	switch {
	case deleting:
		return v1alpha1.VMTerminating
	case vmi == nil:
		if f := vm.Status.StartFailure; f != nil && wanted {
			return failing(vm.Status.LastOutcome)
		}
		if wanted {
			return v1alpha1.VMStarting
		}
		return v1alpha1.VMStopped
	case !vmi.DeletionTimestamp.IsZero():
		return v1alpha1.VMStopping
	}
	switch vmi.Status.Phase {
	case v1alpha1.VMIRunning:
		if meta.IsStatusConditionTrue(vmi.Status.Conditions, v1alpha1.ConditionPaused) {
			return v1alpha1.VMPaused
		}
		if moving(vmi) {
			return v1alpha1.VMMigrating
		}
		return v1alpha1.VMRunning
	case v1alpha1.VMISucceeded:
		return v1alpha1.VMStopped
	case v1alpha1.VMIFailed:
		if wanted {
			return failing(vmi.Status.Outcome)
		}
		return v1alpha1.VMStopped
	}
	if moving(vmi) {
		return v1alpha1.VMMigrating
	}
	switch vmi.Status.Reason {
	case "Unschedulable":
		return v1alpha1.VMUnschedulable
	case v1alpha1.VMErrImagePull, v1alpha1.VMImagePullBackOff, v1alpha1.VMErrorPvcNotFound:
		return vmi.Status.Reason
	}
	return v1alpha1.VMStarting
}

// moving tells whether the guest is between two nodes.
func moving(vmi *v1alpha1.VirtualMachineInstance) bool {
	m := vmi.Status.Move
	return m != nil && (m.Step == v1alpha1.MoveStopping || m.Step == v1alpha1.MoveStarting)
}

// failing is the word for a machine that cannot be started.
func failing(o *v1alpha1.LauncherOutcome) string {
	if o != nil && o.ExitCode == v1alpha1.ExitBadSpec {
		return v1alpha1.VMInvalidSpec
	}
	return v1alpha1.VMCrashLoopBackOff
}
