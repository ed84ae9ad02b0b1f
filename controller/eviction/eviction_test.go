package eviction

import (
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

func objects() (*corev1.Pod, *v1alpha1.VirtualMachineInstance) {
	vmi := &v1alpha1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "vms", Name: "web", UID: "i1"}}
	vmi.Status.Phase, vmi.Status.PodUID, vmi.Status.NodeName = v1alpha1.VMIRunning, "p1", "node-a"
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "vms", Name: "web-0123456789", UID: "p1",
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(vmi, v1alpha1.GroupVersion.WithKind("VirtualMachineInstance"))},
	}}
	pod.Spec.NodeName = "node-a"
	return pod, vmi
}

func ask(name string) admission.Request {
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Kind: metav1.GroupVersionKind{Group: "policy", Version: "v1", Kind: "Eviction"}, Namespace: "vms", Name: name,
	}}
}

func newHandler(t *testing.T, now func() time.Time, o ...client.Object) *Handler {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return New(fake.NewClientBuilder().WithScheme(s).WithObjects(o...).WithStatusSubresource(&v1alpha1.VirtualMachineInstance{}).Build(), time.Minute, now)
}

func TestWhoIsHeld(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*corev1.Pod, *v1alpha1.VirtualMachineInstance, *admission.Request)
		held   bool
		noted  bool
	}{
		"a running guest": {func(*corev1.Pod, *v1alpha1.VirtualMachineInstance, *admission.Request) {}, true, true},
		"another's pod":   {func(_ *corev1.Pod, _ *v1alpha1.VirtualMachineInstance, r *admission.Request) { r.Name = "db-abcdef" }, false, false},
		"a plain pod":     {func(p *corev1.Pod, _ *v1alpha1.VirtualMachineInstance, _ *admission.Request) { p.OwnerReferences = nil }, false, false},
		"a standby pod":   {func(_ *corev1.Pod, v *v1alpha1.VirtualMachineInstance, _ *admission.Request) { v.Status.PodUID = "p0" }, false, false},
		"a guest that starts": {func(_ *corev1.Pod, v *v1alpha1.VirtualMachineInstance, _ *admission.Request) {
			v.Status.Phase = v1alpha1.VMIScheduled
		}, false, false},
		"strategy None": {func(_ *corev1.Pod, v *v1alpha1.VirtualMachineInstance, _ *admission.Request) {
			v.Spec.EvictionStrategy = v1alpha1.EvictionNone
		}, false, false},
		"a former instance's pod": {func(_ *corev1.Pod, v *v1alpha1.VirtualMachineInstance, _ *admission.Request) { v.UID = "i2" }, false, false},
		"a dry run":               {func(_ *corev1.Pod, _ *v1alpha1.VirtualMachineInstance, r *admission.Request) { r.DryRun = new(true) }, true, false},
		"a dry run by options": {func(_ *corev1.Pod, _ *v1alpha1.VirtualMachineInstance, r *admission.Request) {
			r.Object.Raw = []byte(`{"kind":"Eviction","deleteOptions":{"dryRun":["All"]}}`)
		}, true, false},
		"not an eviction": {func(_ *corev1.Pod, _ *v1alpha1.VirtualMachineInstance, r *admission.Request) { r.Kind.Kind = "Pod" }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			pod, vmi := objects()
			req := ask(pod.Name)
			tc.change(pod, vmi, &req)
			h := newHandler(t, time.Now, pod, vmi)
			resp := h.Handle(t.Context(), req)
			if resp.Allowed == tc.held {
				t.Fatalf("allowed %v: %+v", resp.Allowed, resp.Result)
			}
			if tc.held && (resp.Result.Code != http.StatusTooManyRequests || !strings.Contains(resp.Result.Message, "vms/web")) {
				t.Errorf("result %+v", resp.Result)
			}
			var now v1alpha1.VirtualMachineInstance
			if err := h.Client.Get(t.Context(), client.ObjectKeyFromObject(vmi), &now); err != nil {
				t.Fatal(err)
			}
			if noted := now.Status.EvacuationNodeName == "node-a"; noted != tc.noted {
				t.Errorf("evacuationNodeName %q", now.Status.EvacuationNodeName)
			}
		})
	}
}

// However often it is asked, it lets the pod go in the end.
func TestPatienceEnds(t *testing.T) {
	pod, vmi := objects()
	now := time.Now()
	h := newHandler(t, func() time.Time { return now }, pod, vmi)
	held := 0
	for range 40 {
		if !h.Handle(t.Context(), ask(pod.Name)).Allowed {
			held++
		}
		now = now.Add(5 * time.Second)
	}
	if held < 12 || held > 14 {
		t.Errorf("held %d times in 5 s steps, want a minute's worth", held)
	}
}
