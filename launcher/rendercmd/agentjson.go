package rendercmd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/kubevfio/kubevfio/topology"
)

// agentReport is the part of "kubevfio-agent inventory -o json" that a domain
// depends on. The agent's own type is package hostcmd's, which brings a database
// of product names along that the launcher's image has no use for; a test holds
// the two together.
type agentReport struct {
	BootID       string          `json:"bootID"`
	PhysAddrBits int             `json:"physAddrBits"`
	IOMMUFD      bool            `json:"iommufd"`
	NUMANodes    []agentNode     `json:"numaNodes"`
	Functions    []agentFunction `json:"functions"`
}

type agentNode struct {
	ID          int                     `json:"id"`
	Socket      *int                    `json:"socket"`
	CPUs        []int                   `json:"cpus"`
	Cores       [][]int                 `json:"cores"`
	MemoryBytes uint64                  `json:"memoryBytes"`
	Hugepages   []topology.HugepagePool `json:"hugepages"`
	Distances   []int                   `json:"distances"`
}

type agentFunction struct {
	Address         topology.Address   `json:"address"`
	Vendor          string             `json:"vendor"`
	Device          string             `json:"device"`
	SubsystemVendor string             `json:"subsystemVendor"`
	SubsystemDevice string             `json:"subsystemDevice"`
	Class           string             `json:"class"`
	Revision        string             `json:"revision"`
	Driver          string             `json:"driver"`
	IOMMUGroup      *int               `json:"iommuGroup"`
	VFIODev         string             `json:"vfioDev"`
	NUMANode        *int               `json:"numaNode"`
	RootComplex     string             `json:"rootComplex"`
	Path            []topology.Address `json:"path"`
	PhysFn          *topology.Address  `json:"physFn"`
	VFIndex         *int               `json:"vfIndex"`
	BARs            []topology.BAR     `json:"bars"`
	ROMBytes        uint64             `json:"romBytes"`
	ResetMethods    []string           `json:"resetMethods"`
	Link            topology.Link      `json:"link"`
	Mdevs           []string           `json:"mdevs"`
}

// hostOfReport reads the agent's JSON back into a host.
func hostOfReport(js []byte) (*topology.Host, error) {
	var r agentReport
	if err := json.Unmarshal(js, &r); err != nil {
		return nil, err
	}
	h := &topology.Host{BootID: r.BootID, PhysAddrBits: r.PhysAddrBits, IOMMUFD: r.IOMMUFD}
	for i := range r.NUMANodes {
		n := &r.NUMANodes[i]
		h.NUMANodes = append(h.NUMANodes, topology.NUMANode{ID: n.ID, CPUs: n.CPUs, MemoryBytes: n.MemoryBytes, Hugepages: n.Hugepages, Distances: n.Distances})
		for _, id := range n.CPUs {
			c := topology.CPU{ID: id, Socket: orUnknown(n.Socket), Core: -1, NUMA: n.ID}
			if k := slices.IndexFunc(n.Cores, func(core []int) bool { return slices.Contains(core, id) }); k >= 0 {
				c.Siblings = n.Cores[k]
			}
			h.CPUs = append(h.CPUs, c)
		}
	}
	slices.SortFunc(h.CPUs, func(a, b topology.CPU) int { return a.ID - b.ID })
	for i := range r.Functions {
		f, err := r.Functions[i].function()
		if err != nil {
			return nil, fmt.Errorf("functions[%d]: %s: %w", i, r.Functions[i].Address, err)
		}
		h.Functions = append(h.Functions, *f)
	}
	slices.SortFunc(h.Functions, func(a, b topology.Function) int { return a.Address.Compare(b.Address) })
	for i := 1; i < len(h.Functions); i++ {
		if a := h.Functions[i].Address; a == h.Functions[i-1].Address {
			return nil, fmt.Errorf("functions: %s is there twice", a)
		}
	}
	return h, nil
}

func (r *agentFunction) function() (*topology.Function, error) {
	f := &topology.Function{
		Address: r.Address, Driver: r.Driver, IOMMUGroup: orUnknown(r.IOMMUGroup), VFIODev: r.VFIODev,
		NUMA: orUnknown(r.NUMANode), Root: r.RootComplex, Path: r.Path, PF: r.PhysFn, VFIndex: orUnknown(r.VFIndex),
		BARs: r.BARs, ROMBytes: r.ROMBytes, ResetMethods: r.ResetMethods, Link: r.Link, Mdevs: r.Mdevs,
	}
	var err error
	hex := func(field, s string, bits int) uint64 {
		if s == "" || err != nil {
			return 0
		}
		var v uint64
		if v, err = strconv.ParseUint(s, 16, bits); err != nil {
			err = fmt.Errorf("%s: %q is not a hexadecimal number of %d bits", field, s, bits)
		}
		return v
	}
	f.Vendor, f.Device = uint16(hex("vendor", r.Vendor, 16)), uint16(hex("device", r.Device, 16))
	f.SubVendor, f.SubDevice = uint16(hex("subsystemVendor", r.SubsystemVendor, 16)), uint16(hex("subsystemDevice", r.SubsystemDevice, 16))
	f.Class, f.Revision = uint32(hex("class", r.Class, 24)), uint8(hex("revision", r.Revision, 8))
	return f, err
}

// orUnknown is a number that the report leaves out when the host does not say.
func orUnknown(v *int) int {
	if v == nil || *v < 0 {
		return -1
	}
	return *v
}
