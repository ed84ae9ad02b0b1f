package instance

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// Finalizer keeps an instance until its pod is gone, and its devices free.
const Finalizer = v1alpha1.Group + "/guest"

// StopGraceAnnotation on an instance is how many seconds its guest may take to
// shut down when it is deleted, in place of the spec's.
const StopGraceAnnotation = v1alpha1.Group + "/stop-grace-seconds"

// Reconciler reconciles instances.
type Reconciler struct {
	// Client reads from caches.
	Client client.Client
	// Live reads past the caches.
	Live     client.Reader
	Recorder events.EventRecorder
	Pod      launcherpod.Options
	// Launcher talks to the launchers of standby pods.
	Launcher Launcher
	// Now is the clock.
	Now func() time.Time
}

// Reconcile moves one instance a step on.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var vmi v1alpha1.VirtualMachineInstance
	if err := r.Client.Get(ctx, req.NamespacedName, &vmi); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := vmi.DeepCopy()
	result, err := r.step(ctx, &vmi)
	if vmi.ResourceVersion == before.ResourceVersion && !equality.Semantic.DeepEqual(before.Status, vmi.Status) {
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		if perr := r.Client.Status().Patch(ctx, &vmi, patch); perr != nil {
			err = errors.Join(err, client.IgnoreNotFound(perr))
		}
	}
	if onlyConflicts(err) {
		// The cache is behind: look again when it has caught up.
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}
	return result, err
}

// Setup adds the reconciler to a manager.
func (r *Reconciler) Setup(mgr ctrl.Manager, o controller.Options) error {
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.VirtualMachineInstance{}, byNode,
		func(o client.Object) []string {
			if vmi, ok := o.(*v1alpha1.VirtualMachineInstance); ok && vmi.Status.NodeName != "" {
				return []string{vmi.Status.NodeName}
			}
			return nil
		}); err != nil {
		return fmt.Errorf("index instances by node: %w", err)
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("instance").
		For(&v1alpha1.VirtualMachineInstance{}).
		Owns(&corev1.Pod{}).
		Watches(&v1alpha1.NodeInventory{}, handler.EnqueueRequestsFromMapFunc(r.onNode)).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.onNode), builder.WithPredicates(cordoning())).
		WithOptions(o).
		Complete(r)
}

// cordoning lets pass what makes a node schedulable or unschedulable: nodes
// report their own state every few minutes.
func cordoning() predicate.Predicate {
	off := func(o client.Object) bool {
		n, ok := o.(*corev1.Node)
		return ok && n.Spec.Unschedulable
	}
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return off(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool { return off(e.ObjectOld) != off(e.ObjectNew) },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

// byNode is the index of instances by status.nodeName.
const byNode = "status.nodeName"

// onNode are the instances on a node whose inventory changed, or that was
// cordoned or is in use again.
func (r *Reconciler) onNode(ctx context.Context, o client.Object) []ctrl.Request {
	var list v1alpha1.VirtualMachineInstanceList
	if err := r.Client.List(ctx, &list, client.MatchingFields{byNode: o.GetName()}); err != nil {
		log.FromContext(ctx).Error(err, "cannot find the instances of a node", "node", o.GetName())
		return nil
	}
	var requests []ctrl.Request
	for i := range list.Items {
		requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

func onlyConflicts(err error) bool { return err != nil && apierrors.IsConflict(err) }

func (r *Reconciler) step(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance) (ctrl.Result, error) {
	pod, err := r.currentPod(ctx, vmi)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !vmi.DeletionTimestamp.IsZero() {
		return r.finish(ctx, vmi, pod)
	}
	if controllerutil.AddFinalizer(vmi, Finalizer) {
		// Writing changes the resource version, so the status waits for the next call.
		return ctrl.Result{}, r.Client.Update(ctx, vmi)
	}
	switch vmi.Status.Phase {
	case v1alpha1.VMISucceeded, v1alpha1.VMIFailed:
		return ctrl.Result{}, r.dropStandby(ctx, vmi)
	}
	if stepIs(vmi, v1alpha1.MoveStopping) {
		// How the old pod ends is the move's own doing.
		return r.move(ctx, vmi, pod)
	}
	if pod == nil {
		if vmi.Status.PodUID != "" {
			r.ended(vmi, v1alpha1.VMIFailed, v1alpha1.LauncherOutcome{
				ExitCode: -1, Reason: "PodDeleted",
				Message: fmt.Sprintf("pod %s was deleted while the guest ran or was about to", vmi.Status.PodName),
			})
			return ctrl.Result{}, nil
		}
		return r.create(ctx, vmi)
	}
	if refusal, ok := kubeletRefused(pod); ok {
		return r.replace(vmi, pod, refusal)
	}
	again, err := r.observe(ctx, vmi, pod)
	if err != nil {
		return ctrl.Result{}, err
	}
	if over(vmi) {
		return ctrl.Result{}, r.dropStandby(ctx, vmi)
	}
	var released ctrl.Result
	if c := compute(pod); vmi.Status.Phase == v1alpha1.VMIScheduled && c != nil && c.State.Running != nil && isStandby(pod) {
		released = r.release(ctx, vmi, pod)
	}
	moved, err := r.move(ctx, vmi, pod)
	if err == nil {
		err = r.dropStandby(ctx, vmi)
	}
	if moved.RequeueAfter == 0 {
		moved = released
	}
	if moved.RequeueAfter == 0 {
		moved.RequeueAfter = again
	}
	return moved, err
}

// over tells whether the instance has ended.
func over(vmi *v1alpha1.VirtualMachineInstance) bool {
	return vmi.Status.Phase == v1alpha1.VMISucceeded || vmi.Status.Phase == v1alpha1.VMIFailed
}

// currentPod is the pod of the current attempt, nil when there is none. A pod
// that the cache does not have is looked for past the cache: guests are lost by
// believing a cache that is late.
func (r *Reconciler) currentPod(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance) (*corev1.Pod, error) {
	return r.podOf(ctx, vmi, attempt(vmi), r.Client, r.Live)
}

// podOf is the pod of an attempt as the first of the readers that has it says.
func (r *Reconciler) podOf(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, attempt int32, readers ...client.Reader) (*corev1.Pod, error) {
	key := client.ObjectKey{Namespace: vmi.Namespace, Name: launcherpod.Name(vmi, attempt)}
	for _, reader := range readers {
		var pod corev1.Pod
		switch err := reader.Get(ctx, key, &pod); {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return nil, fmt.Errorf("get pod %s: %w", key, err)
		case !metav1.IsControlledBy(&pod, vmi):
			// A late cache may still have the pod of an instance of the same name,
			// but not with this name: names hash the UID.
			return nil, fmt.Errorf("pod %s exists and is not this instance's: delete or rename it", key)
		}
		return &pod, nil
	}
	return nil, nil // "there is none" is an answer here
}

func attempt(vmi *v1alpha1.VirtualMachineInstance) int32 { return max(vmi.Status.Attempt, 1) }

// create makes the pod.
func (r *Reconciler) create(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance) (ctrl.Result, error) {
	now := r.Now()
	refused, err := r.ownPods(ctx, vmi)
	if err != nil {
		return ctrl.Result{}, err
	}
	for i := range refused {
		if refused[i].Name == launcherpod.Name(vmi, attempt(vmi)) {
			continue // the cache has it by now; the next step sees it
		}
		if err := r.deletePod(ctx, vmi, &refused[i]); err != nil {
			return ctrl.Result{}, err
		}
	}
	var avoid []string
	for _, refusal := range vmi.Status.Refusals {
		if refusal.Until.After(now) {
			avoid = append(avoid, refusal.Node)
		}
	}
	if wait := retryAt(vmi).Sub(now); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	r.phase(vmi, v1alpha1.VMIPending, "", "")
	block, missing, err := r.blockClaims(ctx, vmi)
	if err != nil {
		return ctrl.Result{}, err
	}
	if missing != "" {
		message := fmt.Sprintf("claim %s does not exist", missing)
		r.condition(vmi, v1alpha1.ConditionPodCreated, metav1.ConditionFalse, "ErrorPvcNotFound", message)
		vmi.Status.Reason, vmi.Status.Message = "ErrorPvcNotFound", message
		return ctrl.Result{RequeueAfter: 10 * time.Second}, nil
	}
	pod, err := launcherpod.Build(vmi, launcherpod.Situation{Attempt: attempt(vmi), Avoid: avoid, BlockClaims: block}, r.Pod)
	switch {
	case errors.Is(err, vmspec.ErrInvalid), errors.Is(err, launcherpod.ErrUnsupported):
		reason := "InvalidSpec"
		if errors.Is(err, launcherpod.ErrUnsupported) {
			reason = "NotSupported"
		}
		// The spec cannot change, so this is final.
		r.ended(vmi, v1alpha1.VMIFailed, v1alpha1.LauncherOutcome{ExitCode: v1alpha1.ExitBadSpec, Reason: reason, Message: err.Error(), Field: field(err)})
		r.condition(vmi, v1alpha1.ConditionPodCreated, metav1.ConditionFalse, reason, err.Error())
		r.Recorder.Eventf(vmi, nil, corev1.EventTypeWarning, reason, "CreatePod", "%s", err)
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, err
	}
	if extra, err := launcherpod.Overhead(&vmi.Spec); err == nil {
		vmi.Status.MemoryOverhead = fmt.Sprintf("%dMi", extra/vmspec.MiB)
	}
	switch err := r.Client.Create(ctx, pod); {
	case apierrors.IsAlreadyExists(err):
		// The cache did not have it yet.
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return ctrl.Result{}, nil // the instance is about to be deleted, too
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		// A quota, Pod Security or another policy: may change without us.
		r.condition(vmi, v1alpha1.ConditionPodCreated, metav1.ConditionFalse, "PodRefused", err.Error())
		vmi.Status.Reason, vmi.Status.Message = "PodRefused", err.Error()
		r.Recorder.Eventf(vmi, nil, corev1.EventTypeWarning, "PodRefused", "CreatePod", "%s", err)
		return ctrl.Result{RequeueAfter: 30 * time.Second}, nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("create pod %s: %w", pod.Name, err)
	}
	r.Recorder.Eventf(vmi, pod, corev1.EventTypeNormal, "PodCreated", "CreatePod", "created pod %s", pod.Name)
	vmi.Status.Attempt, vmi.Status.PodName, vmi.Status.PodUID = attempt(vmi), pod.Name, pod.UID
	r.condition(vmi, v1alpha1.ConditionPodCreated, metav1.ConditionTrue, "Created", "")
	r.phase(vmi, v1alpha1.VMIScheduling, "", "")
	return ctrl.Result{}, nil
}

// blockClaims reads the volume modes of the instance's claims, past the cache:
// claims are many and are asked for once.
func (r *Reconciler) blockClaims(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance) (block map[string]bool, missing string, err error) {
	block = map[string]bool{}
	for _, name := range launcherpod.Claims(&vmi.Spec) {
		var pvc corev1.PersistentVolumeClaim
		err := r.Live.Get(ctx, client.ObjectKey{Namespace: vmi.Namespace, Name: name}, &pvc)
		if apierrors.IsNotFound(err) {
			return nil, name, nil
		}
		if err != nil {
			return nil, "", fmt.Errorf("get claim %s: %w", name, err)
		}
		block[name] = pvc.Spec.VolumeMode != nil && *pvc.Spec.VolumeMode == corev1.PersistentVolumeBlock
	}
	return block, "", nil
}

// finish ends an instance that is being deleted.
func (r *Reconciler) finish(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod) (ctrl.Result, error) {
	pods, err := r.ownPods(ctx, vmi)
	if err != nil {
		return ctrl.Result{}, err
	}
	if pod != nil && len(pods) == 0 {
		pods = append(pods, *pod)
	}
	for i := range pods {
		if err := r.deletePod(ctx, vmi, &pods[i]); err != nil {
			return ctrl.Result{}, err
		}
	}
	if pod != nil || len(pods) > 0 {
		r.condition(vmi, v1alpha1.ConditionReady, metav1.ConditionFalse, "Deleting", "the guest is shutting down")
		return ctrl.Result{}, nil
	}
	// The last look is past the cache: a pod that it does not have yet would
	// outlive its object.
	if pods, err = r.podsOf(ctx, vmi, r.Live); err != nil {
		return ctrl.Result{}, err
	}
	if len(pods) > 0 {
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}
	if controllerutil.RemoveFinalizer(vmi, Finalizer) {
		log.FromContext(ctx).V(2).Info("pod is gone, instance ends")
		return ctrl.Result{}, client.IgnoreNotFound(r.Client.Update(ctx, vmi))
	}
	return ctrl.Result{}, nil
}

// ownPods are all pods of the instance that the cache knows, of every attempt.
func (r *Reconciler) ownPods(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance) ([]corev1.Pod, error) {
	return r.podsOf(ctx, vmi, r.Client)
}

func (r *Reconciler) podsOf(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, reader client.Reader) ([]corev1.Pod, error) {
	var pods corev1.PodList
	if err := reader.List(ctx, &pods, client.InNamespace(vmi.Namespace),
		client.MatchingLabels{launcherpod.LabelInstanceUID: string(vmi.UID)}); err != nil {
		return nil, fmt.Errorf("list the instance's pods: %w", err)
	}
	own := pods.Items[:0]
	for _, p := range pods.Items {
		if metav1.IsControlledBy(&p, vmi) {
			own = append(own, p)
		}
	}
	return own, nil
}

func (r *Reconciler) deletePod(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod) error {
	grace := launcherpod.GracePeriod(&vmi.Spec, stopGrace(vmi))
	if !pod.DeletionTimestamp.IsZero() {
		// Somebody lost patience: kubelet takes a shorter period, never a longer one.
		if stopGrace(vmi) == nil || pod.DeletionGracePeriodSeconds == nil || *pod.DeletionGracePeriodSeconds <= grace {
			return nil
		}
	}
	err := r.Client.Delete(ctx, pod, client.GracePeriodSeconds(grace), client.Preconditions{UID: &pod.UID})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("delete pod %s: %w", pod.Name, err)
	}
	r.Recorder.Eventf(vmi, pod, corev1.EventTypeNormal, "PodDeleted", "DeletePod", "asked pod %s to shut the guest down", pod.Name)
	return nil
}

// phase sets phase, reason and message.
func (r *Reconciler) phase(vmi *v1alpha1.VirtualMachineInstance, p v1alpha1.VirtualMachineInstancePhase, reason, message string) {
	s := &vmi.Status
	s.Reason, s.Message = reason, message
	if s.Phase != p {
		s.Phase, s.PhaseSince = p, &metav1.Time{Time: r.Now()}
	}
	if p != v1alpha1.VMIRunning {
		r.condition(vmi, v1alpha1.ConditionReady, metav1.ConditionFalse, orWord(reason, string(p)), message)
	}
}

// ended makes the instance final.
func (r *Reconciler) ended(vmi *v1alpha1.VirtualMachineInstance, p v1alpha1.VirtualMachineInstancePhase, o v1alpha1.LauncherOutcome) {
	if o.FinishedAt == nil {
		o.FinishedAt = &metav1.Time{Time: r.Now()}
	}
	vmi.Status.Outcome = &o
	r.cancelMove(vmi, "the guest ended")
	r.phase(vmi, p, o.Reason, o.Message)
}

func (r *Reconciler) condition(vmi *v1alpha1.VirtualMachineInstance, kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&vmi.Status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: orWord(reason, kind), Message: limit(message),
		ObservedGeneration: vmi.Generation,
	})
}

// limit keeps a message within what the API server takes.
func limit(message string) string {
	const most = 4096
	if len(message) > most {
		return message[:most] + "…"
	}
	return message
}

func orWord(word, otherwise string) string {
	if word == "" {
		return otherwise
	}
	return word
}

func field(err error) string {
	var e *vmspec.Error
	if errors.As(err, &e) {
		return e.Field
	}
	return ""
}
