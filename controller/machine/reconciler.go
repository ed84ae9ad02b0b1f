package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/instance"
)

// Finalizer keeps a virtual machine until its instance is gone.
const Finalizer = v1alpha1.Group + "/instance"

const (
	// backoffUnit times the square of the number of failures is the pause.
	backoffUnit = 10 * time.Second
	maxBackoff  = 5 * time.Minute
	// stable is how long a guest must have run for its end not to count as a
	// failed start.
	stable = time.Minute
)

// Reconciler reconciles virtual machines.
type Reconciler struct {
	// Client reads from caches.
	Client   client.Client
	Recorder events.EventRecorder
	// Now is the clock.
	Now func() time.Time
}

// Setup adds the reconciler to a manager.
func (r *Reconciler) Setup(mgr ctrl.Manager, o controller.Options) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("machine").
		For(&v1alpha1.VirtualMachine{}).
		Owns(&v1alpha1.VirtualMachineInstance{}).
		WithOptions(o).
		Complete(r)
}

// Reconcile moves one virtual machine a step on.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var vm v1alpha1.VirtualMachine
	if err := r.Client.Get(ctx, req.NamespacedName, &vm); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := vm.DeepCopy()
	result, err := r.step(ctx, &vm)
	if vm.ResourceVersion == before.ResourceVersion && !equality.Semantic.DeepEqual(before.Status, vm.Status) {
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		if perr := r.Client.Status().Patch(ctx, &vm, patch); perr != nil {
			err = errors.Join(err, client.IgnoreNotFound(perr))
		}
	}
	if err != nil && apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}
	return result, err
}

func (r *Reconciler) step(ctx context.Context, vm *v1alpha1.VirtualMachine) (ctrl.Result, error) {
	vmi, err := r.current(ctx, vm)
	if err != nil {
		r.condition(vm, v1alpha1.ConditionFailure, metav1.ConditionTrue, "InstanceNameTaken", err.Error())
		return ctrl.Result{}, err
	}
	if !vm.DeletionTimestamp.IsZero() {
		describe(vm, vmi, true)
		if vmi != nil {
			return ctrl.Result{}, r.end(ctx, vm, vmi, nil)
		}
		if controllerutil.RemoveFinalizer(vm, Finalizer) {
			return ctrl.Result{}, client.IgnoreNotFound(r.Client.Update(ctx, vm))
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(vm, Finalizer) {
		return ctrl.Result{}, r.Client.Update(ctx, vm)
	}
	if vm.Status.ObservedGeneration != vm.Generation {
		// The owner changed something: try again at once.
		vm.Status.StartFailure = nil
	}
	vm.Status.ObservedGeneration = vm.Generation
	r.remember(vm, vmi)
	result, err := r.act(ctx, vm, vmi)
	describe(vm, vmi, false)
	r.condition(vm, v1alpha1.ConditionFailure, metav1.ConditionFalse, "None", "")
	if err != nil {
		r.condition(vm, v1alpha1.ConditionFailure, metav1.ConditionTrue, "Error", err.Error())
	}
	restartRequired(vm, vmi)
	return result, err
}

// current is the machine's instance, nil when there is none.
func (r *Reconciler) current(ctx context.Context, vm *v1alpha1.VirtualMachine) (*v1alpha1.VirtualMachineInstance, error) {
	var vmi v1alpha1.VirtualMachineInstance
	switch err := r.Client.Get(ctx, client.ObjectKeyFromObject(vm), &vmi); {
	case apierrors.IsNotFound(err):
		return nil, nil // "there is none" is an answer here
	case err != nil:
		return nil, err
	case !metav1.IsControlledBy(&vmi, vm):
		return nil, fmt.Errorf("VirtualMachineInstance %s/%s exists and is not this machine's: delete it or name the machine otherwise", vmi.Namespace, vmi.Name)
	}
	return &vmi, nil
}

// remember keeps what an instance's end and life mean for the next start.
func (r *Reconciler) remember(vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance) {
	if vmi == nil {
		return
	}
	vm.Status.InstanceUID = vmi.UID
	switch {
	case !over(vmi):
		if ran(vmi, r.Now()) >= stable {
			vm.Status.StartFailure = nil
		}
		return
	case vm.Status.StartFailure != nil && vm.Status.StartFailure.LastFailedVMIUID == vmi.UID:
		return
	}
	vm.Status.LastOutcome = vmi.Status.Outcome
	f := vm.Status.StartFailure
	if ran(vmi, r.Now()) >= stable {
		// It ran well before it ended: what follows is a first failure at most.
		f = nil
	}
	if vmi.Status.Phase == v1alpha1.VMISucceeded && ran(vmi, r.Now()) >= stable {
		vm.Status.StartFailure = nil
		return
	}
	if f == nil {
		f = &v1alpha1.StartFailure{}
	}
	f.Count++
	f.LastFailedVMIUID = vmi.UID
	f.RetryAfter = &metav1.Time{Time: r.Now().Add(backoff(f.Count))}
	vm.Status.StartFailure = f
}

// over tells whether the instance has ended.
func over(vmi *v1alpha1.VirtualMachineInstance) bool {
	return vmi.Status.Phase == v1alpha1.VMISucceeded || vmi.Status.Phase == v1alpha1.VMIFailed
}

// ran is how long the guest has been running, or ran until it ended.
func ran(vmi *v1alpha1.VirtualMachineInstance, now time.Time) time.Duration {
	if vmi.Status.RunningSince == nil {
		return 0
	}
	if o := vmi.Status.Outcome; o != nil && o.FinishedAt != nil {
		now = o.FinishedAt.Time
	}
	return now.Sub(vmi.Status.RunningSince.Time)
}

// backoff is the pause after the n-th failure in a row.
func backoff(n int32) time.Duration {
	// Bounded before the square is taken.
	n = min(n, 100)
	return min(time.Duration(n*n)*backoffUnit, maxBackoff)
}

// act carries out requests, then the run strategy.
func (r *Reconciler) act(ctx context.Context, vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance) (ctrl.Result, error) {
	if len(vm.Status.StateChangeRequests) > 0 {
		return r.request(ctx, vm, vmi)
	}
	ended := vmi != nil && over(vmi)
	failed := ended && vmi.Status.Phase == v1alpha1.VMIFailed
	switch vm.Spec.RunStrategy {
	case v1alpha1.RunHalted:
		if vmi != nil {
			return ctrl.Result{}, r.end(ctx, vm, vmi, nil)
		}
	case v1alpha1.RunAlways:
		// The pause is taken before the next one is made, not before this one goes.
		if ended {
			return ctrl.Result{}, r.end(ctx, vm, vmi, nil)
		}
		if vmi == nil {
			return r.start(ctx, vm)
		}
	case v1alpha1.RunRerunOnFailure:
		if failed {
			return ctrl.Result{}, r.end(ctx, vm, vmi, nil)
		}
		if vmi == nil {
			return r.start(ctx, vm)
		}
	case v1alpha1.RunOnce:
		if vmi == nil && vm.Status.InstanceUID == "" {
			return r.start(ctx, vm)
		}
	case v1alpha1.RunManual:
	}
	if vmi != nil && vmi.Status.Phase == v1alpha1.VMIRunning && vm.Status.StartFailure != nil {
		// Look again when the guest counts as stable.
		return ctrl.Result{RequeueAfter: stable - ran(vmi, r.Now()) + time.Second}, nil
	}
	return ctrl.Result{}, nil
}

// request carries out the first wish.
func (r *Reconciler) request(ctx context.Context, vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance) (ctrl.Result, error) {
	first := vm.Status.StateChangeRequests[0]
	done := func() { vm.Status.StateChangeRequests = vm.Status.StateChangeRequests[1:] }
	switch first.Action {
	case v1alpha1.ActionStop:
		if vmi == nil || (first.UID != "" && vmi.UID != first.UID) {
			done()
			return ctrl.Result{RequeueAfter: time.Millisecond}, nil // the next request follows at once
		}
		return ctrl.Result{}, r.end(ctx, vm, vmi, first.GracePeriodSeconds)
	case v1alpha1.ActionStart:
		switch {
		case vmi != nil && (over(vmi) || !vmi.DeletionTimestamp.IsZero()):
			return ctrl.Result{}, r.end(ctx, vm, vmi, nil)
		case vmi != nil:
			done()
			return ctrl.Result{}, nil
		}
		// Asked for by a person: no pause.
		vm.Status.StartFailure = nil
		result, err := r.start(ctx, vm)
		if err == nil {
			done()
		}
		return result, err
	}
	done()
	return ctrl.Result{}, nil
}

// start makes the instance, when the pause after failures is over.
func (r *Reconciler) start(ctx context.Context, vm *v1alpha1.VirtualMachine) (ctrl.Result, error) {
	if f := vm.Status.StartFailure; f != nil && f.RetryAfter != nil {
		if wait := f.RetryAfter.Sub(r.Now()); wait > 0 {
			return ctrl.Result{RequeueAfter: wait}, nil
		}
	}
	vmi := &v1alpha1.VirtualMachineInstance{
		ObjectMeta: metav1.ObjectMeta{
			Name: vm.Name, Namespace: vm.Namespace,
			Labels:      maps.Clone(vm.Spec.Template.ObjectMeta.Labels),
			Annotations: maps.Clone(vm.Spec.Template.ObjectMeta.Annotations),
			// Made with it, so that no instance ever lacks it.
			Finalizers:      []string{instance.Finalizer},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(vm, v1alpha1.GroupVersion.WithKind("VirtualMachine"))},
		},
		Spec: *vm.Spec.Template.Spec.DeepCopy(),
	}
	switch err := r.Client.Create(ctx, vmi); {
	case apierrors.IsAlreadyExists(err):
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return ctrl.Result{}, nil // the machine is about to be deleted, too
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("create the instance: %w", err)
	}
	vm.Status.InstanceUID = vmi.UID
	r.Recorder.Eventf(vm, vmi, corev1.EventTypeNormal, "InstanceCreated", "Start", "started %s", vmi.Name)
	return ctrl.Result{}, nil
}

// end deletes the instance; grace replaces the guest's grace period, also that of a
// guest that is shutting down already.
func (r *Reconciler) end(ctx context.Context, vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance, grace *int64) error {
	if grace != nil {
		want := strconv.FormatInt(*grace, 10)
		if vmi.Annotations[instance.StopGraceAnnotation] != want {
			before := vmi.DeepCopy()
			metav1.SetMetaDataAnnotation(&vmi.ObjectMeta, instance.StopGraceAnnotation, want)
			if err := r.Client.Patch(ctx, vmi, client.MergeFrom(before)); err != nil {
				return fmt.Errorf("set the grace period: %w", err)
			}
		}
	}
	if !vmi.DeletionTimestamp.IsZero() {
		return nil
	}
	err := r.Client.Delete(ctx, vmi, client.Preconditions{UID: &vmi.UID})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the instance: %w", err)
	}
	r.Recorder.Eventf(vm, vmi, corev1.EventTypeNormal, "InstanceDeleted", "Stop", "stopping %s", vmi.Name)
	return nil
}

func (r *Reconciler) condition(vm *v1alpha1.VirtualMachine, kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&vm.Status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: vm.Generation,
	})
}

// restartRequired compares the running instance with the template.
func restartRequired(vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance) {
	if vmi == nil || equality.Semantic.DeepEqual(vmi.Spec, vm.Spec.Template.Spec) {
		meta.RemoveStatusCondition(&vm.Status.Conditions, v1alpha1.ConditionRestartRequired)
		return
	}
	meta.SetStatusCondition(&vm.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionRestartRequired, Status: metav1.ConditionTrue, Reason: "TemplateChanged",
		Message: "the template changed since the guest started: restart it to apply the change", ObservedGeneration: vm.Generation,
	})
}
