package power

import (
	"errors"
	"fmt"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// ErrConflict is the class of wishes that make no sense in the machine's state.
var ErrConflict = errors.New("not possible now")

// Change is what a wish changes.
type Change struct {
	// RunStrategy is the new run strategy; empty when it stays.
	RunStrategy v1alpha1.RunStrategy
	// Requests replace status.stateChangeRequests; nil when they stay.
	Requests []v1alpha1.StateChangeRequest
	// Said tells people what happens now.
	Said string
}

// Start decides about starting. vmi is the machine's instance, nil when there is
// none. Errors are of class [ErrConflict].
func Start(vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance) (Change, error) {
	if vm.Spec.RunStrategy == v1alpha1.RunHalted {
		return Change{RunStrategy: v1alpha1.RunAlways, Said: "starting (runStrategy is now Always)"}, nil
	}
	if alive(vmi) && len(vm.Status.StateChangeRequests) == 0 {
		return Change{}, fmt.Errorf("%w: %s is running or on its way already", ErrConflict, vm.Name)
	}
	// Also for Always: asked for by a person, the pause after failures is skipped.
	return Change{Requests: []v1alpha1.StateChangeRequest{{Action: v1alpha1.ActionStart}}, Said: "starting"}, nil
}

// Stop decides about stopping; grace, in seconds, replaces the template's period
// when it is not nil, also that of a guest that is shutting down already. Errors
// are of class [ErrConflict].
func Stop(vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance, grace *int64) (Change, error) {
	c := Change{Said: "shutting down"}
	if grace != nil && *grace == 0 {
		c.Said = "switching off"
	}
	switch vm.Spec.RunStrategy {
	case v1alpha1.RunAlways, v1alpha1.RunRerunOnFailure:
		c.RunStrategy = v1alpha1.RunHalted
		c.Said += " (runStrategy is now Halted)"
		if vmi == nil {
			// Between two starts; nothing is running.
			c.Requests = []v1alpha1.StateChangeRequest{}
			return c, nil
		}
		if grace == nil {
			c.Requests = []v1alpha1.StateChangeRequest{}
			return c, nil
		}
	case v1alpha1.RunHalted, v1alpha1.RunManual, v1alpha1.RunOnce:
		switch {
		case vmi == nil && len(vm.Status.StateChangeRequests) > 0:
			// A start that was asked for and not carried out yet.
			c.Requests = []v1alpha1.StateChangeRequest{}
			return c, nil
		case vmi == nil:
			return Change{}, fmt.Errorf("%w: %s is stopped already", ErrConflict, vm.Name)
		case !vmi.DeletionTimestamp.IsZero() && grace == nil && len(vm.Status.StateChangeRequests) == 0:
			return Change{}, fmt.Errorf("%w: %s is shutting down already: give a shorter grace period, or force it", ErrConflict, vm.Name)
		}
	}
	c.Requests = []v1alpha1.StateChangeRequest{{Action: v1alpha1.ActionStop, UID: vmi.UID, GracePeriodSeconds: grace}}
	return c, nil
}

// Restart decides about stopping and starting again. Errors are of class
// [ErrConflict].
func Restart(vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance, grace *int64) (Change, error) {
	switch {
	case vm.Spec.RunStrategy == v1alpha1.RunHalted:
		return Change{}, fmt.Errorf("%w: %s is switched off (runStrategy Halted): start it", ErrConflict, vm.Name)
	case vmi == nil:
		return Change{}, fmt.Errorf("%w: %s does not run: start it", ErrConflict, vm.Name)
	}
	return Change{
		Requests: []v1alpha1.StateChangeRequest{
			{Action: v1alpha1.ActionStop, UID: vmi.UID, GracePeriodSeconds: grace},
			{Action: v1alpha1.ActionStart},
		},
		Said: "restarting",
	}, nil
}

// alive tells whether there is an instance that has not ended and is not ending.
func alive(vmi *v1alpha1.VirtualMachineInstance) bool {
	return vmi != nil && vmi.DeletionTimestamp.IsZero() &&
		vmi.Status.Phase != v1alpha1.VMISucceeded && vmi.Status.Phase != v1alpha1.VMIFailed
}
