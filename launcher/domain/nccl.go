package domain

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"

	"libvirt.org/go/libvirtxml"

	"github.com/kubevfio/kubevfio/topology"
)

// NCCLEntry is the fw_cfg name under which the guest finds the file: Linux shows
// it as /sys/firmware/qemu_fw_cfg/by_name/NAME/raw.
const NCCLEntry = "opt/kubevfio/nccl-topology.xml"

// fwcfg hands a text or file to the guest.
func (b *builder) fwcfg(e libvirtxml.DomainSysInfoEntry) {
	for i := range b.dom.SysInfo {
		if f := b.dom.SysInfo[i].FWCfg; f != nil {
			f.Entry = append(f.Entry, e)
			return
		}
	}
	b.dom.SysInfo = append(b.dom.SysInfo, libvirtxml.DomainSysInfo{FWCfg: &libvirtxml.DomainSysInfoFWCfg{Entry: []libvirtxml.DomainSysInfoEntry{e}}})
}

// The elements of NCCL's topology file that describe PCI: NCCL itself finds what
// is left out (CPU models, NVLinks) in the guest.
type ncclSystem struct {
	XMLName xml.Name  `xml:"system"`
	Version int       `xml:"version,attr"`
	CPUs    []ncclCPU `xml:"cpu"`
}

type ncclCPU struct {
	NUMA int       `xml:"numaid,attr"`
	PCI  []ncclPCI `xml:"pci"`
}

type ncclPCI struct {
	BusID string    `xml:"busid,attr"`
	Class string    `xml:"class,attr"`
	Speed string    `xml:"link_speed,attr"`
	Width string    `xml:"link_width,attr"`
	PCI   []ncclPCI `xml:"pci"`
}

// nccl writes the NCCL topology file when the spec asks for it: the guest's own
// addresses in the host's tree of switches, with the host's link speeds. NCCL
// then sees which GPU and NIC share a switch, whatever ports QEMU shows.
func (b *builder) nccl() error {
	if !b.spec.Devices.NCCLTopology {
		return nil
	}
	guest := b.guestAddresses()
	by := map[int][]*topology.Function{}
	for _, g := range b.groups {
		for _, f := range g.funcs {
			if base := f.Class >> 16; base == 0x02 || base == 0x03 || base == 0x12 || f.Class>>8 == 0x0680 {
				k := max(b.cpu.cellOf(f.NUMA), 0)
				by[k] = append(by[k], f)
			}
		}
	}
	s := ncclSystem{Version: 1}
	for k := range b.cpu.cells {
		fs := by[k]
		if len(fs) == 0 {
			continue
		}
		slices.SortFunc(fs, func(a, c *topology.Function) int {
			return cmp.Or(compareRoots(a.Root, c.Root), a.Address.Compare(c.Address))
		})
		cpu := ncclCPU{NUMA: k}
		for _, f := range fs {
			b.ncclAdd(&cpu.PCI, f, f.Switches(), guest[f])
		}
		s.CPUs = append(s.CPUs, cpu)
	}
	if len(s.CPUs) == 0 {
		return hostErrorf("spec.domain.devices.ncclTopology", "there is no GPU, NIC or fabric switch among the guest's devices")
	}
	var out bytes.Buffer
	if err := xml.NewEncoder(&out).Encode(s); err != nil {
		return fmt.Errorf("write the NCCL topology: %w", err)
	}
	b.report.NCCLTopology = out.String()
	e := libvirtxml.DomainSysInfoEntry{Name: NCCLEntry, Value: out.String()}
	if p := b.in.Paths.NCCLTopology; p != "" {
		e.File, e.Value = p, ""
	}
	b.fwcfg(e)
	return nil
}

// ncclAdd puts a function below its switches, making those that are not there.
func (b *builder) ncclAdd(list *[]ncclPCI, f *topology.Function, switches []topology.Address, busID string) {
	if len(switches) == 0 {
		l := f.Link
		if l.Width == 0 && f.PF != nil {
			// A virtual function has the link of its physical one.
			if pf := b.in.Host.Function(*f.PF); pf != nil {
				l = pf.Link
			}
		}
		*list = append(*list, ncclPCI{BusID: busID, Class: fmt.Sprintf("0x%06x", f.Class), Speed: gts(l.SpeedMTs), Width: strconv.Itoa(l.Width)})
		return
	}
	up := switches[0]
	// An address in a domain that no guest has: the switch is the host's.
	id := fmt.Sprintf("ffff:%02x:%02x.%x", up.Bus, up.Device, up.Function)
	if up.Domain != 0 {
		id = fmt.Sprintf("%04x:%02x:%02x.%x", 0xffff-up.Domain&0xfff, up.Bus, up.Device, up.Function)
	}
	k := slices.IndexFunc(*list, func(p ncclPCI) bool { return p.BusID == id })
	if k < 0 {
		k = len(*list)
		sw := ncclPCI{BusID: id, Class: "0x060400", Speed: gts(f.Link.SpeedMTs), Width: strconv.Itoa(f.Link.Width)}
		if h := b.in.Host.Function(up); h != nil && h.Link.Width > 0 {
			sw.Speed, sw.Width = gts(h.Link.SpeedMTs), strconv.Itoa(h.Link.Width)
		}
		*list = append(*list, sw)
	}
	b.ncclAdd(&(*list)[k].PCI, f, switches[1:], busID)
}

// gts is a link speed in NCCL's words: "16 GT/s".
func gts(mts int) string {
	return strconv.FormatFloat(float64(mts)/1000, 'g', -1, 64) + " GT/s"
}

// guestAddresses are the expected guest addresses of all passed functions.
func (b *builder) guestAddresses() map[*topology.Function]string {
	out := map[*topology.Function]string{}
	b.walkLeaves(func(n *node, bus int, _ *node) {
		for i, f := range n.leaf.funcs {
			out[f] = guestAddress(n, bus, i)
		}
	})
	return out
}

// walkLeaves visits every slot with the bus number that firmware is expected to
// give it: depth first, in the order of places.
func (b *builder) walkLeaves(visit func(leaf *node, bus int, expander *node)) {
	for _, e := range b.expanders {
		bus := e.busNr
		var walk func(n *node)
		walk = func(n *node) {
			for _, c := range n.children {
				bus++
				if c.leaf != nil {
					visit(c, bus, e)
				}
				walk(c)
			}
		}
		walk(e)
	}
}

func guestAddress(n *node, bus, i int) string {
	slot := 0
	if n.model == modelPCIBridge {
		slot = 1
	}
	return fmt.Sprintf("0000:%02x:%02x.%x", bus, slot, n.leaf.fn[i])
}
