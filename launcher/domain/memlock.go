package domain

// MemoryLock is the lock limit in bytes that libvirt sets for QEMU before its
// start: factor x memory + 1 GiB, where the factor counts every NVMe disk once,
// and VFIO devices once in all or, behind a vIOMMU, once each. Zero when nothing
// locks memory. The caller's own hard limit must be at least this.
//
// Source: qemuDomainGetMemLockLimitBytes of libvirt 11.3; the same up to 12.8.
func MemoryLock(memory uint64, vfio, nvme int, viommu bool) uint64 {
	if vfio == 0 && nvme == 0 {
		return 0
	}
	factor := nvme
	switch {
	case vfio > 0 && viommu:
		factor += vfio
	case vfio > 0:
		factor++
	}
	return uint64(factor)*memory + gib
}
