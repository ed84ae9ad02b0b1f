package preflight

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/launcher/failure"
	"github.com/kubevfio/kubevfio/topology"
)

// Given maps resource names to the unit IDs that the container was given.
type Given map[string][]topology.Address

// Agree compares the scheduler's decision with what the device plugins put into
// the environment, and gives the devices in the decision's order, which is the
// order in which the guest shall see them. Without an assignment the environment
// alone counts.
//
// The launcher does not know its container's name unless containerName says it;
// then exactly one container of the assignment must match.
func Agree(assignment *v1alpha1.Assignment, env Given, containerName string) (Given, error) {
	if assignment == nil {
		return env, nil
	}
	candidates := slices.Sorted(maps.Keys(assignment.Containers))
	if containerName != "" {
		candidates = []string{containerName}
	}
	var reasons []string
	for _, c := range candidates {
		want := assignment.Containers[c]
		diff := difference(want, env)
		if diff == "" {
			return want, nil
		}
		reasons = append(reasons, fmt.Sprintf("container %s: %s", c, diff))
	}
	if len(candidates) == 0 && len(env) == 0 {
		return env, nil
	}
	if len(reasons) == 0 {
		reasons = []string{"it names no container"}
	}
	return nil, failure.Newf(launcherrpcv1.ReasonAssignment,
		"kubelet gave this container other devices than the scheduler chose (annotation %s): %s; delete the pod so that it is placed again",
		v1alpha1.AssignmentAnnotation, strings.Join(reasons, "; "))
}

// difference says in words how two sets of devices differ; the order within a
// resource does not count.
func difference(want, got map[string][]topology.Address) string {
	var diffs []string
	for _, r := range slices.Sorted(maps.Keys(union(want, got))) {
		missing := without(want[r], got[r])
		extra := without(got[r], want[r])
		if len(missing) > 0 {
			diffs = append(diffs, fmt.Sprintf("%s was assigned %s, the environment has %s", r, list(want[r]), list(got[r])))
		} else if len(extra) > 0 {
			diffs = append(diffs, fmt.Sprintf("%s in the environment also has %s, which was not assigned", r, list(extra)))
		}
	}
	return strings.Join(diffs, ", ")
}

func union(a, b map[string][]topology.Address) map[string]bool {
	u := map[string]bool{}
	for r := range a {
		u[r] = true
	}
	for r := range b {
		u[r] = true
	}
	return u
}

func without(a, b []topology.Address) []topology.Address {
	var out []topology.Address
	for _, x := range a {
		if !slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}

func list(a []topology.Address) string {
	if len(a) == 0 {
		return "none"
	}
	s := make([]string, len(a))
	for i := range a {
		s[i] = a[i].String()
	}
	return strings.Join(s, ",")
}

// Viable checks that VFIO can take each given device: it exists, has an IOMMU
// group, is bound to a VFIO driver, and nobody else's driver is in its group.
func Viable(h *topology.Host, given Given) error {
	byAddress := make(map[topology.Address]*topology.Function, len(h.Functions))
	byGroup := map[int][]*topology.Function{}
	for i := range h.Functions {
		f := &h.Functions[i]
		byAddress[f.Address] = f
		byGroup[f.IOMMUGroup] = append(byGroup[f.IOMMUGroup], f)
	}
	for _, r := range slices.Sorted(maps.Keys(given)) {
		for _, a := range given[r] {
			f, ok := byAddress[a]
			if !ok {
				return notViable(a, "device %s (resource %s) is not in this host's /sys: it was taken away, or the environment is of another host", a, r)
			}
			if err := viable(f, r, byGroup[f.IOMMUGroup]); err != nil {
				return err
			}
		}
	}
	return nil
}

func viable(f *topology.Function, resource string, group []*topology.Function) error {
	a := f.Address
	switch {
	case f.IOMMUGroup < 0:
		return notViable(a, "device %s (resource %s) has no IOMMU group: the host's IOMMU is off (intel_iommu=on or amd_iommu=on, and in the firmware's setup)", a, resource)
	case f.Driver == "":
		return notViable(a, "device %s (resource %s) has no driver; it must be bound to vfio-pci", a, resource)
	case !vfioDriver(f):
		return notViable(a, "device %s (resource %s) is bound to %s, not to vfio-pci: the host uses it", a, resource, f.Driver)
	}
	for _, m := range group {
		if m.Address == a || m.Driver == "" || vfioDriver(m) || harmless(m.Driver) {
			continue
		}
		return notViable(m.Address, "IOMMU group %d of device %s (resource %s) is not viable: %s in it is bound to %s; bind it to vfio-pci too or unbind it",
			f.IOMMUGroup, a, resource, m.Address, m.Driver)
	}
	return nil
}

func notViable(a topology.Address, format string, args ...any) error {
	return failure.Address(launcherrpcv1.ReasonDeviceNotViable, a.String(), fmt.Errorf(format, args...))
}

// vfioDriver says whether a function's driver is VFIO's own or one of the
// vendors' variants: those make a vfio character device, where the kernel has
// them, and by convention carry the word in their name.
func vfioDriver(f *topology.Function) bool {
	return f.VFIODev != "" || strings.Contains(strings.ReplaceAll(f.Driver, "-", "_"), "vfio")
}

// harmless drivers may share a group with a VFIO device: they do no DMA of their
// own (kernel: driver_managed_dma).
func harmless(driver string) bool {
	return driver == "pcieport" || driver == "pci-stub" || driver == "shpchp"
}
