package eviction

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Path of the webhook.
const Path = "/evictions"

// DefaultPatience is how long evictions of one pod are put off at most.
const DefaultPatience = 5 * time.Minute

// Handler answers.
type Handler struct {
	// Client reads launcher pods and instances from caches and writes status.
	Client client.Client
	// Patience with one pod, [DefaultPatience] when 0.
	Patience time.Duration
	// Now is the clock.
	Now func() time.Time

	mu    sync.Mutex
	first map[types.UID]time.Time
}

// New makes a handler.
func New(c client.Client, patience time.Duration, now func() time.Time) *Handler {
	if patience == 0 {
		patience = DefaultPatience
	}
	return &Handler{Client: c, Patience: patience, Now: now, first: map[types.UID]time.Time{}}
}

// Handle answers one question. It lets go whatever it cannot judge.
func (h *Handler) Handle(ctx context.Context, req admission.Request) admission.Response {
	if req.Kind.Kind != "Eviction" {
		return admission.Allowed("not an eviction")
	}
	why, err := h.hold(ctx, req)
	if err != nil {
		log.FromContext(ctx).Error(err, "an eviction is let go unjudged", "namespace", req.Namespace, "pod", req.Name)
		return admission.Allowed("").WithWarnings("kubevfio: " + err.Error())
	}
	if why == "" {
		return admission.Allowed("")
	}
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{
		Allowed: false,
		// The answer that a disruption budget gives: kubectl drain and others try
		// again. Without a time, with which clients would try again silently.
		Result: &metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests,
			Message: why,
		},
	}}
}

// hold says why the eviction has to wait; empty when it need not.
func (h *Handler) hold(ctx context.Context, req admission.Request) (why string, err error) {
	var pod corev1.Pod
	if err := h.Client.Get(ctx, client.ObjectKey{Namespace: req.Namespace, Name: req.Name}, &pod); err != nil {
		return "", client.IgnoreNotFound(err) // the cache has launcher pods only
	}
	owner := metav1.GetControllerOf(&pod)
	if owner == nil || owner.Kind != "VirtualMachineInstance" || !pod.DeletionTimestamp.IsZero() || pod.Spec.NodeName == "" {
		return "", nil
	}
	var vmi v1alpha1.VirtualMachineInstance
	if err := h.Client.Get(ctx, client.ObjectKey{Namespace: req.Namespace, Name: owner.Name}, &vmi); err != nil {
		return "", client.IgnoreNotFound(err)
	}
	s := &vmi.Status
	switch {
	case vmi.UID != owner.UID, !vmi.DeletionTimestamp.IsZero(), vmi.Spec.EvictionStrategy == v1alpha1.EvictionNone:
		return "", nil
	case s.PodUID != pod.UID || s.Phase != v1alpha1.VMIRunning:
		// A standby pod, or one whose guest does not run yet: another one is made.
		return "", nil
	}
	dry := req.DryRun != nil && *req.DryRun || dryRun(req.Object.Raw)
	if h.impatient(&pod, dry) {
		return "", nil
	}
	if !dry && s.EvacuationNodeName != pod.Spec.NodeName {
		before := vmi.DeepCopy()
		s.EvacuationNodeName = pod.Spec.NodeName
		// No lock on the version: this field says the same whoever writes it.
		if err := h.Client.Status().Patch(ctx, &vmi, client.MergeFrom(before)); err != nil && !apierrors.IsNotFound(err) {
			return "", fmt.Errorf("note that the guest shall leave node %s: %w", pod.Spec.NodeName, err)
		}
	}
	state := "a standby pod is being made"
	if m := s.Move; m != nil && m.Message != "" && m.From == pod.Spec.NodeName {
		state = m.Message
	}
	return fmt.Sprintf("the guest of VirtualMachineInstance %s/%s is being moved to another node (%s); try again", vmi.Namespace, vmi.Name, state), nil
}

// impatient tells whether the pod's evictions were put off long enough.
func (h *Handler) impatient(pod *corev1.Pod, dry bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.Now()
	for uid, t := range h.first {
		// Nobody asked again after it was let go.
		if now.Sub(t) > 4*h.Patience {
			delete(h.first, uid)
		}
	}
	t, ok := h.first[pod.UID]
	if !ok && !dry {
		h.first[pod.UID] = now
	}
	return ok && now.Sub(t) > h.Patience
}

// dryRun reads the delete options of an eviction.
func dryRun(raw []byte) bool {
	var e policyv1.Eviction
	if err := yaml.Unmarshal(raw, &e); err != nil || e.DeleteOptions == nil {
		return false
	}
	return len(e.DeleteOptions.DryRun) > 0
}
