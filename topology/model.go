package topology

// NUMAUnknown says that the host does not tell the NUMA node of a device
// (sysfs prints -1). It is never treated as node 0.
const NUMAUnknown = -1

// Host is one machine at one moment: what its sysfs and procfs said. A Host is
// immutable once built.
type Host struct {
	// BootID is /proc/sys/kernel/random/boot_id; empty when not readable. It
	// tells whether group numbers of an earlier reading still hold.
	BootID string
	// NUMANodes are sorted by ID. A machine without NUMA has one node 0 with
	// all CPUs, or none where sysfs shows none.
	NUMANodes []NUMANode
	// CPUs are sorted by ID; offline CPUs are not listed.
	CPUs []CPU
	// Functions are all PCI functions, sorted by address.
	Functions []Function
	// Skipped are functions that vanished or could not be read in mid-scan.
	Skipped []Skip
	// PhysAddrBits is the CPUs' physical address width, 0 when unknown.
	PhysAddrBits int
	// IOMMUFD says that /dev/iommu's driver is there (class iommufd in sysfs).
	IOMMUFD bool
}

// Skip is a function that the scan left out, with the reason in words.
type Skip struct {
	Address string
	Reason  string
}

// NUMANode is a memory node of the host.
type NUMANode struct {
	ID int
	// CPUs are the IDs of the node's online CPUs, sorted; empty for a node that
	// is memory only (GPU memory, CXL).
	CPUs []int
	// MemoryBytes is the total memory, MemFreeBytes what was free at the scan.
	MemoryBytes  uint64
	MemFreeBytes uint64
	// Hugepages are the pools of this node, by page size in bytes, sorted.
	Hugepages []HugepagePool
	// Distances are the SLIT distances to the nodes in the order of
	// Host.NUMANodes; 10 is local. Nil when the host does not say.
	Distances []int
}

// HugepagePool counts pages of one size on one NUMA node.
type HugepagePool struct {
	PageBytes uint64
	Total     uint64
	Free      uint64
}

// CPU is one logical CPU. Socket and Core are -1 where sysfs does not say.
type CPU struct {
	ID     int
	Socket int
	Core   int
	NUMA   int
	// Siblings are the IDs of the hardware threads of its core, itself
	// included, sorted.
	Siblings []int
}

// Function is one PCI function.
type Function struct {
	Address   Address
	Vendor    uint16
	Device    uint16
	SubVendor uint16
	SubDevice uint16
	// Class is the 24-bit class code: base class, subclass, interface.
	Class    uint32
	Revision uint8
	// Driver is the bound driver, empty when none. DriverOverride is sysfs'
	// driver_override, empty when "(null)".
	Driver         string
	DriverOverride string
	Modalias       string
	// IOMMUGroup is the group's number now, -1 without an IOMMU. See the
	// package comment: it is no identity.
	IOMMUGroup int
	// IOMMUGroupType is the group's domain type (DMA, DMA-FQ, identity), empty
	// when unknown.
	IOMMUGroupType string
	// VFIODev is the name of the vfio character device ("vfio3") where the
	// kernel has VFIO_DEVICE_CDEV and the function is bound; empty otherwise.
	VFIODev string
	// NUMA is the NUMA node or NUMAUnknown.
	NUMA int
	// Root is the host bridge as sysfs names it: "pci0000:80".
	Root string
	// Path are the bridges between the root and the function, in order from
	// the root port downwards; empty for a root complex integrated endpoint.
	Path []Address
	// PF is the physical function of a virtual function, nil otherwise.
	PF *Address
	// VFIndex is the number of a virtual function on its PF, -1 otherwise.
	VFIndex int
	// SRIOV says that the function has the SR-IOV capability. VFs are the
	// virtual functions of such a PF by index; TotalVFs and NumVFs are its
	// sriov_totalvfs and sriov_numvfs, 0 when not capable, -1 where a capable one
	// does not say.
	SRIOV    bool
	VFs      []Address
	TotalVFs int
	NumVFs   int
	// BARs are the memory and I/O regions that have a size.
	BARs []BAR
	// ROMBytes is the size of the expansion ROM, 0 when none.
	ROMBytes uint64
	// ResetMethods are sysfs' reset_method words in order; nil when the
	// function cannot be reset.
	ResetMethods []string
	// Link is the PCIe link's state, zero for integrated and virtual functions.
	Link Link
	// Children are the class devices that hang on the function, sorted.
	Net, RDMA, DRM, Block []string
	// Mdevs are the UUIDs of mediated devices on the function.
	Mdevs []string
	// Enabled says that the function answers (sysfs "enable" is above 0).
	Enabled bool
}

// BAR is one base address register.
type BAR struct {
	Index        int
	Bytes        uint64
	IO           bool
	Is64         bool
	Prefetchable bool
}

// Link is a PCIe link; speeds are in MT/s times 1 (2500, 5000, 8000, 16000…), widths in lanes.
type Link struct {
	SpeedMTs, MaxSpeedMTs int
	Width, MaxWidth       int
}

// Unit is what VFIO can isolate and what is handed out: a primary function with
// the companions that share its IOMMU group. A group with several primaries is
// a unit of that many primaries or none at all.
type Unit struct {
	// ID is the leader: the lowest primary of the group. It is the device ID
	// that kubelet and the scheduler see.
	ID Address
	// Members are all functions of the unit that go to the guest together,
	// leader first, then sorted. Bridges of the group are not members.
	Members []Address
	// Primaries are those members that are not companions; len(Primaries) is
	// the size of the unit.
	Primaries []Address
	// Group is the IOMMU group now, -1 without an IOMMU.
	Group int
	NUMA  int
	Root  string
	// Switch is the lowest switch upstream port above the unit; nil without a
	// switch between it and the root port.
	Switch *Address
	// Blocked says why the unit cannot be handed out, empty when it can. It
	// names the blocking address.
	Blocked string
}

// Distance is how far two units are apart: the level of the lowest thing that
// they share. A smaller value is nearer.
type Distance int

// The levels, nearest first.
const (
	SameSwitch Distance = iota
	SameRoot            // same root complex
	SameNUMA
	SameSocket
	Other
)

// String is the level's word as in the kubevfio.io/alignment wish.
func (d Distance) String() string {
	switch d {
	case SameSwitch:
		return "switch"
	case SameRoot:
		return "root"
	case SameNUMA:
		return "numa"
	case SameSocket:
		return "socket"
	default:
		return "other"
	}
}
