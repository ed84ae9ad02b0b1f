package controller

import (
	"context"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// change updates a machine.
func change(t *testing.T, ns, name string, do func(*v1alpha1.VirtualMachine)) {
	t.Helper()
	eventually(t, "update machine "+name, func(ctx context.Context) error {
		vm, err := get(ctx, &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}})
		if err != nil {
			return err
		}
		do(vm)
		return server.Admin.Update(ctx, vm)
	})
}

func request(t *testing.T, ns, name string, requests ...v1alpha1.StateChangeRequest) {
	t.Helper()
	eventually(t, "ask machine "+name, func(ctx context.Context) error {
		vm, err := get(ctx, &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}})
		if err != nil {
			return err
		}
		vm.Status.StateChangeRequests = requests
		return server.Admin.Status().Update(ctx, vm)
	})
}

// staysAbsent gives the controller time to do the wrong thing.
func staysAbsent(t *testing.T, ns, name string) {
	t.Helper()
	time.Sleep(700 * time.Millisecond)
	err := server.Admin.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, &v1alpha1.VirtualMachineInstance{})
	if !apierrors.IsNotFound(err) {
		t.Fatalf("there is an instance of %s (%v)", name, err)
	}
}

func TestHalted(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunHalted)
	waitMachine(t, ns, "vm", "is stopped", func(vm *v1alpha1.VirtualMachine) bool { return vm.Status.PrintableStatus == v1alpha1.VMStopped })
	staysAbsent(t, ns, "vm")
	change(t, ns, "vm", func(vm *v1alpha1.VirtualMachine) { vm.Spec.RunStrategy = v1alpha1.RunAlways })
	vmi, pod := start(t, ns, "vm")
	change(t, ns, "vm", func(vm *v1alpha1.VirtualMachine) { vm.Spec.RunStrategy = v1alpha1.RunHalted })
	waitMachine(t, ns, "vm", "is stopping", func(vm *v1alpha1.VirtualMachine) bool { return vm.Status.PrintableStatus == v1alpha1.VMStopping })
	kubeletDeletes(t, pod)
	waitGone(t, vmi)
	staysAbsent(t, ns, "vm")
}

func TestManual(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunManual)
	waitMachine(t, ns, "vm", "is stopped", func(vm *v1alpha1.VirtualMachine) bool { return vm.Status.PrintableStatus == v1alpha1.VMStopped })
	staysAbsent(t, ns, "vm")

	request(t, ns, "vm", v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStart})
	first, pod := start(t, ns, "vm")

	// A restart with a short grace period.
	request(t, ns, "vm",
		v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStop, UID: first.UID, GracePeriodSeconds: new(int64(5))},
		v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStart})
	eventually(t, "the pod gets the short grace period", func(ctx context.Context) error {
		p, err := get(ctx, pod.DeepCopy())
		if err != nil {
			return err
		}
		if g := p.DeletionGracePeriodSeconds; g == nil || *g != 20 {
			return fmt.Errorf("grace period %v", g)
		}
		return nil
	})
	kubeletDeletes(t, pod)
	second := waitInstance(t, ns, "vm", "is another", func(v *v1alpha1.VirtualMachineInstance) bool { return v.UID != first.UID })
	waitMachine(t, ns, "vm", "has no open requests", func(vm *v1alpha1.VirtualMachine) bool { return len(vm.Status.StateChangeRequests) == 0 })

	_, pod = start(t, ns, "vm")
	request(t, ns, "vm", v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStop, UID: second.UID})
	kubeletDeletes(t, pod)
	waitGone(t, second)
	waitMachine(t, ns, "vm", "is stopped again", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.PrintableStatus == v1alpha1.VMStopped && len(vm.Status.StateChangeRequests) == 0
	})
	staysAbsent(t, ns, "vm")
}

// A stop request of a former instance must not hit the present one.
func TestStaleStopRequest(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	vmi, _ := start(t, ns, "vm")
	request(t, ns, "vm", v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStop, UID: "another"})
	waitMachine(t, ns, "vm", "dropped the request", func(vm *v1alpha1.VirtualMachine) bool { return len(vm.Status.StateChangeRequests) == 0 })
	now := waitInstance(t, ns, "vm", "runs", func(v *v1alpha1.VirtualMachineInstance) bool { return v.Status.Phase == v1alpha1.VMIRunning })
	if now.UID != vmi.UID || !now.DeletionTimestamp.IsZero() {
		t.Error("the running instance was stopped")
	}
}

func TestRerunOnFailure(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunRerunOnFailure)
	first, pod := start(t, ns, "vm")
	report(t, pod, terminated(68, "Error", ""))
	kubeletDeletes(t, pod)
	waitGone(t, first)
	vm := waitMachine(t, ns, "vm", "waits before the next start", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.PrintableStatus == v1alpha1.VMCrashLoopBackOff
	})
	f := vm.Status.StartFailure
	if f == nil || f.Count != 1 || f.LastFailedVMIUID != first.UID || f.RetryAfter == nil {
		t.Fatalf("start failure %s", text(f))
	}
	if wait := time.Until(f.RetryAfter.Time); wait > 10*time.Second {
		t.Errorf("the first pause is %v", wait)
	}
	second := waitInstance(t, ns, "vm", "is another", func(v *v1alpha1.VirtualMachineInstance) bool { return v.UID != first.UID })
	_, pod = start(t, ns, "vm")
	report(t, pod, terminated(0, "Completed", ""))
	waitMachine(t, ns, "vm", "is stopped", func(vm *v1alpha1.VirtualMachine) bool { return vm.Status.PrintableStatus == v1alpha1.VMStopped })
	time.Sleep(700 * time.Millisecond)
	now := waitInstance(t, ns, "vm", "stays ended", func(v *v1alpha1.VirtualMachineInstance) bool { return v.Status.Phase == v1alpha1.VMISucceeded })
	if now.UID != second.UID || !now.DeletionTimestamp.IsZero() {
		t.Error("an instance that succeeded was replaced")
	}
}

// The template may change under a running guest; the machine says so.
func TestRestartRequired(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	vmi, _ := start(t, ns, "vm")
	change(t, ns, "vm", func(vm *v1alpha1.VirtualMachine) { vm.Spec.Template.Spec.Domain.CPU.Cores = 2 })
	waitMachine(t, ns, "vm", "asks for a restart", func(vm *v1alpha1.VirtualMachine) bool {
		return conditionIs(vm.Status.Conditions, v1alpha1.ConditionRestartRequired, metav1.ConditionTrue)
	})
	// The running instance cannot be changed.
	vmi.Spec.Domain.CPU.Cores = 2
	err := server.Admin.Update(t.Context(), vmi)
	if !apierrors.IsInvalid(err) || !contains(err.Error(), "cannot be changed") {
		t.Errorf("error = %v; want a refusal to change a running instance", err)
	}
}

// An instance of the same name that is somebody else's is left alone.
func TestForeignInstance(t *testing.T) {
	ns := newNamespace(t)
	foreign := &v1alpha1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "vm"}}
	foreign.Spec.Domain.Memory = &v1alpha1.Memory{Guest: new(resource.MustParse("256Mi"))}
	if err := server.Admin.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	waitMachine(t, ns, "vm", "names the conflict", func(vm *v1alpha1.VirtualMachine) bool {
		return conditionIs(vm.Status.Conditions, v1alpha1.ConditionFailure, metav1.ConditionTrue)
	})
}
