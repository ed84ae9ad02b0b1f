package subresources

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/instance"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// options of pause, unpause and softreboot have nothing but their type.
type noOptions struct {
	metav1.TypeMeta `json:",inline"`
}

// tell is pause, unpause and softreboot.
func (h *Handler) tell(w http.ResponseWriter, r *http.Request, t target) error {
	var o noOptions
	if err := decode(r, &o, routes()[subresourcesv1alpha1.Instances][t.subresource].kind, &o.TypeMeta); err != nil {
		return err
	}
	vmi, pod, err := h.running(r.Context(), t)
	if err != nil {
		return err
	}
	said := map[string]string{
		subresourcesv1alpha1.Pause: "paused", subresourcesv1alpha1.Unpause: "running", subresourcesv1alpha1.SoftReboot: "asked to reboot",
	}[t.subresource]
	if t.dryRun {
		done(w, said)
		return nil
	}
	if _, err := h.Launcher.Do(r.Context(), pod, t.subresource); err != nil {
		return classed(t, err)
	}
	if err := h.paused(r.Context(), vmi, t.subresource); err != nil {
		return fmt.Errorf("the guest is %s, but its status cannot be written: %w", said, err)
	}
	done(w, said)
	return nil
}

// paused notes at once what the readiness probe will find out later.
func (h *Handler) paused(ctx context.Context, vmi *v1alpha1.VirtualMachineInstance, what string) error {
	for attempt := 1; ; attempt++ {
		before := vmi.DeepCopy()
		switch what {
		case subresourcesv1alpha1.Pause:
			meta.SetStatusCondition(&vmi.Status.Conditions, metav1.Condition{
				Type: v1alpha1.ConditionPaused, Status: metav1.ConditionTrue, Reason: instance.ReasonPausedByRequest, Message: "the guest was paused by a request",
				ObservedGeneration: vmi.Generation,
			})
		case subresourcesv1alpha1.Unpause:
			meta.RemoveStatusCondition(&vmi.Status.Conditions, v1alpha1.ConditionPaused)
		default:
			return nil
		}
		err := h.Client.Status().Patch(ctx, vmi, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		if !apierrors.IsConflict(err) || attempt == attempts {
			return client.IgnoreNotFound(err)
		}
		if err := h.Client.Get(ctx, client.ObjectKeyFromObject(vmi), vmi); err != nil {
			return client.IgnoreNotFound(err)
		}
	}
}

// document is what the launcher tells once.
func (h *Handler) document(w http.ResponseWriter, r *http.Request, t target) error {
	_, pod, err := h.running(r.Context(), t)
	if err != nil {
		return err
	}
	body, err := h.Launcher.Do(r.Context(), pod, t.subresource)
	if err != nil {
		return classed(t, err)
	}
	kind := "application/json"
	if t.subresource == subresourcesv1alpha1.Screenshot {
		kind = "image/png"
	}
	w.Header().Set("Content-Type", kind)
	// The guest made it: a browser must not take it for anything else.
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // who went away needs no answer
	return nil
}

// log is the serial console as the launcher has written it to its own log.
func (h *Handler) log(w http.ResponseWriter, r *http.Request, t target) error {
	o := &corev1.PodLogOptions{Container: launcherpod.Container}
	q := r.URL.Query()
	for name := range q {
		var err error
		switch name {
		case subresourcesv1alpha1.QueryFollow:
			o.Follow, err = strconv.ParseBool(q.Get(name))
		case subresourcesv1alpha1.QueryTail:
			var n int64
			if n, err = strconv.ParseInt(q.Get(name), 10, 64); err == nil && n < 0 {
				err = errors.New("want 0 or more")
			}
			o.TailLines = &n
		default:
			err = fmt.Errorf("is not known: want %s or %s", subresourcesv1alpha1.QueryFollow, subresourcesv1alpha1.QueryTail)
		}
		if err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("query parameter %s: %v", name, err))
		}
	}
	// Of an ended guest, too.
	_, pod, err := h.instance(r.Context(), t)
	if err != nil {
		return err
	}
	log, err := h.Logs.Open(r.Context(), pod, o)
	if err != nil {
		return err
	}
	defer log.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	_, _ = io.Copy(flushing{w, http.NewResponseController(w)}, log) // nobody to tell any more
	return nil
}

// flushing sends every piece at once.
type flushing struct {
	w http.ResponseWriter
	c *http.ResponseController
}

// Write implements io.Writer.
func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	if err := f.c.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return n, err
	}
	return n, nil
}

// noScreen tells whether a spec says that its guest has no screen.
func noScreen(vmi *v1alpha1.VirtualMachineInstance) bool {
	auto := vmi.Spec.Domain.Devices.AutoattachGraphicsDevice
	return auto != nil && !*auto
}

// keepAlive is how often a silent stream is touched: what is between drops
// connections that are silent for a minute or more.
const keepAlive = 20 * time.Second
