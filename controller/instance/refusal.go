package instance

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

const (
	// maxAttempts bounds how many pods of one instance may be refused.
	maxAttempts = 10
	// firstAvoid is how long a node is avoided after its first refusal; it
	// doubles with each further one up to maxAvoid.
	firstAvoid = time.Minute
	maxAvoid   = 16 * time.Minute
	// firstRetry is the pause before the second pod; it doubles up to maxRetry.
	firstRetry = time.Second
	maxRetry   = time.Minute
)

// kubeletRefused tells a pod that kubelet did not admit from one whose container
// ended: a refused pod is Failed with a reason of its own and no container ever
// had a state other than waiting. Reasons: TopologyAffinityError,
// UnexpectedAdmissionError, OutOfcpu and the like, NodeAffinity, and after a
// reboot UnexpectedAdmissionError by plugins that are not back yet.
func kubeletRefused(pod *corev1.Pod) (reason string, ok bool) {
	if pod.Status.Phase != corev1.PodFailed || pod.Status.Reason == "" {
		return "", false
	}
	switch pod.Status.Reason {
	case "Evicted", "NodeLost", "Terminated", "NodeShutdown", "DeadlineExceeded", "Preempting":
		// These end pods that may have run.
		return "", false
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil {
			return "", false
		}
	}
	return pod.Status.Reason, true
}

// replace forgets a refused pod, remembers the node and lets the next step make
// another pod.
func (r *Reconciler) replace(vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod, reason string) (ctrl.Result, error) {
	now := r.Now()
	if attempt(vmi) >= maxAttempts {
		r.ended(vmi, v1alpha1.VMIFailed, v1alpha1.LauncherOutcome{
			ExitCode: -1, Reason: reason,
			Message: fmt.Sprintf("%d pods were refused by kubelet, the last on node %s: %s", maxAttempts, pod.Spec.NodeName, pod.Status.Message),
		})
		return ctrl.Result{}, nil
	}
	remember(vmi, pod, reason, now)
	r.Recorder.Eventf(vmi, pod, corev1.EventTypeWarning, "RefusedByNode", "ReplacePod",
		"kubelet of node %s refused pod %s (%s: %s); another node is tried, this one is avoided for a while",
		pod.Spec.NodeName, pod.Name, reason, pod.Status.Message)
	// The status is written before the refused pod is deleted (by the next step):
	// the other way round a lost write would look like a pod deleted by somebody.
	vmi.Status.Attempt = attempt(vmi) + 1
	vmi.Status.PodName, vmi.Status.PodUID, vmi.Status.NodeName = "", "", ""
	vmi.Status.Devices, vmi.Status.DeviceSummary = nil, nil
	r.phase(vmi, v1alpha1.VMIPending, reason, fmt.Sprintf("node %s refused the pod: %s", pod.Spec.NodeName, pod.Status.Message))
	return ctrl.Result{RequeueAfter: retryAt(vmi).Sub(now)}, nil
}

// remember adds the node to the refusals and drops those that are long over.
func remember(vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod, reason string, now time.Time) {
	refusal := v1alpha1.NodeRefusal{Node: pod.Spec.NodeName, Reason: reason, Message: limit(pod.Status.Message), Count: 1}
	kept := vmi.Status.Refusals[:0:0]
	for _, old := range vmi.Status.Refusals {
		switch {
		case old.Node == refusal.Node:
			refusal.Count += old.Count
		case old.Until.Add(maxAvoid).After(now):
			kept = append(kept, old)
		}
	}
	refusal.Until = metav1.NewTime(now.Add(backoff(firstAvoid, maxAvoid, refusal.Count)))
	vmi.Status.Refusals = append(kept, refusal)
}

// retryAt is when the next pod may be made.
func retryAt(vmi *v1alpha1.VirtualMachineInstance) time.Time {
	if vmi.Status.Attempt <= 1 || vmi.Status.PhaseSince == nil {
		return time.Time{}
	}
	return vmi.Status.PhaseSince.Add(backoff(firstRetry, maxRetry, vmi.Status.Attempt-1))
}

// backoff doubles first with each count after the first, up to most.
func backoff(first, most time.Duration, count int32) time.Duration {
	for d := first; ; d *= 2 {
		if count--; count <= 0 || d >= most {
			return min(d, most)
		}
	}
}

// stopGrace is the period of StopGraceAnnotation, nil without one.
func stopGrace(vmi *v1alpha1.VirtualMachineInstance) *int64 {
	n, err := strconv.ParseInt(vmi.Annotations[StopGraceAnnotation], 10, 32)
	if err != nil || n < 0 {
		return nil
	}
	return &n
}
