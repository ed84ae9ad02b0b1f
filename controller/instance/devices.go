package instance

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// HeldDevices is what two independent sources say about a pod's devices.
type HeldDevices struct {
	// Assignment is the scheduler's decision; nil when there is none that is
	// valid for this pod.
	Assignment *v1alpha1.Assignment
	// ByResource are the launcher container's devices in the order in which the
	// guest sees them: the assignment's where it exists, else kubelet's.
	ByResource map[string][]string
	// Reported is true when kubelet has reported device IDs.
	Reported bool
}

// Held reads a pod's devices from the assignment and from kubelet's
// allocatedResourcesStatus. The order of the latter means nothing, so they are
// compared as sets; a difference is the error.
func Held(pod *corev1.Pod) (HeldDevices, error) {
	held := HeldDevices{ByResource: map[string][]string{}}
	reported := map[string][]string{}
	if c := compute(pod); c != nil {
		for _, status := range c.AllocatedResourcesStatus {
			resource := string(status.Name)
			if strings.HasPrefix(resource, v1alpha1.SlotPrefix) {
				continue
			}
			for _, d := range status.Resources {
				reported[resource] = append(reported[resource], string(d.ResourceID))
			}
			held.Reported = true
		}
	}
	for r, ids := range reported {
		held.ByResource[r] = slices.Sorted(slices.Values(ids))
	}
	text, ok := pod.Annotations[v1alpha1.AssignmentAnnotation]
	if !ok {
		return held, nil
	}
	a, err := v1alpha1.DecodeAssignment(text)
	if err != nil {
		return held, err
	}
	if a.PodUID != string(pod.UID) {
		return held, fmt.Errorf("%w: it is about pod UID %s", v1alpha1.ErrAssignment, a.PodUID)
	}
	held.Assignment = a
	for r, units := range a.Containers[launcherpod.Container] {
		var ids []string
		for _, u := range units {
			ids = append(ids, u.String())
		}
		if held.Reported && !slices.Equal(slices.Sorted(slices.Values(ids)), held.ByResource[r]) {
			err = fmt.Errorf("%w: %s: chosen %s, given %s", errDiffers, r, strings.Join(ids, ","), strings.Join(held.ByResource[r], ","))
			continue
		}
		held.ByResource[r] = ids
	}
	return held, err
}

// deviceStatus gives the devices of a resource to the entries of the spec in the
// order of vmspec.Requests, as the launcher does.
func deviceStatus(spec *v1alpha1.VirtualMachineInstanceSpec, pod *corev1.Pod, held HeldDevices, inv *v1alpha1.NodeInventory,
	old []v1alpha1.DeviceStatus, now time.Time,
) []v1alpha1.DeviceStatus {
	next := map[string]int{}
	var list []v1alpha1.DeviceStatus
	for _, request := range vmspec.Requests(spec) {
		d := v1alpha1.DeviceStatus{Name: request.Name, Resource: request.Resource}
		ids := held.ByResource[request.Resource]
		if n := next[request.Resource]; n < len(ids) {
			next[request.Resource]++
			d.Address, d.Node = ids[n], pod.Spec.NodeName
			d.Since = since(old, d.Name, d.Address, now)
			describe(&d, inv)
		}
		list = append(list, d)
	}
	return list
}

// describe adds what the node's inventory knows about the unit.
func describe(d *v1alpha1.DeviceStatus, inv *v1alpha1.NodeInventory) {
	if inv == nil {
		return
	}
	for i := range inv.Spec.Units {
		u := &inv.Spec.Units[i]
		if u.ID != d.Address {
			continue
		}
		d.Members, d.NUMANode, d.Problem = u.Members, u.NUMA, u.NotReady
		if int(u.Kind) < len(inv.Spec.Kinds) && u.Kind >= 0 {
			k := inv.Spec.Kinds[u.Kind]
			d.Product = k.Product
			if d.Product == "" {
				d.Product = k.Vendor + ":" + k.Device
			}
		}
		d.Root = rootOf(inv, u.At)
		return
	}
	d.Problem = "the node's inventory does not have this device"
}

// rootOf walks from an attachment up to its root complex. Parents come before
// children in the table, so the walk ends.
func rootOf(inv *v1alpha1.NodeInventory, at int32) string {
	for at >= 0 && int(at) < len(inv.Spec.Attachments) {
		a := inv.Spec.Attachments[at]
		if a.Parent == nil || *a.Parent >= at {
			return a.Name
		}
		at = *a.Parent
	}
	return ""
}
