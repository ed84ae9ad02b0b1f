package launcherpod

import (
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
)

// Overhead is the memory in bytes that the pod needs beyond the guest's own, in
// parts, so that people can see where it comes from. The figures are upper
// bounds from measurements of the launcher with libvirt's embedded driver and
// QEMU 10.0; docs/user/virtual-machines.md explains them.
type Overhead struct {
	// Launcher is PID 1, the supervisor with libvirt's driver in it, and what
	// libvirt's probe of QEMU needs for a moment.
	Launcher int64
	// QEMU without guest memory, and 8 MiB per vCPU.
	QEMU int64
	// PageTables of guest memory: one set for KVM and, with devices, one for
	// the IOMMU; none to speak of with huge pages.
	PageTables int64
	// Devices is QEMU's state of passed-through units.
	Devices int64
	// Helpers are passt, swtpm and virtiofsd, and the screen.
	Helpers int64
}

// Total is the sum.
func (o Overhead) Total() int64 {
	return o.Launcher + o.QEMU + o.PageTables + o.Devices + o.Helpers
}

const mib = int64(vmspec.MiB)

// OverheadOf computes the overhead of a spec. Errors are of class
// [vmspec.ErrInvalid].
func OverheadOf(spec *v1alpha1.VirtualMachineInstanceSpec) (Overhead, error) {
	vcpus, err := vmspec.VCPUs(spec)
	if err != nil {
		return Overhead{}, err
	}
	guest, err := vmspec.MemoryBytes(spec)
	if err != nil {
		return Overhead{}, err
	}
	huge, err := vmspec.HugepageBytes(spec)
	if err != nil {
		return Overhead{}, err
	}
	units := int64(len(vmspec.Requests(spec)))
	o := Overhead{
		Launcher: 64 * mib,
		QEMU:     96*mib + 8*mib*int64(vcpus),
	}
	if huge == 0 {
		// 8 bytes per 4 KiB page.
		o.PageTables = int64(guest) / 512
		if units > 0 {
			o.PageTables *= 2
		}
	}
	if units > 0 {
		o.Devices = 48*mib + 8*mib*units
	}
	d := &spec.Domain.Devices
	for i := range d.Interfaces {
		if d.Interfaces[i].SRIOV == nil {
			o.Helpers += 16 * mib
		}
	}
	if d.AutoattachGraphicsDevice != nil && *d.AutoattachGraphicsDevice {
		o.Helpers += 32 * mib
	}
	if d.TPM != nil && (d.TPM.Enabled == nil || *d.TPM.Enabled) {
		o.Helpers += 32 * mib
	}
	o.Helpers += 64 * mib * int64(len(d.Filesystems))
	return o, nil
}
