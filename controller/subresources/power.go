package subresources

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/power"
)

// decision is one of package power.
type decision func(*v1alpha1.VirtualMachine, *v1alpha1.VirtualMachineInstance) (power.Change, error)

func (h *Handler) start(w http.ResponseWriter, r *http.Request, t target) error {
	var o subresourcesv1alpha1.StartOptions
	if err := decode(r, &o, "StartOptions", &o.TypeMeta); err != nil {
		return err
	}
	return h.change(w, r, t, power.Start)
}

func (h *Handler) stop(w http.ResponseWriter, r *http.Request, t target) error {
	var o subresourcesv1alpha1.StopOptions
	if err := decode(r, &o, "StopOptions", &o.TypeMeta); err != nil {
		return err
	}
	if err := period(o.GracePeriodSeconds); err != nil {
		return err
	}
	return h.change(w, r, t, func(vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance) (power.Change, error) {
		return power.Stop(vm, vmi, o.GracePeriodSeconds)
	})
}

func (h *Handler) restart(w http.ResponseWriter, r *http.Request, t target) error {
	var o subresourcesv1alpha1.RestartOptions
	if err := decode(r, &o, "RestartOptions", &o.TypeMeta); err != nil {
		return err
	}
	if err := period(o.GracePeriodSeconds); err != nil {
		return err
	}
	return h.change(w, r, t, func(vm *v1alpha1.VirtualMachine, vmi *v1alpha1.VirtualMachineInstance) (power.Change, error) {
		return power.Restart(vm, vmi, o.GracePeriodSeconds)
	})
}

// maxGrace is the longest grace period, in seconds: a day.
const maxGrace = 24 * 60 * 60

func period(seconds *int64) error {
	if seconds != nil && (*seconds < 0 || *seconds > maxGrace) {
		return apierrors.NewBadRequest(fmt.Sprintf("gracePeriodSeconds: %d: want 0 to %d", *seconds, maxGrace))
	}
	return nil
}

// attempts bounds how often a change is decided anew after somebody else wrote.
const attempts = 5

// change decides and writes; another writer in between makes it decide again.
func (h *Handler) change(w http.ResponseWriter, r *http.Request, t target, decide decision) error {
	for attempt := 1; ; attempt++ {
		said, err := h.try(r.Context(), t, decide)
		switch {
		case err == nil:
			who := "somebody"
			if u, ok := request.UserFrom(r.Context()); ok {
				who = u.GetName()
			}
			klog.FromContext(r.Context()).Info("carried out a request", "subresource", t.subresource, "machine", t.key().String(), "user", who, "dryRun", t.dryRun)
			done(w, said)
			return nil
		case errors.Is(err, power.ErrConflict):
			return refused(t, err)
		case !apierrors.IsConflict(err) || attempt == attempts:
			return err
		}
	}
}

func (h *Handler) try(ctx context.Context, t target, decide decision) (said string, err error) {
	var vm v1alpha1.VirtualMachine
	if err := h.Client.Get(ctx, t.key(), &vm); err != nil {
		return "", err
	}
	if !vm.DeletionTimestamp.IsZero() {
		return "", apierrors.NewBadRequest(fmt.Sprintf("virtual machine %q is being deleted", t.name))
	}
	vmi := &v1alpha1.VirtualMachineInstance{}
	switch err := h.Client.Get(ctx, t.key(), vmi); {
	case apierrors.IsNotFound(err):
		vmi = nil
	case err != nil:
		return "", err
	}
	c, err := decide(&vm, vmi)
	if err != nil {
		return "", err
	}
	if c.RunStrategy != "" {
		before := vm.DeepCopy()
		vm.Spec.RunStrategy = c.RunStrategy
		var dry []client.PatchOption
		if t.dryRun {
			dry = append(dry, client.DryRunAll)
		}
		if err := h.Client.Patch(ctx, &vm, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), dry...); err != nil {
			return "", err
		}
	}
	if c.Requests != nil && len(c.Requests)+len(vm.Status.StateChangeRequests) > 0 {
		before := vm.DeepCopy()
		vm.Status.StateChangeRequests = c.Requests
		var dry []client.SubResourcePatchOption
		if t.dryRun {
			dry = append(dry, client.DryRunAll)
			// What the dry run above gave has a version that does not exist.
			before.ResourceVersion, vm.ResourceVersion = "", ""
			return c.Said, h.Client.Status().Patch(ctx, &vm, client.MergeFrom(before), dry...)
		}
		if err := h.Client.Status().Patch(ctx, &vm, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), dry...); err != nil {
			return "", err
		}
	}
	return c.Said, nil
}
