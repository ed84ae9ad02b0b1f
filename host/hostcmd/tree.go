package hostcmd

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/topology"
)

// printer writes the tree for people; the first error stays in the buffer.
type printer struct {
	w      *bufio.Writer
	r      *Report
	unitOf map[topology.Address]*topology.Unit
}

// writeTree prints sockets, NUMA nodes, root complexes, bridges and devices,
// with the driver that holds each and the unit that it belongs to.
func writeTree(w io.Writer, r *Report) error {
	p := &printer{w: bufio.NewWriter(w), r: r, unitOf: map[topology.Address]*topology.Unit{}}
	for i := range r.units {
		for _, m := range r.units[i].Members {
			p.unitOf[m] = &r.units[i]
		}
	}
	socket := -2
	for _, g := range groups(r.host) {
		if g.numa != topology.NUMAUnknown && g.socket != socket {
			socket = g.socket
			if socket >= 0 {
				p.line("socket %d", socket)
			}
		}
		p.group(&g)
	}
	for _, s := range r.Skipped {
		p.line("skipped %s: %s", s.Address, s.Reason)
	}
	return p.w.Flush()
}

func (p *printer) line(format string, args ...any) {
	_, _ = fmt.Fprintf(p.w, format+"\n", args...) // a bufio.Writer keeps its error for Flush
}

func (p *printer) group(g *group) {
	if n := p.r.host.NUMANode(g.numa); n != nil {
		p.line("  NUMA node %d  CPUs %s  %s%s", n.ID, nonEmpty(host.FormatList(n.CPUs), "none"), bytesText(n.MemoryBytes), hugeText(n))
	} else {
		p.line("  NUMA node not known")
	}
	for _, r := range g.roots {
		others := 0
		for _, f := range r.leaves {
			if dull(f) {
				others++
			}
		}
		if others == len(r.leaves) && len(r.branches) == 0 {
			p.line("    %s  %d functions of the platform", r.name, others)
			continue
		}
		p.line("    %s", r.name)
		p.branch(r, "      ")
		if others > 0 {
			p.line("      and %d functions of the platform", others)
		}
	}
}

func hugeText(n *topology.NUMANode) string {
	var s []string
	for _, h := range n.Hugepages {
		if h.Total > 0 {
			s = append(s, fmt.Sprintf("%d x %s huge pages, %d free", h.Total, bytesText(h.PageBytes), h.Free))
		}
	}
	if len(s) == 0 {
		return ""
	}
	return "  " + strings.Join(s, ", ")
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (p *printer) branch(b *branch, indent string) {
	for _, f := range b.leaves {
		if !dull(f) {
			p.function(f, indent)
		}
	}
	for _, c := range b.branches {
		if empty(c) {
			continue
		}
		p.line("%s%s  bridge", indent, c.name)
		p.branch(c, indent+"  ")
	}
}

// empty tells ports that nothing to be shown hangs on.
func empty(b *branch) bool {
	return !slices.ContainsFunc(b.leaves, func(f *topology.Function) bool { return !dull(f) }) &&
		!slices.ContainsFunc(b.branches, func(c *branch) bool { return !empty(c) })
}

func (p *printer) function(f *topology.Function, indent string) {
	words := []string{f.Address.String(), className(f), p.r.names.product(f), "driver " + nonEmpty(f.Driver, "none")}
	if f.IOMMUGroup >= 0 {
		words = append(words, fmt.Sprintf("group %d", f.IOMMUGroup))
	}
	if u := p.unitOf[f.Address]; u != nil && u.ID != f.Address {
		words = append(words, "goes with "+u.ID.String())
	}
	if f.Link.Width > 0 && (f.Link.Width < f.Link.MaxWidth || f.Link.SpeedMTs < f.Link.MaxSpeedMTs) {
		words = append(words, fmt.Sprintf("link x%d of x%d at %g of %g GT/s", f.Link.Width, f.Link.MaxWidth, float64(f.Link.SpeedMTs)/1000, float64(f.Link.MaxSpeedMTs)/1000))
	}
	for _, n := range [][]string{f.Net, f.RDMA, f.DRM, f.Block} {
		if len(n) > 0 {
			words = append(words, strings.Join(n, " "))
		}
	}
	if len(f.Mdevs) > 0 {
		words = append(words, fmt.Sprintf("%d mediated devices", len(f.Mdevs)))
	}
	if s := vfSummary(p.r.host, f); s != "" {
		words = append(words, s)
	}
	if who := p.holder(f); who != "" {
		words = append(words, "held by "+who)
	}
	p.line("%s%s", indent, strings.Join(words, "  "))
	if u := p.unitOf[f.Address]; u != nil && u.ID == f.Address && u.Blocked != "" && u.Group >= 0 {
		p.line("%s  cannot be handed out: %s", indent, u.Blocked)
	}
}

func (p *printer) holder(f *topology.Function) string {
	for _, n := range host.VFIONodes(f) {
		if w := p.r.holders[n]; w != "" {
			return w
		}
	}
	held := 0
	for _, v := range f.VFs {
		vf := p.r.host.Function(v)
		if vf == nil {
			continue
		}
		for _, n := range host.VFIONodes(vf) {
			if p.r.holders[n] != "" {
				held++
				break
			}
		}
	}
	if held > 0 {
		return fmt.Sprintf("processes on %d of its VFs", held)
	}
	return ""
}
