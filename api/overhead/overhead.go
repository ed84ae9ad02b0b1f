package overhead

import (
	"fmt"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
)

const (
	mib = uint64(vmspec.MiB)
	// entry is a page table entry's bytes.
	entry = 8
	small = 4096
	// hugePMD is the page size at which large BARs and huge pages are mapped.
	hugePMD = 2 * mib
)

// Input is what the overhead depends on.
type Input struct {
	VCPUs int
	// MemoryBytes is the guest's memory, HugepageBytes the page size or 0.
	MemoryBytes   uint64
	HugepageBytes uint64
	// Units is the number of isolation units, Functions that of their VFIO
	// functions (at least Units); BARBytes the sum of their memory BARs, 0 when
	// not known. VFs is how many of the units are virtual functions of a network
	// card, whose BARs are kilobytes.
	Units, Functions, VFs int
	BARBytes              uint64
	// VIOMMU: the guest has a virtual IOMMU.
	VIOMMU bool
	// Passt, Screen, TPM, EFI: the guest has one.
	Passt, Screen, TPM, EFI bool
	// Shares is the number of virtiofs file systems, Disks that of disks, Overlays
	// that of disks with a qcow2 overlay, IOThreads that of I/O threads.
	Shares, Disks, Overlays, IOThreads int
}

// Item is one part of the overhead.
type Item struct {
	Name  string `json:"name"`
	Bytes uint64 `json:"bytes"`
	// Why is the item's formula in words.
	Why string `json:"why"`
}

// Items are the parts that are not zero, in a fixed order.
func Items(in Input) []Item {
	var out []Item
	add := func(name string, bytes uint64, format string, args ...any) {
		if bytes > 0 {
			out = append(out, Item{name, bytes, fmt.Sprintf(format, args...)})
		}
	}
	add("launcher", 56*mib, "PID 1, the supervisor with libvirt's driver, the pages of both programs")
	add("qemu", 48*mib, "QEMU without guest memory and devices, a kernel to boot, the program's pages")
	add("vcpus", uint64(in.VCPUs)*2*mib, "2 MiB for each of %d vCPUs", in.VCPUs)
	sets := 2
	why := "the process and KVM"
	switch {
	case in.Functions > 0 && in.VIOMMU:
		sets += max(in.Units, 1)
		why += fmt.Sprintf(" and an IOMMU domain for each of %d units", max(in.Units, 1))
	case in.Functions > 0:
		sets++
		why += " and the IOMMU"
	}
	page := max(in.HugepageBytes, small)
	add("pageTables", uint64(sets)*tables(in.MemoryBytes, page), "%d sets (%s) of 8 bytes per %s page", sets, why, pageName(page))
	add("memorySlots", in.MemoryBytes/8192, "KVM's book-keeping, 1/8192 of the memory")
	if in.Functions > 0 {
		add("vfio", 8*mib+uint64(in.Functions)*2*mib, "8 MiB and 2 MiB for each of %d functions", in.Functions)
		if in.BARBytes > 0 {
			add("bars", 2*tables(in.BARBytes, hugePMD), "2 sets of 8 bytes per 2 MiB of %d MiB of BARs (kernel 6.12 or later)", in.BARBytes/mib)
		} else {
			// 256 GiB, the largest BAR seen, per unit.
			unknown := max(0, in.Units-in.VFs)
			add("bars", uint64(unknown)*2*mib, "2 MiB for each of %d units whose BARs are not known here", unknown)
		}
	}
	if in.EFI {
		add("firmware", 24*mib, "UEFI code, variables and option ROMs")
	}
	if in.Passt {
		add("passt", 32*mib, "passt and its socket buffers")
	}
	if in.Screen {
		add("screen", 32*mib, "video memory and VNC buffers")
	}
	if in.TPM {
		add("tpm", 16*mib, "swtpm")
	}
	add("shares", uint64(in.Shares)*32*mib, "32 MiB for each of %d virtiofsd", in.Shares)
	add("disks", uint64(in.Disks)*4*mib+uint64(in.Overlays)*16*mib, "4 MiB for each of %d disks, 16 MiB of map cache for each of %d overlays", in.Disks, in.Overlays)
	add("ioThreads", uint64(in.IOThreads)*2*mib, "2 MiB for each of %d I/O threads", in.IOThreads)
	return out
}

// tables is what one set of page tables takes for so many bytes.
func tables(bytes, page uint64) uint64 { return (bytes + page - 1) / page * entry }

func pageName(page uint64) string {
	if page >= mib {
		return fmt.Sprintf("%d MiB", page/mib)
	}
	return "4 KiB"
}

// Total is the sum, rounded up to whole MiB.
func Total(items []Item) uint64 {
	var sum uint64
	for _, i := range items {
		sum += i.Bytes
	}
	return (sum + mib - 1) / mib * mib
}

// FromSpec is what a spec tells before its devices are chosen: one function per
// entry, BARs unknown. Errors are of class [vmspec.ErrInvalid].
func FromSpec(spec *v1alpha1.VirtualMachineInstanceSpec) (Input, error) {
	var in Input
	var err error
	if in.VCPUs, err = vmspec.VCPUs(spec); err != nil {
		return in, err
	}
	if in.MemoryBytes, err = vmspec.MemoryBytes(spec); err != nil {
		return in, err
	}
	if in.HugepageBytes, err = vmspec.HugepageBytes(spec); err != nil {
		return in, err
	}
	d := &spec.Domain.Devices
	in.Units = len(vmspec.Requests(spec))
	// A companion is likely with a GPU and cheap elsewhere.
	in.Functions = in.Units + len(d.GPUs)
	in.VIOMMU = d.IOMMU != nil
	for i := range d.Interfaces {
		in.Passt = in.Passt || d.Interfaces[i].SRIOV == nil
		if d.Interfaces[i].SRIOV != nil {
			in.VFs++
		}
	}
	if len(d.Interfaces) == 0 {
		in.Passt = d.AutoattachPodInterface == nil || *d.AutoattachPodInterface
	}
	in.Screen = d.AutoattachGraphicsDevice != nil && *d.AutoattachGraphicsDevice
	for i := range d.GPUs {
		v := d.GPUs[i].VirtualGPUOptions
		in.Screen = in.Screen || (v != nil && v.Display != nil && v.Display.Enabled != nil && *v.Display.Enabled)
	}
	in.TPM = d.TPM != nil && (d.TPM.Enabled == nil || *d.TPM.Enabled)
	if f := spec.Domain.Firmware; f != nil && f.Bootloader != nil {
		in.EFI = f.Bootloader.EFI != nil
	}
	in.Shares, in.Disks = len(d.Filesystems), len(d.Disks)
	for i := range spec.Volumes {
		if spec.Volumes[i].ContainerDisk != nil {
			in.Overlays++
		}
	}
	in.IOThreads = ioThreads(spec)
	return in, nil
}

// ioThreads is an upper bound of the threads that the policy gives.
func ioThreads(spec *v1alpha1.VirtualMachineInstanceSpec) int {
	n := 0
	for i := range spec.Domain.Devices.Disks {
		if p := spec.Domain.Devices.Disks[i].DedicatedIOThread; p != nil && *p || spec.Domain.IOThreadsPolicy == "auto" {
			n++
		}
	}
	if spec.Domain.IOThreadsPolicy == "shared" {
		n++
	}
	return n
}
