package hostcmd

import (
	"fmt"
	"io"
	"strings"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/topology"
	"github.com/kubevfio/kubevfio/topology/draw"
)

// writeSVG draws sockets, NUMA nodes, root complexes, switches and devices as
// nested boxes.
func writeSVG(w io.Writer, r *Report) error { return draw.SVG(w, picture(r)) }

// picture arranges the whole page.
func picture(r *Report) *draw.Box {
	unitOf := map[topology.Address]*topology.Unit{}
	for i := range r.units {
		for _, m := range r.units[i].Members {
			unitOf[m] = &r.units[i]
		}
	}
	d := &drawing{r: r, unitOf: unitOf}
	page := &draw.Box{Kind: draw.Page}
	sockets := map[int]*draw.Box{}
	for _, g := range groups(r.host) {
		n := d.numa(&g)
		if n == nil {
			continue
		}
		s := sockets[g.socket]
		if s == nil {
			title := fmt.Sprintf("Socket %d", g.socket)
			if g.socket < 0 {
				title = "Socket not known"
			}
			s = &draw.Box{Kind: draw.Socket, Title: title}
			sockets[g.socket] = s
			page.Inner = append(page.Inner, s)
		}
		s.Inner = append(s.Inner, n)
	}
	return page
}

// drawing makes boxes.
type drawing struct {
	r      *Report
	unitOf map[topology.Address]*topology.Unit
}

func (d *drawing) numa(g *group) *draw.Box {
	b := &draw.Box{Kind: draw.NUMA, Title: "NUMA node not known"}
	if n := d.r.host.NUMANode(g.numa); n != nil {
		b.Title = fmt.Sprintf("NUMA node %d", n.ID)
		b.Lines = []string{fmt.Sprintf("CPUs %s · %s%s", nonEmpty(host.FormatList(n.CPUs), "none"), bytesText(n.MemoryBytes), strings.ReplaceAll(hugeText(n), "  ", " · "))}
	}
	for _, r := range g.roots {
		if empty(r) {
			continue
		}
		b.Inner = append(b.Inner, &draw.Box{Kind: draw.Root, Title: "Root complex " + r.name, Inner: d.below(r)})
	}
	if len(b.Inner) == 0 && g.numa == topology.NUMAUnknown {
		return nil
	}
	return b
}

// below makes the boxes of what hangs on a branch. Root ports and downstream
// ports are not drawn: what matters is what shares a switch.
func (d *drawing) below(b *branch) []*draw.Box {
	var out []*draw.Box
	for _, f := range b.leaves {
		if u := d.unitOf[f.Address]; !dull(f) && (u == nil || u.ID == f.Address) {
			out = append(out, d.device(f, u))
		}
	}
	for _, c := range b.branches {
		if empty(c) {
			continue
		}
		if isSwitch(c) {
			out = append(out, &draw.Box{Kind: draw.Switch, Title: "Switch " + c.name, Inner: d.below(c)})
			continue
		}
		out = append(out, d.below(c)...)
	}
	return out
}

// isSwitch tells an upstream port: all that hangs on it are ports.
func isSwitch(b *branch) bool {
	return b.bridge != nil && len(b.bridge.Path)%2 == 1 && len(b.leaves) == 0 && len(b.branches) > 0
}

func (d *drawing) device(f *topology.Function, u *topology.Unit) *draw.Box {
	b := &draw.Box{Kind: draw.KindOfClass(f.Class), Title: className(f) + " " + f.Address.String(), Ref: f.Address.String()}
	last := nonEmpty(f.Driver, "no driver")
	if f.IOMMUGroup >= 0 {
		last += fmt.Sprintf(" · group %d", f.IOMMUGroup)
	}
	if u != nil && len(u.Members) > 1 {
		last += fmt.Sprintf(" · +%d fn", len(u.Members)-1)
	}
	if f.NumVFs > 0 {
		last += fmt.Sprintf(" · %d VFs", f.NumVFs)
	}
	b.Lines = []string{d.r.names.product(f), last}
	b.Tip = vfSummary(d.r.host, f)
	if u != nil {
		b.Problem = u.Blocked
	}
	return b
}
