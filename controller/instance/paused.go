package instance

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// ReasonPausedByRequest of condition Paused: somebody asked for it by the API, and
// the readiness probe has not noticed yet.
const ReasonPausedByRequest = "PausedByRequest"

// Reasons of condition Ready of a guest that runs.
const (
	reasonRunning     = "GuestRunning"
	reasonPaused      = "Paused"
	reasonProbeFailed = "ProbeFailed"
	reasonResumed     = "Resumed"
)

// probeNotices is how long the pod's readiness probe, the launcher's or the owner's
// own, may take to notice a pause. Until then the word of who paused the guest counts.
func probeNotices(pod *corev1.Pod) time.Duration {
	const margin = 15 * time.Second
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == launcherpod.Container && c.ReadinessProbe != nil {
			// The API server fills in periods and thresholds that are not given.
			p := c.ReadinessProbe
			return time.Duration(p.FailureThreshold)*time.Duration(p.PeriodSeconds)*time.Second + margin
		}
	}
	return margin
}

// ready sets the conditions Ready and Paused of a guest that runs, and says when to
// look again, 0 for not by itself. A guest that is not ready may be paused, by a
// request, by somebody in the pod or by QEMU itself; only the launcher knows, and it
// is asked once.
func (r *Reconciler) ready(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod, c *corev1.ContainerStatus) (again time.Duration) {
	paused := meta.FindStatusCondition(vmi.Status.Conditions, v1alpha1.ConditionPaused)
	isPaused := paused != nil && paused.Status == metav1.ConditionTrue
	// unseen is how long the probe still has to notice a pause by a request.
	var unseen time.Duration
	if isPaused && paused.Reason == ReasonPausedByRequest {
		unseen = probeNotices(pod) - r.Now().Sub(paused.LastTransitionTime.Time)
	}
	before := meta.FindStatusCondition(vmi.Status.Conditions, v1alpha1.ConditionReady)
	known := ""
	if before != nil {
		known = before.Reason
	}
	switch {
	case c.Ready && unseen <= 0:
		meta.RemoveStatusCondition(&vmi.Status.Conditions, v1alpha1.ConditionPaused)
		r.condition(vmi, v1alpha1.ConditionReady, metav1.ConditionTrue, reasonRunning, "")
		return 0
	case c.Ready:
		again = unseen
	case isPaused:
		// Noticed: from now on the probe's word counts.
		r.condition(vmi, v1alpha1.ConditionPaused, metav1.ConditionTrue, reasonPaused, paused.Message)
	case known == reasonProbeFailed, known == reasonResumed:
		// Asked before.
	case known == reasonPaused:
		// Somebody let it go on, and the probe will say so soon.
		r.condition(vmi, v1alpha1.ConditionReady, metav1.ConditionFalse, reasonResumed, "the guest goes on; the readiness probe has not noticed yet")
		return 0
	default:
		phase, err := r.Launcher.Phase(ctx, pod)
		if err != nil {
			log.FromContext(ctx).V(1).Info("cannot ask the launcher why its guest is not ready", "pod", pod.Name, "err", err)
		}
		if phase == launcherrpcv1.PhasePaused {
			isPaused = true
			r.condition(vmi, v1alpha1.ConditionPaused, metav1.ConditionTrue, reasonPaused, "the launcher says that the guest is paused")
		}
	}
	if isPaused {
		r.condition(vmi, v1alpha1.ConditionReady, metav1.ConditionFalse, reasonPaused, "the guest is paused: kubectl vfio unpause "+vmi.Name)
		return again
	}
	if known != reasonResumed {
		r.condition(vmi, v1alpha1.ConditionReady, metav1.ConditionFalse, reasonProbeFailed, "the launcher's readiness probe fails; see the pod's events")
	}
	return again
}
