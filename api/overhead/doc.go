// Package overhead says how much memory a VM's pod needs beyond the memory that
// the guest sees: by item, so that a wrong figure can be found and corrected.
//
// It is for the controller, which sets the pod's request and limit by it, and
// for the launcher, whose render subcommand shows it. It is pure.
//
// The figures are upper bounds. What is in the guest's memory itself (normal or
// huge pages) is not counted; what the kernel charges to the pod's cgroup for
// it (page tables of the process, of KVM and of the IOMMU) is.
//
// Traps:
//   - Without huge pages each set of page tables costs 1/512 of the guest's
//     memory; a guest with VFIO devices has three.
//   - A virtual IOMMU gives each device page tables of its own.
//   - Kernels before 6.12 map BARs page by page: 1/512 of the BARs. The formula
//     assumes 6.12 or later and says so in the item.
package overhead
