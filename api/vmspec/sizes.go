package vmspec

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// MiB is 2^20 bytes.
const MiB = 1 << 20

// maxVCPUs is KVM's limit on x86.
const maxVCPUs = 4096

// VCPUs is the number of the guest's processors: sockets x cores x threads;
// where none of them is given, the CPUs of resources.requests (else limits)
// rounded up, else 1. Errors are of class [ErrInvalid].
func VCPUs(spec *v1alpha1.VirtualMachineInstanceSpec) (int, error) {
	c := spec.Domain.CPU
	if c == nil || (c.Cores == 0 && c.Sockets == 0 && c.Threads == 0) {
		for _, list := range []corev1.ResourceList{spec.Domain.Resources.Requests, spec.Domain.Resources.Limits} {
			if q, ok := list[corev1.ResourceCPU]; ok {
				n := (q.MilliValue() + 999) / 1000
				if n < 1 || n > maxVCPUs {
					return 0, Errorf("spec.domain.resources", "asks for %s CPUs, want 1 to %d", q.String(), maxVCPUs)
				}
				return int(n), nil
			}
		}
		return 1, nil
	}
	n := uint64(1)
	for _, f := range []uint32{c.Cores, c.Sockets, c.Threads} {
		// Bounded in each step, so that the product cannot overflow.
		n *= uint64(max(f, 1))
		if n > maxVCPUs {
			return 0, Errorf("spec.domain.cpu", "sockets x cores x threads is more than %d", maxVCPUs)
		}
	}
	return int(n), nil
}

// MemoryBytes is the guest's memory: memory.guest, else the memory of
// resources.requests, else of limits; rounded down to whole MiB. Errors are of
// class [ErrInvalid].
func MemoryBytes(spec *v1alpha1.VirtualMachineInstanceSpec) (uint64, error) {
	d := &spec.Domain
	field := "spec.domain.memory.guest"
	var bytes int64
	switch {
	case d.Memory != nil && d.Memory.Guest != nil:
		bytes = d.Memory.Guest.Value()
	default:
		q, ok := d.Resources.Requests[corev1.ResourceMemory]
		if !ok {
			q, ok = d.Resources.Limits[corev1.ResourceMemory]
		}
		if !ok {
			return 0, Errorf(field, "is not set: say how much memory the guest sees, such as 4Gi")
		}
		field, bytes = "spec.domain.resources.requests.memory", q.Value()
	}
	// 128 TiB is far above any machine and keeps sums below 2^63.
	if bytes < 16*MiB || bytes > 128<<40 {
		return 0, Errorf(field, "is %d bytes, want 16Mi to 128Ti", bytes)
	}
	return uint64(bytes) / MiB * MiB, nil
}

// HugepageBytes is the size of the guest's huge pages, 0 for normal memory.
// Errors are of class [ErrInvalid].
func HugepageBytes(spec *v1alpha1.VirtualMachineInstanceSpec) (uint64, error) {
	m := spec.Domain.Memory
	if m == nil || m.Hugepages == nil {
		return 0, nil
	}
	switch m.Hugepages.PageSize {
	case "2Mi":
		return 2 * MiB, nil
	case "1Gi":
		return 1024 * MiB, nil
	}
	return 0, Errorf("spec.domain.memory.hugepages.pageSize", "is %q, want 2Mi or 1Gi", m.Hugepages.PageSize)
}
