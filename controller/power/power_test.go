package power

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

func machine(strategy v1alpha1.RunStrategy, pending ...v1alpha1.StateChangeRequest) *v1alpha1.VirtualMachine {
	vm := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Name: "vm"}}
	vm.Spec.RunStrategy, vm.Status.StateChangeRequests = strategy, pending
	return vm
}

func instance(change func(*v1alpha1.VirtualMachineInstance)) *v1alpha1.VirtualMachineInstance {
	vmi := &v1alpha1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Name: "vm", UID: "u1"}}
	vmi.Status.Phase = v1alpha1.VMIRunning
	if change != nil {
		change(vmi)
	}
	return vmi
}

func TestDecisions(t *testing.T) {
	var (
		none    *v1alpha1.VirtualMachineInstance
		runs    = instance(nil)
		failed  = instance(func(v *v1alpha1.VirtualMachineInstance) { v.Status.Phase = v1alpha1.VMIFailed })
		ending  = instance(func(v *v1alpha1.VirtualMachineInstance) { v.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} })
		zero    = new(int64(0))
		start   = v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStart}
		stop    = v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStop, UID: "u1"}
		stopNow = v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStop, UID: "u1", GracePeriodSeconds: zero}
		nothing = []v1alpha1.StateChangeRequest{}
	)
	type requests = []v1alpha1.StateChangeRequest
	type vm = *v1alpha1.VirtualMachine
	type vmi = *v1alpha1.VirtualMachineInstance
	begin := func(m vm, i vmi) (Change, error) { return Start(m, i) }
	end := func(grace *int64) func(vm, vmi) (Change, error) {
		return func(m vm, i vmi) (Change, error) { return Stop(m, i, grace) }
	}
	again := func(m vm, i vmi) (Change, error) { return Restart(m, i, nil) }
	cases := map[string]struct {
		do   func(vm, vmi) (Change, error)
		vm   vm
		vmi  vmi
		want Change // an empty one: ErrConflict
	}{
		"start halted":                     {begin, machine(v1alpha1.RunHalted), none, Change{RunStrategy: v1alpha1.RunAlways}},
		"start manual":                     {begin, machine(v1alpha1.RunManual), none, Change{Requests: requests{start}}},
		"start manual that ended":          {begin, machine(v1alpha1.RunManual), failed, Change{Requests: requests{start}}},
		"start manual that runs":           {begin, machine(v1alpha1.RunManual), runs, Change{}},
		"start manual that is ending":      {begin, machine(v1alpha1.RunManual), ending, Change{Requests: requests{start}}},
		"start always in its pause":        {begin, machine(v1alpha1.RunAlways), none, Change{Requests: requests{start}}},
		"start always that runs":           {begin, machine(v1alpha1.RunAlways), runs, Change{}},
		"start, and a stop is asked for":   {begin, machine(v1alpha1.RunManual, stop), runs, Change{Requests: requests{start}}},
		"stop always":                      {end(nil), machine(v1alpha1.RunAlways), runs, Change{RunStrategy: v1alpha1.RunHalted, Requests: nothing}},
		"stop always now":                  {end(zero), machine(v1alpha1.RunAlways), runs, Change{RunStrategy: v1alpha1.RunHalted, Requests: requests{stopNow}}},
		"stop always in its pause":         {end(zero), machine(v1alpha1.RunAlways), none, Change{RunStrategy: v1alpha1.RunHalted, Requests: nothing}},
		"stop rerun":                       {end(nil), machine(v1alpha1.RunRerunOnFailure), runs, Change{RunStrategy: v1alpha1.RunHalted, Requests: nothing}},
		"stop manual":                      {end(nil), machine(v1alpha1.RunManual), runs, Change{Requests: requests{stop}}},
		"stop manual, stopped":             {end(nil), machine(v1alpha1.RunManual), none, Change{}},
		"stop manual before it started":    {end(nil), machine(v1alpha1.RunManual, start), none, Change{Requests: nothing}},
		"stop halted":                      {end(nil), machine(v1alpha1.RunHalted), none, Change{}},
		"stop halted that is ending":       {end(nil), machine(v1alpha1.RunHalted), ending, Change{}},
		"force halted that is ending":      {end(zero), machine(v1alpha1.RunHalted), ending, Change{Requests: requests{stopNow}}},
		"stop, and a restart is asked for": {end(nil), machine(v1alpha1.RunManual, stop, start), ending, Change{Requests: requests{stop}}},
		"restart always":                   {again, machine(v1alpha1.RunAlways), runs, Change{Requests: requests{stop, start}}},
		"restart halted":                   {again, machine(v1alpha1.RunHalted), ending, Change{}},
		"restart once":                     {again, machine(v1alpha1.RunOnce), runs, Change{Requests: requests{stop, start}}},
		"restart stopped":                  {again, machine(v1alpha1.RunManual), none, Change{}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := tc.do(tc.vm, tc.vmi)
			conflict := tc.want.RunStrategy == "" && tc.want.Requests == nil
			if conflict != errors.Is(err, ErrConflict) || (err == nil) != (got.Said != "") {
				t.Fatalf("change %+v, error %v", got, err)
			}
			got.Said = ""
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("change (-want +got):\n%s", diff)
			}
		})
	}
}
