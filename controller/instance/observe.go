package instance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// observe copies what the pod says into the status, and says when to look again, 0
// for not by itself.
func (r *Reconciler) observe(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod) (again time.Duration, err error) {
	s := &vmi.Status
	s.Attempt, s.PodName, s.PodUID, s.NodeName = attempt(vmi), pod.Name, pod.UID, pod.Spec.NodeName
	r.condition(vmi, v1alpha1.ConditionPodCreated, metav1.ConditionTrue, "Created", "")
	if err := r.devices(ctx, vmi, pod); err != nil {
		return 0, err
	}
	s.Interfaces = interfaces(vmi, pod)
	c := compute(pod)
	switch {
	case pod.Status.Phase == corev1.PodSucceeded && taken(pod, c):
		// Its guest shut down in order, but nobody in it wanted that: for the run
		// strategy it is a failure.
		o := outcome(pod, c)
		o.Reason, o.Message = takenBy(pod)
		r.ended(vmi, v1alpha1.VMIFailed, o)
		r.Recorder.Eventf(vmi, pod, corev1.EventTypeWarning, o.Reason, "Observe", "%s", o.Message)
	case pod.Status.Phase == corev1.PodSucceeded:
		r.ended(vmi, v1alpha1.VMISucceeded, outcome(pod, c))
		r.Recorder.Eventf(vmi, pod, corev1.EventTypeNormal, "GuestEnded", "Observe", "the guest shut down: %s", s.Outcome.Message)
	case pod.Status.Phase == corev1.PodFailed:
		r.ended(vmi, v1alpha1.VMIFailed, outcome(pod, c))
		r.Recorder.Eventf(vmi, pod, corev1.EventTypeWarning, s.Outcome.Reason, "Observe", "exit code %d: %s", s.Outcome.ExitCode, limit(s.Outcome.Message))
	case !pod.DeletionTimestamp.IsZero():
		// Somebody deleted the pod; what it ends with decides.
		r.condition(vmi, v1alpha1.ConditionReady, metav1.ConditionFalse, "Stopping", "the pod is being deleted, the guest shuts down")
	case c != nil && c.State.Running != nil && (guestStarted(pod, c) || s.Phase == v1alpha1.VMIRunning):
		if s.Phase != v1alpha1.VMIRunning {
			r.Recorder.Eventf(vmi, pod, corev1.EventTypeNormal, "GuestRunning", "Observe", "the guest runs on node %s", s.NodeName)
		}
		r.phase(vmi, v1alpha1.VMIRunning, "", "")
		if s.RunningSince == nil {
			s.RunningSince = s.PhaseSince
		}
		r.moved(vmi, pod)
		again = r.ready(ctx, vmi, pod, c)
	case pod.Spec.NodeName != "":
		reason, message := waiting(c)
		r.phase(vmi, v1alpha1.VMIScheduled, reason, message)
	default:
		reason, message := "", ""
		for _, pc := range pod.Status.Conditions {
			if pc.Type == corev1.PodScheduled && pc.Status == corev1.ConditionFalse {
				reason, message = pc.Reason, pc.Message
			}
		}
		r.phase(vmi, v1alpha1.VMIScheduling, reason, message)
	}
	return again, nil
}

// guestStarted tells whether the guest runs by the probes: by the startup probe
// where the owner's own readiness probe is in the pod, else by readiness.
func guestStarted(pod *corev1.Pod, c *corev1.ContainerStatus) bool {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == launcherpod.Container && pod.Spec.Containers[i].StartupProbe != nil {
			return c.Started != nil && *c.Started
		}
	}
	return c.Ready
}

// taken tells whether the guest of a pod that succeeded was shut down because
// somebody deleted or evicted its pod: it ended after that was asked for.
func taken(pod *corev1.Pod, c *corev1.ContainerStatus) bool {
	if pod.DeletionTimestamp.IsZero() {
		return false
	}
	asked := pod.DeletionTimestamp.Time
	if s := pod.DeletionGracePeriodSeconds; s != nil {
		asked = asked.Add(-time.Duration(*s) * time.Second)
	}
	return c == nil || c.State.Terminated == nil || !c.State.Terminated.FinishedAt.Time.Before(asked)
}

// takenBy says who took a pod away, as far as the pod tells.
func takenBy(pod *corev1.Pod) (reason, message string) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return "Evicted", fmt.Sprintf("the pod was taken from node %s (%s): %s; the guest shut down", pod.Spec.NodeName, c.Reason, limit(c.Message))
		}
	}
	return "PodDeleted", fmt.Sprintf("pod %s was deleted while the guest ran; the guest shut down", pod.Name)
}

func compute(pod *corev1.Pod) *corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].Name == launcherpod.Container {
			return &pod.Status.ContainerStatuses[i]
		}
	}
	return nil
}

// waiting is why the container does not run: an image that is missing, and so on.
func waiting(c *corev1.ContainerStatus) (reason, message string) {
	if c == nil || c.State.Waiting == nil {
		return "", ""
	}
	switch w := c.State.Waiting; w.Reason {
	case "ContainerCreating", "PodInitializing":
		return "", w.Message
	default:
		return w.Reason, w.Message
	}
}

// Outcome is how the launcher of a pod that is over ended: its own words, else
// kubelet's.
func Outcome(pod *corev1.Pod) v1alpha1.LauncherOutcome { return outcome(pod, compute(pod)) }

func outcome(pod *corev1.Pod, c *corev1.ContainerStatus) v1alpha1.LauncherOutcome {
	if c == nil || c.State.Terminated == nil {
		return v1alpha1.LauncherOutcome{ExitCode: -1, Reason: orWord(pod.Status.Reason, "Unknown"), Message: limit(pod.Status.Message)}
	}
	t := c.State.Terminated
	o := v1alpha1.LauncherOutcome{ExitCode: t.ExitCode, Reason: orWord(t.Reason, "Unknown"), Message: limit(t.Message)}
	if !t.FinishedAt.IsZero() {
		o.FinishedAt = t.FinishedAt.DeepCopy()
	}
	if t.Reason == "OOMKilled" {
		// The launcher may have said something before; this is the cause.
		o.Message = "the kernel killed the pod for using more memory than its limit: give spec.domain.resources.limits.memory more room"
		return o
	}
	if said, ok := launcherrpcv1.ParseOutcome([]byte(t.Message)); ok {
		o.Reason, o.Message, o.Field, o.Address = said.Reason, limit(said.Message), said.Field, said.Address
	}
	if pod.Status.Reason == "Evicted" {
		o.Reason, o.Message = "Evicted", limit(pod.Status.Message)
	}
	return o
}

// interfaces gives the pod's address to the interface on the pod network: passt
// lets the guest use it.
func interfaces(vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod) []v1alpha1.InterfaceStatus {
	onPodNetwork := map[string]bool{}
	for _, n := range vmi.Spec.Networks {
		onPodNetwork[n.Name] = n.Pod != nil
	}
	var list []v1alpha1.InterfaceStatus
	// The one with an address comes first, for the printer column.
	for _, i := range vmi.Spec.Domain.Devices.Interfaces {
		if onPodNetwork[i.Name] && pod.Status.PodIP != "" && i.SRIOV == nil {
			list = append(list, v1alpha1.InterfaceStatus{Name: i.Name, IPAddress: pod.Status.PodIP, MAC: i.MacAddress})
		}
	}
	return list
}

// devices fills in which devices the pod holds, by the scheduler's assignment and
// kubelet's own report.
func (r *Reconciler) devices(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, pod *corev1.Pod) error {
	var inventory *v1alpha1.NodeInventory
	if pod.Spec.NodeName != "" {
		var inv v1alpha1.NodeInventory
		switch err := r.Client.Get(ctx, client.ObjectKey{Name: pod.Spec.NodeName}, &inv); {
		case err == nil:
			inventory = &inv
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("get inventory of node %s: %w", pod.Spec.NodeName, err)
		}
	}
	held, problem := Held(pod)
	list := deviceStatus(&vmi.Spec, pod, held, inventory, vmi.Status.Devices, r.Now())
	vmi.Status.Devices = list

	summary := &v1alpha1.DeviceSummary{}
	var addresses, bad []string
	for _, d := range list {
		if d.Address != "" {
			addresses = append(addresses, d.Address)
		}
		if d.Problem != "" {
			bad = append(bad, d.Name+": "+d.Problem)
		}
	}
	summary.Devices = fmt.Sprintf("%d/%d", len(addresses), len(list))
	summary.Addresses = strings.Join(addresses, ",")
	if held.Assignment != nil {
		summary.Alignment = held.Assignment.Alignment
	}
	vmi.Status.DeviceSummary = summary

	switch {
	case problem != nil:
		r.condition(vmi, v1alpha1.ConditionDevicesReady, metav1.ConditionFalse, "AssignmentDiffers", problem.Error())
	case len(bad) > 0:
		r.condition(vmi, v1alpha1.ConditionDevicesReady, metav1.ConditionFalse, "DeviceProblem", strings.Join(bad, "; "))
	case len(addresses) < len(list):
		r.condition(vmi, v1alpha1.ConditionDevicesReady, metav1.ConditionFalse, "Waiting", fmt.Sprintf("the pod holds %s devices", summary.Devices))
	default:
		r.condition(vmi, v1alpha1.ConditionDevicesReady, metav1.ConditionTrue, "Held", "")
	}
	r.aligned(vmi, held)
	return nil
}

// aligned compares the wish with what the scheduler reached.
func (r *Reconciler) aligned(vmi *v1alpha1.VirtualMachineInstance, held HeldDevices) {
	wish := vmi.Spec.Domain.Devices.Alignment
	if wish == "" || held.Assignment == nil {
		return
	}
	a, err := v1alpha1.ParseAlignment(wish)
	if err != nil {
		r.condition(vmi, v1alpha1.ConditionAligned, metav1.ConditionUnknown, "BadWish", err.Error())
		return
	}
	got := held.Assignment.Alignment
	if got == "" || withinLevel(got, a) {
		r.condition(vmi, v1alpha1.ConditionAligned, metav1.ConditionTrue, "Reached", "devices share: "+orWord(got, "a single unit"))
		return
	}
	r.condition(vmi, v1alpha1.ConditionAligned, metav1.ConditionFalse, "NotReached", fmt.Sprintf("wished for %s, the node could give %s", wish, got))
}

func withinLevel(got string, a v1alpha1.Alignment) bool {
	order := []string{"switch", "root", "numa", "socket", "other"}
	g, w := slices.Index(order, got), slices.Index(order, a.Level.String())
	return g >= 0 && w >= 0 && g <= w
}

// errDiffers says that kubelet gave other devices than the scheduler chose.
var errDiffers = errors.New("kubelet gave other devices than the scheduler chose")

// since keeps the time of a device that was there before.
func since(old []v1alpha1.DeviceStatus, name, address string, now time.Time) *metav1.Time {
	for _, d := range old {
		if d.Name == name && d.Address == address && d.Since != nil {
			return d.Since
		}
	}
	return &metav1.Time{Time: now.Truncate(time.Second)}
}
