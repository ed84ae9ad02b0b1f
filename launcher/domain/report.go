package domain

import (
	"fmt"

	"github.com/kubevfio/kubevfio/api/overhead"
	"github.com/kubevfio/kubevfio/topology"
)

// Report says what Build decided, for people and for the launcher's other
// parts. Its JSON form is what render prints with -o report.
type Report struct {
	VCPUs   int `json:"vcpus"`
	Sockets int `json:"sockets"`
	Cores   int `json:"cores"`
	Threads int `json:"threads"`
	// MemoryBytes is what the guest sees.
	MemoryBytes uint64 `json:"memoryBytes"`
	// Cells are the guest's NUMA cells.
	Cells []CellReport `json:"cells"`
	// Expanders are the guest's root complexes for passed-through devices.
	Expanders []ExpanderReport `json:"expanders,omitempty"`
	// Devices are the passed-through functions.
	Devices []DeviceReport `json:"devices,omitempty"`
	// Emulated are the emulated PCI devices; all are on pcie.0.
	Emulated []EmulatedReport `json:"emulated,omitempty"`
	// Window is the 64-bit MMIO window.
	Window WindowReport `json:"mmioWindow"`
	// MemoryLockBytes is the lock limit that the launcher's hard limit must
	// reach, 0 when nothing locks memory.
	MemoryLockBytes uint64 `json:"memoryLockBytes"`
	// VFs are settings for the physical functions, to be made before the start.
	VFs []VFSettings `json:"virtualFunctions,omitempty"`
	// Overhead is the memory that the pod needs beyond the guest's, by item.
	Overhead []overhead.Item `json:"overhead"`
	// NCCLTopology is the file that the guest finds as NCCLEntry, empty when not
	// asked.
	NCCLTopology string `json:"ncclTopology,omitempty"`
	// Notes are decisions that the reader may not expect.
	Notes []string `json:"notes,omitempty"`
}

// CellReport is one NUMA cell.
type CellReport struct {
	Cell int `json:"cell"`
	// HostNode is the host's NUMA node, absent when the cell is bound to none.
	HostNode *int `json:"hostNode,omitempty"`
	// VCPUs in list form, empty for a cell without CPUs.
	VCPUs       string `json:"vcpus,omitempty"`
	MemoryBytes uint64 `json:"memoryBytes"`
	// MemoryNodes are the host nodes of the memory, in list form.
	MemoryNodes string `json:"memoryNodes,omitempty"`
	// Pins are the host CPUs of each vCPU in the order of VCPUs.
	Pins []string `json:"pins,omitempty"`
}

// ExpanderReport is one guest root complex.
type ExpanderReport struct {
	// Root is the host's root complex, NUMA its node (-1: unknown).
	Root string `json:"root"`
	NUMA int    `json:"numa"`
	// Bus is the expander's bus number, LastBus the last number below it.
	Bus     int `json:"bus"`
	LastBus int `json:"lastBus"`
	// Cell is the guest cell, absent when the host's node is unknown.
	Cell *int `json:"cell,omitempty"`
}

// DeviceReport is one passed-through function.
type DeviceReport struct {
	// Name and Field of the spec's entry.
	Name     string `json:"name"`
	Field    string `json:"field"`
	Resource string `json:"resource,omitempty"`
	// Host and Guest are PCI addresses. The guest's is what firmware is expected
	// to number; Linux keeps it.
	Host  string `json:"host"`
	Guest string `json:"guest"`
	// Mdev is the UUID of a mediated device, of which Host is the parent.
	Mdev string `json:"mdev,omitempty"`
	// Root and NUMA of the host, Cell of the guest.
	Root string `json:"root"`
	NUMA int    `json:"numa"`
	Cell *int   `json:"cell,omitempty"`
	// Companion says that the function came with the entry's leader.
	Companion bool   `json:"companion,omitempty"`
	Tag       string `json:"tag,omitempty"`
}

// EmulatedReport is one emulated PCI device.
type EmulatedReport struct {
	Device string `json:"device"`
	Guest  string `json:"guest"`
}

// WindowReport is the 64-bit MMIO window in bytes.
type WindowReport struct {
	// Need is what the devices' BARs take, aligned; Low is what must lie below
	// 4 GiB.
	Need uint64 `json:"needBytes"`
	Low  uint64 `json:"lowBytes"`
	// Size, Base and End of the window; Base and End as firmware may choose at
	// worst.
	Size uint64 `json:"sizeBytes"`
	Base uint64 `json:"baseBytes"`
	End  uint64 `json:"endBytes"`
	// PhysAddrBits of the host's CPU, 0 when unknown.
	PhysAddrBits int `json:"physAddrBits"`
	// OVMFMiB is the size that UEFI is told, 0 when its own choice is enough.
	OVMFMiB uint64 `json:"ovmfMiB,omitempty"`
	// Known is false when the BARs of a device are not known.
	Known bool `json:"known"`
}

// VFSettings are what a physical function must set for one of its virtual
// functions before the guest starts. Absent values stay as they are.
type VFSettings struct {
	Interface  string `json:"interface"`
	Address    string `json:"address"`
	MAC        string `json:"mac"`
	VLAN       *int32 `json:"vlan,omitempty"`
	VLANQoS    *int32 `json:"vlanQoS,omitempty"`
	Trust      *bool  `json:"trust,omitempty"`
	SpoofCheck *bool  `json:"spoofCheck,omitempty"`
	LinkState  string `json:"linkState,omitempty"`
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *Report) cells(p *cpuPlan) {
	r.Sockets, r.Cores, r.Threads = p.sockets, p.cores, p.threads
	r.VCPUs = p.sockets * p.cores * p.threads
	for i, c := range p.cells {
		x := CellReport{Cell: i, VCPUs: listString(c.vcpus), MemoryBytes: c.bytes, MemoryNodes: listString(c.memNodes)}
		if c.host != topology.NUMAUnknown {
			x.HostNode = ptr(c.host)
		}
		if len(p.pins) > 0 {
			for _, v := range c.vcpus {
				x.Pins = append(x.Pins, listString(p.pins[v]))
			}
		}
		r.Cells = append(r.Cells, x)
	}
}

// fill adds what is known when everything is placed.
func (r *Report) fill(b *builder) {
	r.MemoryBytes = b.memory
	w := b.window
	r.Window.Need, r.Window.Low, r.Window.Size, r.Window.Base, r.Window.End = w.need, w.low, w.size, w.base, w.end
	r.Window.PhysAddrBits, r.Window.Known = b.in.Host.PhysAddrBits, w.known
	r.Overhead = b.overhead()
	for _, e := range b.expanders {
		x := ExpanderReport{Root: e.host, NUMA: e.numa, Bus: e.busNr, LastBus: e.busNr + e.buses() - 1}
		if k := b.cpu.cellOf(e.numa); k >= 0 {
			x.Cell = ptr(k)
		}
		r.Expanders = append(r.Expanders, x)
	}
	b.walkLeaves(func(n *node, bus int, e *node) {
		var cell *int
		if k := b.cpu.cellOf(e.numa); k >= 0 {
			cell = ptr(k)
		}
		r.slot(n, bus, cell)
	})
}

// slot adds the functions of one guest slot, on the bus that is below n.
func (r *Report) slot(n *node, bus int, cell *int) {
	g := n.leaf
	for i, f := range g.funcs {
		u := g.unit
		r.Devices = append(r.Devices, DeviceReport{
			Name: u.req.Name, Field: u.req.Field(), Resource: u.req.Resource,
			Host: f.Address.String(), Guest: guestAddress(n, bus, i),
			Mdev: u.opts.mdev, Root: f.Root, NUMA: f.NUMA, Cell: cell,
			Companion: f != u.leader(), Tag: u.opts.Tag,
		})
	}
}

// overhead uses what Build knows and the spec alone does not: the functions and
// their BARs.
func (b *builder) overhead() []overhead.Item {
	in, err := overhead.FromSpec(b.in.Spec)
	if err != nil {
		// Build has read the same fields without an error.
		return nil
	}
	in.Units, in.Functions, in.BARBytes = len(b.units), 0, 0
	for _, g := range b.groups {
		for _, f := range g.funcs {
			in.Functions++
			for _, bar := range f.BARs {
				if !bar.IO {
					in.BARBytes += bar.Bytes
				}
			}
		}
	}
	if !b.window.known {
		in.BARBytes = 0
	}
	in.Disks, in.IOThreads = len(b.dev.Disks), int(b.threads)
	return overhead.Items(in)
}
