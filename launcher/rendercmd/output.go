package rendercmd

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/kubevfio/kubevfio/api/overhead"
	"github.com/kubevfio/kubevfio/launcher/domain"
)

// writeReport prints the decisions for people.
func writeReport(w io.Writer, in *domain.Input, r *domain.Report) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	p := func(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }
	p("VM\t%s", in.Name)
	p("vCPUs\t%d (%d sockets x %d cores x %d threads)", r.VCPUs, r.Sockets, r.Cores, r.Threads)
	p("Memory\t%s", size(r.MemoryBytes))
	p("Memory lock\t%s", lock(r.MemoryLockBytes))
	m := &r.Window
	p("MMIO window\t%s for %s of BARs, %s below 4 GiB", size(m.Size), size(m.Need), size(m.Low))
	if m.PhysAddrBits > 0 {
		p("\tends at %s at worst; the CPU's %d address bits reach %s", size(m.End), m.PhysAddrBits, size(uint64(1)<<min(m.PhysAddrBits, 63)))
	}
	if m.OVMFMiB > 0 {
		p("\tUEFI is told %d MiB", m.OVMFMiB)
	}
	p("Overhead\t%s", size(overhead.Total(r.Overhead)))
	for _, i := range r.Overhead {
		p("  %s\t%s: %s", i.Name, size(i.Bytes), i.Why)
	}
	p("")
	p("CELL\tHOST NODE\tVCPUS\tMEMORY\tMEMORY NODES")
	for _, c := range r.Cells {
		p("%d\t%s\t%s\t%s\t%s", c.Cell, number(c.HostNode), dash(c.VCPUs), size(c.MemoryBytes), dash(c.MemoryNodes))
	}
	if len(r.Expanders) > 0 {
		p("")
		p("EXPANDER\tBUSES\tHOST ROOT\tHOST NODE\tCELL")
		for _, e := range r.Expanders {
			p("%02x\t%02x-%02x\t%s\t%s\t%s", e.Bus, e.Bus, e.LastBus, e.Root, numa(e.NUMA), number(e.Cell))
		}
		p("")
		p("DEVICE\tHOST\tGUEST\tHOST ROOT\tHOST NODE\tCELL")
		for _, d := range r.Devices {
			name := d.Name
			if d.Companion {
				name += " (companion)"
			}
			p("%s\t%s\t%s\t%s\t%s\t%s", name, d.Host, d.Guest, d.Root, numa(d.NUMA), number(d.Cell))
		}
	}
	if len(r.Emulated) > 0 {
		p("")
		p("EMULATED\tGUEST")
		for _, e := range r.Emulated {
			p("%s\t%s", e.Device, e.Guest)
		}
	}
	for _, v := range r.VFs {
		p("VF %s\t%s\tMAC %s", v.Interface, v.Address, v.MAC)
	}
	for _, n := range r.Notes {
		p("note: %s", n)
	}
	return t.Flush()
}

func number(n *int) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

func numa(n int) string {
	if n < 0 {
		return "unknown"
	}
	return fmt.Sprint(n)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func lock(bytes uint64) string {
	if bytes == 0 {
		return "none needed"
	}
	return size(bytes)
}

// size is a number of bytes in the largest binary unit that divides it well.
func size(b uint64) string {
	for _, u := range []struct {
		shift int
		name  string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		one := uint64(1) << u.shift
		if b >= one && (b%one == 0 || b >= 16*one) {
			return fmt.Sprintf("%.5g %s", float64(b)/float64(one), u.name)
		}
	}
	return fmt.Sprintf("%d B", b)
}
