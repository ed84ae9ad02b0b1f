package subresources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launchercall"
)

// Launcher talks to the launcher in a pod; see [launchercall.Caller], whose errors
// it gives.
type Launcher interface {
	Do(ctx context.Context, pod *corev1.Pod, args ...string) ([]byte, error)
	Stream(ctx context.Context, pod *corev1.Pod, in io.Reader, out io.Writer, args ...string) error
}

// Logs opens the log of a pod's container.
type Logs interface {
	Open(ctx context.Context, pod *corev1.Pod, o *corev1.PodLogOptions) (io.ReadCloser, error)
}

// Handler answers authorized requests, whose RequestInfo is in their context.
type Handler struct {
	// Client reads past caches, so that a caller sees what it did just before.
	Client   client.Client
	Launcher Launcher
	Logs     Logs
}

// target is what a request is about.
type target struct {
	namespace, name, subresource string
	dryRun                       bool
}

func (t target) key() client.ObjectKey {
	return client.ObjectKey{Namespace: t.namespace, Name: t.name}
}

// route is one subresource: its only method, kind for discovery, and what it does.
type route struct {
	method, kind string
	serve        func(*Handler, http.ResponseWriter, *http.Request, target) error
}

// routes are all subresources by resource and name.
func routes() map[string]map[string]route {
	return map[string]map[string]route{
		subresourcesv1alpha1.Machines: {
			subresourcesv1alpha1.Start:   {http.MethodPut, "StartOptions", (*Handler).start},
			subresourcesv1alpha1.Stop:    {http.MethodPut, "StopOptions", (*Handler).stop},
			subresourcesv1alpha1.Restart: {http.MethodPut, "RestartOptions", (*Handler).restart},
		},
		subresourcesv1alpha1.Instances: {
			subresourcesv1alpha1.Pause:      {http.MethodPut, "PauseOptions", (*Handler).tell},
			subresourcesv1alpha1.Unpause:    {http.MethodPut, "UnpauseOptions", (*Handler).tell},
			subresourcesv1alpha1.SoftReboot: {http.MethodPut, "SoftRebootOptions", (*Handler).tell},
			subresourcesv1alpha1.Console:    {http.MethodGet, "Console", (*Handler).stream},
			subresourcesv1alpha1.VNC:        {http.MethodGet, "VNC", (*Handler).stream},
			subresourcesv1alpha1.Screenshot: {http.MethodGet, "Screenshot", (*Handler).document},
			subresourcesv1alpha1.State:      {http.MethodGet, "State", (*Handler).document},
			subresourcesv1alpha1.GuestInfo:  {http.MethodGet, "GuestInfo", (*Handler).document},
			subresourcesv1alpha1.Log:        {http.MethodGet, "Log", (*Handler).log},
		},
	}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		fail(w, r, errors.New("the request was not looked at"))
		return
	}
	if !info.IsResourceRequest || info.APIGroup != subresourcesv1alpha1.Group {
		h.discover(w, r)
		return
	}
	rt, ok := routes()[info.Resource][info.Subresource]
	if !ok || info.Namespace == "" || info.Name == "" || info.APIVersion != subresourcesv1alpha1.Version || len(info.Parts) != 3 {
		fail(w, r, notServed(r))
		return
	}
	if r.Method != rt.method {
		w.Header().Set("Allow", rt.method)
		fail(w, r, apierrors.NewMethodNotSupported(schema.GroupResource{Group: info.APIGroup, Resource: info.Resource + "/" + info.Subresource}, strings.ToLower(r.Method)))
		return
	}
	t := target{namespace: info.Namespace, name: info.Name, subresource: info.Subresource}
	if rt.method == http.MethodPut {
		var err error
		if t.dryRun, err = dryRun(r); err != nil {
			fail(w, r, err)
			return
		}
	}
	if err := rt.serve(h, w, r, t); err != nil {
		fail(w, r, err)
	}
}

func notServed(r *http.Request) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: fmt.Sprintf("%s is not served: %s has only subresources of %s (%s) and of %s (%s)", r.URL.Path, subresourcesv1alpha1.GroupVersion,
			subresourcesv1alpha1.Machines, names(subresourcesv1alpha1.Machines), subresourcesv1alpha1.Instances, names(subresourcesv1alpha1.Instances)),
	}}
}

func names(resource string) string {
	var list []string
	for name := range routes()[resource] {
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func dryRun(r *http.Request) (bool, error) {
	values := r.URL.Query()[subresourcesv1alpha1.QueryDryRun]
	for _, v := range values {
		if v != metav1.DryRunAll {
			return false, apierrors.NewBadRequest(fmt.Sprintf("query parameter %s: %q: want %s", subresourcesv1alpha1.QueryDryRun, v, metav1.DryRunAll))
		}
	}
	return len(values) > 0, nil
}

// maxBody bounds a request's body, in bytes.
const maxBody = 64 << 10

// decode reads a body into options; an empty one leaves them alone.
func decode(r *http.Request, into any, kind string, meta *metav1.TypeMeta) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return apierrors.NewBadRequest("read the body: " + err.Error())
	case len(b) > maxBody:
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the body has more than %d bytes", maxBody))
	case strings.TrimSpace(string(b)) == "":
		return nil
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("read the body as %s: %v", kind, err))
	}
	if d.More() {
		return apierrors.NewBadRequest("read the body as " + kind + ": there is more than one document")
	}
	if meta.Kind != "" && meta.Kind != kind || meta.APIVersion != "" && meta.APIVersion != subresourcesv1alpha1.GroupVersion {
		return apierrors.NewBadRequest(fmt.Sprintf("the body is %s of %s: want %s of %s", meta.Kind, meta.APIVersion, kind, subresourcesv1alpha1.GroupVersion))
	}
	return nil
}

// instance reads an instance and its pod, for which its guest must be there.
func (h *Handler) instance(ctx context.Context, t target) (*v1alpha1.VirtualMachineInstance, *corev1.Pod, error) {
	vmi := &v1alpha1.VirtualMachineInstance{}
	if err := h.Client.Get(ctx, t.key(), vmi); err != nil {
		return nil, nil, err
	}
	if vmi.Status.PodName == "" {
		return nil, nil, conflict(t, "it has no pod yet (phase "+orNone(string(vmi.Status.Phase))+"): kubectl vfio explain vmi "+t.name)
	}
	pod := &corev1.Pod{}
	switch err := h.Client.Get(ctx, client.ObjectKey{Namespace: t.namespace, Name: vmi.Status.PodName}, pod); {
	case apierrors.IsNotFound(err):
		return nil, nil, conflict(t, "its pod "+vmi.Status.PodName+" is gone")
	case err != nil:
		return nil, nil, err
	case !metav1.IsControlledBy(pod, vmi):
		return nil, nil, conflict(t, "pod "+pod.Name+" is not its own")
	}
	return vmi, pod, nil
}

// running is as instance, of a pod that runs.
func (h *Handler) running(ctx context.Context, t target) (*v1alpha1.VirtualMachineInstance, *corev1.Pod, error) {
	vmi, pod, err := h.instance(ctx, t)
	if err == nil && pod.Status.Phase != corev1.PodRunning {
		err = conflict(t, "its pod "+pod.Name+" is "+orNone(string(pod.Status.Phase))+": kubectl vfio explain vmi "+t.name)
	}
	return vmi, pod, err
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func resource(t target) schema.GroupResource {
	kind := subresourcesv1alpha1.Instances
	if _, ok := routes()[subresourcesv1alpha1.Machines][t.subresource]; ok {
		kind = subresourcesv1alpha1.Machines
	}
	return schema.GroupResource{Group: v1alpha1.Group, Resource: kind}
}

func conflict(t target, why string) error {
	return refused(t, fmt.Errorf("%s %q: %s", resource(t).Resource, t.name, why))
}

// refused is a wish that makes no sense now. It is not StatusReasonConflict, which
// tells clients to try again.
func refused(t target, err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusConflict, Reason: "NotPossibleNow", Message: err.Error(),
		Details: &metav1.StatusDetails{Group: v1alpha1.Group, Kind: resource(t).Resource, Name: t.name},
	}}
}

// classed turns errors of the parts into those of an API.
func classed(t target, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, launchercall.ErrConflict):
		return refused(t, err)
	case errors.Is(err, launchercall.ErrNotSupported):
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusNotImplemented, Reason: "NotSupported", Message: err.Error(),
		}}
	case errors.Is(err, launchercall.ErrUnavailable):
		return apierrors.NewServiceUnavailable(err.Error())
	}
	return err
}

// fail answers with a Status.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	var known apierrors.APIStatus
	var status metav1.Status
	if errors.As(err, &known) {
		status = known.Status()
	} else {
		klog.FromContext(r.Context()).Error(err, "cannot answer a request", "path", r.URL.Path)
		status = apierrors.NewInternalError(err).Status()
	}
	status.Kind, status.APIVersion = "Status", "v1"
	if s := status.Details; s != nil && s.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(s.RetryAfterSeconds))
	}
	answer(w, int(status.Code), status)
}

// done answers a PUT.
func done(w http.ResponseWriter, said string) {
	answer(w, http.StatusOK, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess, Code: http.StatusOK, Message: said,
	})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // who went away needs no answer
}
