package instance

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// Launcher talks to the launcher in a pod; package launchercall has the real one.
type Launcher interface {
	// Phase asks where the launcher is.
	Phase(ctx context.Context, pod *corev1.Pod) (launcherrpcv1.Phase, error)
	// Release lets a launcher in standby start its guest.
	Release(ctx context.Context, pod *corev1.Pod) error
}

const (
	// evictionMemory is how long an eviction counts on a node that is not (or no
	// longer) cordoned, while no standby pod has been found for it.
	evictionMemory = 5 * time.Minute
	// standbyPoll is the pause between two questions to a standby launcher.
	standbyPoll = 2 * time.Second

	reasonCordoned = "NodeUnschedulable"
	reasonEviction = "Eviction"
)

// stepIs tells whether a move is in this step.
func stepIs(vmi *v1alpha1.VirtualMachineInstance, step v1alpha1.MoveStep) bool {
	return vmi.Status.Move != nil && vmi.Status.Move.Step == step
}

// evacuation decides whether the guest shall leave its node, and writes the
// condition that says why. A cordoned node is one that is being drained.
func (r *Reconciler) evacuation(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance) (bool, error) {
	s := &vmi.Status
	if s.NodeName == "" || vmi.Spec.EvictionStrategy == v1alpha1.EvictionNone {
		return false, nil
	}
	var node corev1.Node
	if err := r.Client.Get(ctx, client.ObjectKey{Name: s.NodeName}, &node); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("get node %s: %w", s.NodeName, err)
	}
	if s.EvacuationNodeName != s.NodeName {
		s.EvacuationNodeName = "" // it was about a node that the guest has left
	}
	was := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionEvictionRequested)
	asked := was != nil && was.Status == metav1.ConditionTrue
	switch {
	case node.Spec.Unschedulable:
		s.EvacuationNodeName = s.NodeName
		r.condition(vmi, v1alpha1.ConditionEvictionRequested, metav1.ConditionTrue, reasonCordoned, "node "+s.NodeName+" is cordoned")
		return true, nil
	case s.EvacuationNodeName == "" && !asked:
		return false, nil
	case s.EvacuationNodeName != "" && !asked:
		// The eviction webhook wrote it.
		r.condition(vmi, v1alpha1.ConditionEvictionRequested, metav1.ConditionTrue, reasonEviction, "the pod was to be evicted from node "+s.NodeName)
		return true, nil
	case s.EvacuationNodeName != "" && was.Reason == reasonEviction && r.Now().Sub(was.LastTransitionTime.Time) < evictionMemory:
		return true, nil
	}
	s.EvacuationNodeName = ""
	r.condition(vmi, v1alpha1.ConditionEvictionRequested, metav1.ConditionFalse, "Over", "node "+s.NodeName+" is in use")
	return false, nil
}

// move carries a running guest to another node, a step per call. pod is the
// current one, nil when it is gone.
func (r *Reconciler) move(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod) (ctrl.Result, error) {
	leave, err := r.evacuation(ctx, vmi)
	if err != nil {
		return ctrl.Result{}, err
	}
	s := &vmi.Status
	switch {
	case stepIs(vmi, v1alpha1.MoveStopping):
		return r.stopping(ctx, vmi, pod)
	case stepIs(vmi, v1alpha1.MovePreparing) && !leave:
		r.cancelMove(vmi, "node "+s.NodeName+" is in use again")
		r.Recorder.Eventf(vmi, pod, corev1.EventTypeNormal, "MoveCancelled", "Move", "node %s is in use again", s.NodeName)
		return ctrl.Result{}, nil
	case stepIs(vmi, v1alpha1.MovePreparing):
		return r.prepare(ctx, vmi, pod)
	case stepIs(vmi, v1alpha1.MoveStarting):
		return ctrl.Result{}, nil
	}
	if !leave || s.Phase != v1alpha1.VMIRunning || !pod.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	next := attempt(vmi)
	if s.Move != nil {
		next = max(next, s.Move.Attempt)
	}
	// Written before the pod is made, so that nobody can lose sight of it.
	s.Move = &v1alpha1.MoveStatus{Step: v1alpha1.MovePreparing, From: s.NodeName, Attempt: next + 1, Since: metav1.NewTime(r.Now())}
	r.Recorder.Eventf(vmi, pod, corev1.EventTypeNormal, "MoveStarted", "Move", "the guest shall leave node %s; a standby pod is made", s.NodeName)
	return ctrl.Result{RequeueAfter: time.Millisecond}, nil
}

// cancelMove ends a move that has not touched the guest. Its pod goes with
// [Reconciler.dropStandby].
func (r *Reconciler) cancelMove(vmi *v1alpha1.VirtualMachineInstance, why string) {
	if stepIs(vmi, v1alpha1.MovePreparing) {
		vmi.Status.Move.Step, vmi.Status.Move.Message = v1alpha1.MoveCancelled, why
	}
}

// dropStandby deletes the pod of a move that was cancelled.
func (r *Reconciler) dropStandby(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance) error {
	if !stepIs(vmi, v1alpha1.MoveCancelled) || vmi.Status.Move.Attempt == attempt(vmi) {
		return nil
	}
	pod, err := r.podOf(ctx, vmi, vmi.Status.Move.Attempt, r.Client)
	if err != nil || pod == nil {
		return err
	}
	return r.deletePod(ctx, vmi, pod)
}

// prepare gets a pod that holds devices on another node.
func (r *Reconciler) prepare(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod) (ctrl.Result, error) {
	m := vmi.Status.Move
	if !pod.DeletionTimestamp.IsZero() {
		// Somebody ends the guest at once; what follows is a new start.
		r.cancelMove(vmi, "the guest's pod was deleted before another could take its place")
		return ctrl.Result{}, nil
	}
	if err := r.dropForgotten(ctx, vmi); err != nil {
		return ctrl.Result{}, err
	}
	standby, err := r.podOf(ctx, vmi, m.Attempt, r.Client, r.Live)
	if err != nil {
		return ctrl.Result{}, err
	}
	if standby == nil {
		return r.createStandby(ctx, vmi)
	}
	m.PodName, m.To = standby.Name, standby.Spec.NodeName
	switch reason, refused := kubeletRefused(standby); {
	case refused, standby.Status.Phase == corev1.PodFailed, standby.Status.Phase == corev1.PodSucceeded, !standby.DeletionTimestamp.IsZero():
		if reason == "" {
			reason = Outcome(standby).Reason
		}
		return r.nextStandby(vmi, standby, reason), nil
	case standby.Spec.NodeName == "":
		m.Message = "no node fits yet"
		for _, c := range standby.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Message != "" {
				m.Message = "no node fits yet: " + limit(c.Message)
			}
		}
		return ctrl.Result{RequeueAfter: time.Minute}, nil // an eviction is forgotten in the end
	}
	ready, why, err := r.standbyReady(ctx, vmi, standby)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !ready {
		m.Message = fmt.Sprintf("pod %s on node %s: %s", standby.Name, standby.Spec.NodeName, why)
		return ctrl.Result{RequeueAfter: standbyPoll}, nil
	}
	m.Step, m.StoppedAt, m.Message = v1alpha1.MoveStopping, &metav1.Time{Time: r.Now()}, "the guest shuts down"
	r.Recorder.Eventf(vmi, standby, corev1.EventTypeNormal, "StandbyReady", "Move",
		"pod %s holds its devices on node %s; the guest on node %s is asked to shut down", standby.Name, m.To, m.From)
	// The old pod is deleted once this is written.
	return ctrl.Result{RequeueAfter: time.Millisecond}, nil
}

// dropForgotten deletes the standby pods of this move that came to nothing, also
// one that was made once more from an instance that the cache had late. Later pods
// than the move's it leaves alone, for the instance may be late now.
func (r *Reconciler) dropForgotten(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance) error {
	for n := attempt(vmi) + 1; n < vmi.Status.Move.Attempt; n++ {
		pod, err := r.podOf(ctx, vmi, n, r.Client)
		if err != nil {
			return err
		}
		if pod == nil {
			continue
		}
		if err := r.deletePod(ctx, vmi, pod); err != nil {
			return err
		}
	}
	return nil
}

// createStandby makes the pod of a move.
func (r *Reconciler) createStandby(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance) (ctrl.Result, error) {
	m := vmi.Status.Move
	avoid := []string{m.From}
	for _, refusal := range vmi.Status.Refusals {
		if refusal.Until.After(r.Now()) && refusal.Node != m.From {
			avoid = append(avoid, refusal.Node)
		}
	}
	block, missing, err := r.blockClaims(ctx, vmi)
	if err != nil {
		return ctrl.Result{}, err
	}
	if missing != "" {
		m.Message = fmt.Sprintf("claim %s does not exist", missing)
		return ctrl.Result{RequeueAfter: 10 * time.Second}, nil
	}
	pod, err := launcherpod.Build(vmi, launcherpod.Situation{Attempt: m.Attempt, Avoid: avoid, BlockClaims: block, Standby: true}, r.Pod)
	if err != nil {
		r.cancelMove(vmi, err.Error())
		return ctrl.Result{}, nil
	}
	switch err := r.Client.Create(ctx, pod); {
	case apierrors.IsAlreadyExists(err):
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		m.Message = "the standby pod is refused: " + limit(err.Error())
		return ctrl.Result{RequeueAfter: 30 * time.Second}, nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("create standby pod %s: %w", pod.Name, err)
	}
	m.PodName, m.Message = pod.Name, "pod "+pod.Name+" waits for a node"
	return ctrl.Result{}, nil
}

// nextStandby forgets a standby pod that came to nothing; the next call deletes it
// and makes another one. Not this one: were the status not written, it would find
// no pod, make the same one again and not know which node refused.
func (r *Reconciler) nextStandby(vmi *v1alpha1.VirtualMachineInstance, standby *corev1.Pod, reason string) ctrl.Result {
	m := vmi.Status.Move
	if standby.Spec.NodeName != "" && standby.DeletionTimestamp.IsZero() {
		remember(vmi, standby, reason, r.Now())
		r.Recorder.Eventf(vmi, standby, corev1.EventTypeWarning, "StandbyFailed", "Move",
			"standby pod %s on node %s: %s; another node is tried", standby.Name, standby.Spec.NodeName, reason)
	}
	m.Attempt++
	m.PodName, m.To, m.Message = "", "", fmt.Sprintf("standby pod %s: %s", standby.Name, reason)
	// The later, the more have failed, unless an event comes before.
	return ctrl.Result{RequeueAfter: backoff(firstRetry, maxRetry, m.Attempt-attempt(vmi)-1)}
}

// standbyReady tells whether a pod on a node holds its devices. why says what is
// missing.
func (r *Reconciler) standbyReady(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, standby *corev1.Pod) (ready bool, why string, err error) {
	c := compute(standby)
	switch {
	case c == nil:
		return false, "kubelet has not taken it yet", nil
	case c.State.Running != nil:
		switch phase := r.ask(ctx, standby); phase {
		case launcherrpcv1.PhaseStandby, launcherrpcv1.PhaseStarting, launcherrpcv1.PhaseRunning, launcherrpcv1.PhasePaused:
			// Beyond standby when it was released before this process knew.
			return true, "", nil
		case "":
			return false, "its launcher does not answer yet", nil
		default:
			return false, "its launcher is in phase " + string(phase), nil
		}
	}
	// A volume that one node has at a time cannot be mounted here before the old
	// pod is gone. Kubelet has given the devices by then, and says so.
	exclusive, err := r.exclusiveClaims(ctx, vmi)
	if err != nil {
		return false, "", err
	}
	held, _ := Held(standby)
	if exclusive && held.Reported {
		return true, "", nil
	}
	reason, message := waiting(c)
	return false, orWord(message, orWord(reason, "its container is being made")), nil
}

// exclusiveClaims tells whether the instance has a claim that one node (or one
// pod) has at a time.
func (r *Reconciler) exclusiveClaims(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance) (bool, error) {
	for _, name := range launcherpod.Claims(&vmi.Spec) {
		var pvc corev1.PersistentVolumeClaim
		if err := r.Live.Get(ctx, client.ObjectKey{Namespace: vmi.Namespace, Name: name}, &pvc); err != nil {
			return false, fmt.Errorf("get claim %s: %w", name, err)
		}
		many := false
		for _, mode := range pvc.Spec.AccessModes {
			many = many || mode == corev1.ReadWriteMany || mode == corev1.ReadOnlyMany
		}
		if !many {
			return true, nil
		}
	}
	return false, nil
}

// stopping waits for the end of the old pod. Its guest shuts down in order, in
// its grace period.
func (r *Reconciler) stopping(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod) (ctrl.Result, error) {
	if pod != nil {
		r.condition(vmi, v1alpha1.ConditionReady, metav1.ConditionFalse, "Moving", "the guest shuts down to be started on node "+vmi.Status.Move.To)
		return ctrl.Result{}, r.deletePod(ctx, vmi, pod)
	}
	s, m := &vmi.Status, vmi.Status.Move
	standby, err := r.podOf(ctx, vmi, m.Attempt, r.Client, r.Live)
	if err != nil {
		return ctrl.Result{}, err
	}
	s.Attempt, s.PodName, s.PodUID, s.NodeName = m.Attempt, "", "", ""
	s.RunningSince, s.Interfaces = nil, nil
	if standby == nil {
		// Lost meanwhile: a new pod is made, for the guest has to come back.
		m.Message = "the standby pod is gone; another pod is made"
		s.Devices, s.DeviceSummary = nil, nil
		r.phase(vmi, v1alpha1.VMIPending, "Moving", m.Message)
	} else {
		s.PodName, s.PodUID, s.NodeName = standby.Name, standby.UID, standby.Spec.NodeName
		m.Message = "the guest starts"
		r.phase(vmi, v1alpha1.VMIScheduled, "Moving", "the guest starts on node "+s.NodeName)
	}
	m.Step = v1alpha1.MoveStarting
	r.Recorder.Eventf(vmi, nil, corev1.EventTypeNormal, "GuestStopped", "Move", "the guest has left node %s and starts on node %s", m.From, m.To)
	return ctrl.Result{RequeueAfter: time.Millisecond}, nil
}

// release lets the guest of a standby pod start that is now the instance's pod.
func (r *Reconciler) release(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod) ctrl.Result {
	switch r.ask(ctx, pod) {
	case "", launcherrpcv1.PhasePreparing:
		return ctrl.Result{RequeueAfter: standbyPoll}
	case launcherrpcv1.PhaseStandby:
		if err := r.Launcher.Release(ctx, pod); err != nil {
			log.FromContext(ctx).V(1).Info("a standby launcher cannot be released yet", "pod", pod.Name, "err", err.Error())
			return ctrl.Result{RequeueAfter: standbyPoll}
		}
		r.Recorder.Eventf(vmi, pod, corev1.EventTypeNormal, "GuestReleased", "Move", "the guest starts on node %s", pod.Spec.NodeName)
	}
	return ctrl.Result{} // kubelet's probe says when the guest runs
}

// ask is the phase of a launcher, empty while it does not answer: a launcher that
// has just started has no socket yet.
func (r *Reconciler) ask(ctx context.Context, pod *corev1.Pod) launcherrpcv1.Phase {
	phase, err := r.Launcher.Phase(ctx, pod)
	if err != nil {
		log.FromContext(ctx).V(1).Info("a standby launcher does not answer yet", "pod", pod.Name, "err", err.Error())
		return ""
	}
	return phase
}

// moved notes the end of a move whose guest runs.
func (r *Reconciler) moved(vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod) {
	if !stepIs(vmi, v1alpha1.MoveStarting) {
		return
	}
	m := vmi.Status.Move
	m.Step, m.To, m.Message, m.RunningAt = v1alpha1.MoveDone, pod.Spec.NodeName, "", &metav1.Time{Time: r.Now()}
	vmi.Status.EvacuationNodeName = ""
	r.condition(vmi, v1alpha1.ConditionEvictionRequested, metav1.ConditionFalse, "Moved", "the guest runs on node "+m.To)
	r.Recorder.Eventf(vmi, pod, corev1.EventTypeNormal, "GuestMoved", "Move", "the guest moved from node %s to node %s", m.From, m.To)
}

// isStandby tells whether a pod was made to wait for a release.
func isStandby(pod *corev1.Pod) bool {
	for _, c := range pod.Spec.Containers {
		for _, e := range c.Env {
			if e.Name == launcherrpcv1.EnvStandby && e.Value == "true" {
				return true
			}
		}
	}
	return false
}
