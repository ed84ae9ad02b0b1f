package hostcmd

import (
	"fmt"
	"slices"

	"github.com/kubevfio/kubevfio/topology"
)

// Report is the inventory for programs. Fields are absent where the host does
// not say. Numbers of PCI identities are lower-case hexadecimal without prefix:
// four digits for vendor and device, six for the class.
type Report struct {
	BootID       string           `json:"bootID,omitempty"`
	PhysAddrBits int              `json:"physAddrBits,omitempty"`
	IOMMUFD      bool             `json:"iommufd"`
	NUMANodes    []NUMAReport     `json:"numaNodes"`
	Functions    []FunctionReport `json:"functions"`
	Units        []UnitReport     `json:"units"`
	Skipped      []SkipReport     `json:"skipped,omitempty"`

	host    *topology.Host
	units   []topology.Unit
	names   namer
	holders map[string]string
}

// NUMAReport is a NUMA node.
type NUMAReport struct {
	ID     int   `json:"id"`
	Socket *int  `json:"socket,omitempty"`
	CPUs   []int `json:"cpus,omitempty"`
	// Cores are the node's CPUs by core: the hardware threads of each, sorted.
	// Absent where the host does not say which CPUs share a core.
	Cores       [][]int          `json:"cores,omitempty"`
	MemoryBytes uint64           `json:"memoryBytes"`
	Hugepages   []HugepageReport `json:"hugepages,omitempty"`
	Distances   []int            `json:"distances,omitempty"`
}

// HugepageReport counts the pages of one size.
type HugepageReport struct {
	PageBytes uint64 `json:"pageBytes"`
	Total     uint64 `json:"total"`
	Free      uint64 `json:"free"`
}

// FunctionReport is a PCI function.
type FunctionReport struct {
	Address         topology.Address   `json:"address"`
	Vendor          string             `json:"vendor"`
	Device          string             `json:"device"`
	SubsystemVendor string             `json:"subsystemVendor,omitempty"`
	SubsystemDevice string             `json:"subsystemDevice,omitempty"`
	Class           string             `json:"class"`
	Revision        string             `json:"revision"`
	Driver          string             `json:"driver,omitempty"`
	DriverOverride  string             `json:"driverOverride,omitempty"`
	Modalias        string             `json:"modalias,omitempty"`
	IOMMUGroup      *int               `json:"iommuGroup,omitempty"`
	IOMMUGroupType  string             `json:"iommuGroupType,omitempty"`
	VFIODev         string             `json:"vfioDev,omitempty"`
	NUMANode        *int               `json:"numaNode,omitempty"`
	RootComplex     string             `json:"rootComplex,omitempty"`
	Path            []topology.Address `json:"path,omitempty"`
	PhysFn          *topology.Address  `json:"physFn,omitempty"`
	VFIndex         *int               `json:"vfIndex,omitempty"`
	TotalVFs        *int               `json:"totalVFs,omitempty"`
	NumVFs          *int               `json:"numVFs,omitempty"`
	VFs             []topology.Address `json:"virtFns,omitempty"`
	BARs            []BARReport        `json:"bars,omitempty"`
	ROMBytes        uint64             `json:"romBytes,omitempty"`
	ResetMethods    []string           `json:"resetMethods,omitempty"`
	Link            *LinkReport        `json:"link,omitempty"`
	Net             []string           `json:"net,omitempty"`
	RDMA            []string           `json:"rdma,omitempty"`
	DRM             []string           `json:"drm,omitempty"`
	Block           []string           `json:"block,omitempty"`
	Mdevs           []string           `json:"mdevs,omitempty"`
	Enabled         bool               `json:"enabled"`
}

// BARReport is a base address register.
type BARReport struct {
	Index        int    `json:"index"`
	Bytes        uint64 `json:"bytes"`
	IO           bool   `json:"io,omitempty"`
	Is64         bool   `json:"is64,omitempty"`
	Prefetchable bool   `json:"prefetchable,omitempty"`
}

// LinkReport is a PCIe link: speeds in MT/s, widths in lanes.
type LinkReport struct {
	SpeedMTs    int `json:"speedMTs,omitempty"`
	MaxSpeedMTs int `json:"maxSpeedMTs,omitempty"`
	Width       int `json:"width,omitempty"`
	MaxWidth    int `json:"maxWidth,omitempty"`
}

// UnitReport is an isolation unit.
type UnitReport struct {
	ID          topology.Address   `json:"id"`
	Members     []topology.Address `json:"members"`
	Primaries   []topology.Address `json:"primaries"`
	IOMMUGroup  *int               `json:"iommuGroup,omitempty"`
	NUMANode    *int               `json:"numaNode,omitempty"`
	RootComplex string             `json:"rootComplex,omitempty"`
	Switch      *topology.Address  `json:"switch,omitempty"`
	Blocked     string             `json:"blocked,omitempty"`
}

// SkipReport is a function that could not be read.
type SkipReport struct {
	Address string `json:"address"`
	Reason  string `json:"reason"`
}

// known is a pointer to a number, nil when it is negative: "the host does not
// say".
func known(v int) *int {
	if v < 0 {
		return nil
	}
	return &v
}

// NewReport makes the report of a reading.
func NewReport(h *topology.Host) *Report {
	r := &Report{
		BootID: h.BootID, PhysAddrBits: h.PhysAddrBits, IOMMUFD: h.IOMMUFD,
		NUMANodes: []NUMAReport{},
		Functions: make([]FunctionReport, 0, len(h.Functions)),
		host:      h,
		units:     topology.Units(h),
	}
	for i := range h.NUMANodes {
		n := &h.NUMANodes[i]
		out := NUMAReport{ID: n.ID, Socket: known(h.SocketOf(n.ID)), CPUs: n.CPUs, MemoryBytes: n.MemoryBytes, Distances: n.Distances}
		out.Cores = cores(h, n.CPUs)
		for _, p := range n.Hugepages {
			out.Hugepages = append(out.Hugepages, HugepageReport(p))
		}
		r.NUMANodes = append(r.NUMANodes, out)
	}
	for i := range h.Functions {
		r.Functions = append(r.Functions, functionReport(&h.Functions[i]))
	}
	r.Units = make([]UnitReport, 0, len(r.units))
	for i := range r.units {
		u := &r.units[i]
		r.Units = append(r.Units, UnitReport{
			ID: u.ID, Members: u.Members, Primaries: u.Primaries, IOMMUGroup: known(u.Group), NUMANode: known(u.NUMA),
			RootComplex: u.Root, Switch: u.Switch, Blocked: u.Blocked,
		})
	}
	for _, s := range h.Skipped {
		r.Skipped = append(r.Skipped, SkipReport(s))
	}
	return r
}

// cores are the sets of hardware threads of the CPUs, by their lowest CPU; nil
// when any CPU's siblings are not told.
func cores(h *topology.Host, cpus []int) [][]int {
	var out [][]int
	for i := range h.CPUs {
		c := &h.CPUs[i]
		if !slices.Contains(cpus, c.ID) {
			continue
		}
		if len(c.Siblings) == 0 {
			return nil
		}
		if c.Siblings[0] == c.ID {
			out = append(out, c.Siblings)
		}
	}
	return out
}

func functionReport(f *topology.Function) FunctionReport {
	out := FunctionReport{
		Address: f.Address, Vendor: fmt.Sprintf("%04x", f.Vendor), Device: fmt.Sprintf("%04x", f.Device),
		Class: fmt.Sprintf("%06x", f.Class), Revision: fmt.Sprintf("%02x", f.Revision),
		Driver: f.Driver, DriverOverride: f.DriverOverride, Modalias: f.Modalias,
		IOMMUGroup: known(f.IOMMUGroup), IOMMUGroupType: f.IOMMUGroupType, VFIODev: f.VFIODev,
		NUMANode: known(f.NUMA), RootComplex: f.Root, Path: f.Path,
		PhysFn: f.PF, VFs: f.VFs,
		ROMBytes: f.ROMBytes, ResetMethods: f.ResetMethods,
		Net: f.Net, RDMA: f.RDMA, DRM: f.DRM, Block: f.Block, Mdevs: f.Mdevs, Enabled: f.Enabled,
	}
	if f.SubVendor != 0 || f.SubDevice != 0 {
		out.SubsystemVendor, out.SubsystemDevice = fmt.Sprintf("%04x", f.SubVendor), fmt.Sprintf("%04x", f.SubDevice)
	}
	if f.PF != nil {
		out.VFIndex = known(f.VFIndex)
	}
	if f.SRIOV {
		out.TotalVFs, out.NumVFs = known(f.TotalVFs), known(f.NumVFs)
	}
	for _, b := range f.BARs {
		out.BARs = append(out.BARs, BARReport(b))
	}
	if f.Link != (topology.Link{}) {
		l := LinkReport(f.Link)
		out.Link = &l
	}
	return out
}
