package hostcmd

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/topology"
)

// Measures of the picture in pixels.
const (
	pad       = 12 // around and between boxes
	titleH    = 22 // a box' title line
	deviceW   = 206
	deviceH   = 58
	lineH     = 15
	maxRow    = 4 // root complexes side by side
	devPerRow = 2 // devices of a root complex side by side
	textChars = 32
)

// box is a rectangle of the picture with a title and what is in it.
type box struct {
	x, y, w, h int
	kind       string // CSS class
	title      string
	lines      []string
	tip        string
	inner      []*box
	column     bool // inner boxes are one below the other
}

// writeSVG draws sockets, NUMA nodes, root complexes, switches and devices as
// nested boxes.
func writeSVG(w io.Writer, r *Report) error {
	top := picture(r)
	out := bufio.NewWriter(w)
	_, _ = fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="DejaVu Sans, Verdana, sans-serif">`+"\n", top.w, top.h, top.w, top.h)
	_, _ = fmt.Fprint(out, `<style>
rect { stroke-width: 1 }
text { fill: #1d2733; font-size: 12px }
.title { font-weight: bold }
.small { font-size: 10.5px; fill: #44515f }
.page > rect { fill: #ffffff; stroke: none }
.socket > rect { fill: #f3f5f8; stroke: #b6c0cc }
.numa > rect { fill: #e8eef6; stroke: #9fb2c8 }
.root > rect { fill: #ffffff; stroke: #8094a8 }
.switch > rect { fill: #fdf6e3; stroke: #cdb36b }
.gpu > rect { fill: #dff2e1; stroke: #4d9a57 }
.net > rect { fill: #e0ecfb; stroke: #4f7fb8 }
.disk > rect { fill: #f1e6f7; stroke: #8b62a5 }
.other > rect { fill: #f4f4f4; stroke: #9a9a9a }
.blocked > rect { stroke-dasharray: 5 3 }
</style>
`)
	draw(out, top)
	_, _ = fmt.Fprint(out, "</svg>\n")
	return out.Flush()
}

// escape makes text safe inside XML.
func escape(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return ""
	}
	return b.String()
}

// fit cuts text to what a line of a device's box holds.
func fit(s string) string {
	if utf8.RuneCountInString(s) <= textChars {
		return s
	}
	r := []rune(s)
	return string(r[:textChars-1]) + "…"
}

func draw(w io.Writer, b *box) {
	_, _ = fmt.Fprintf(w, `<g class="%s">`, b.kind)
	if b.tip != "" {
		_, _ = fmt.Fprintf(w, "<title>%s</title>", escape(b.tip))
	}
	_, _ = fmt.Fprintf(w, `<rect x="%d" y="%d" width="%d" height="%d" rx="6"/>`, b.x, b.y, b.w, b.h)
	if b.title != "" {
		_, _ = fmt.Fprintf(w, `<text class="title" x="%d" y="%d">%s</text>`, b.x+8, b.y+16, escape(b.title))
	}
	for i, l := range b.lines {
		_, _ = fmt.Fprintf(w, `<text class="small" x="%d" y="%d">%s</text>`, b.x+8, b.y+16+(i+1)*lineH, escape(l))
	}
	for _, c := range b.inner {
		draw(w, c)
	}
	_, _ = fmt.Fprint(w, "</g>\n")
}

// picture arranges the whole page.
func picture(r *Report) *box {
	unitOf := map[topology.Address]*topology.Unit{}
	for i := range r.units {
		for _, m := range r.units[i].Members {
			unitOf[m] = &r.units[i]
		}
	}
	d := &drawing{r: r, unitOf: unitOf}
	page := &box{kind: "page"}
	sockets := map[int]*box{}
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
			s = &box{kind: "socket", title: title}
			sockets[g.socket] = s
			page.inner = append(page.inner, s)
		}
		s.inner = append(s.inner, n)
	}
	for _, s := range page.inner {
		arrange(s, 1)
	}
	arrange(page, 1)
	place(page, 0, 0)
	return page
}

// arrange puts the inner boxes into rows of n and sets the box' size; the
// places of the inner boxes are relative to it.
func arrange(b *box, n int) {
	top := pad
	if b.title != "" {
		top += titleH + len(b.lines)*lineH - pad/2
	}
	y, width := top, 0
	for i := 0; i < len(b.inner); i += n {
		x, high := pad, 0
		for _, c := range b.inner[i:min(i+n, len(b.inner))] {
			c.x, c.y = x, y
			x += c.w + pad
			high = max(high, c.h)
		}
		width = max(width, x)
		y += high + pad
	}
	b.w, b.h = max(width, 8*len(b.title)+2*pad), y
	b.column = n == 1
}

// place turns relative places into those of the page.
func place(b *box, x, y int) {
	b.x += x
	b.y += y
	for _, c := range b.inner {
		if b.column {
			c.w = b.w - 2*pad // a column's boxes share their width
		}
		place(c, b.x, b.y)
	}
}

// drawing makes boxes.
type drawing struct {
	r      *Report
	unitOf map[topology.Address]*topology.Unit
}

func (d *drawing) numa(g *group) *box {
	b := &box{kind: "numa", title: "NUMA node not known"}
	if n := d.r.host.NUMANode(g.numa); n != nil {
		b.title = fmt.Sprintf("NUMA node %d", n.ID)
		b.lines = []string{fmt.Sprintf("CPUs %s · %s%s", nonEmpty(host.FormatList(n.CPUs), "none"), bytesText(n.MemoryBytes), strings.ReplaceAll(hugeText(n), "  ", " · "))}
	}
	for _, r := range g.roots {
		if empty(r) {
			continue
		}
		rb := &box{kind: "root", title: "Root complex " + r.name}
		rb.inner = d.below(r)
		arrange(rb, devPerRow)
		b.inner = append(b.inner, rb)
	}
	if len(b.inner) == 0 && g.numa == topology.NUMAUnknown {
		return nil
	}
	arrange(b, maxRow)
	return b
}

// below makes the boxes of what hangs on a branch. Root ports and downstream
// ports are not drawn: what matters is what shares a switch.
func (d *drawing) below(b *branch) []*box {
	var out []*box
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
			s := &box{kind: "switch", title: "Switch " + c.name}
			s.inner = d.below(c)
			arrange(s, devPerRow)
			out = append(out, s)
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

func (d *drawing) device(f *topology.Function, u *topology.Unit) *box {
	b := &box{kind: "other", w: deviceW, h: deviceH, title: className(f) + " " + f.Address.String()}
	switch {
	case isGPU(f):
		b.kind = "gpu"
	case f.Class>>16 == 0x02:
		b.kind = "net"
	case f.Class>>16 == 0x01:
		b.kind = "disk"
	}
	b.lines = []string{fit(d.r.names.product(f))}
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
	b.lines = append(b.lines, fit(last))
	b.tip = strings.Join([]string{f.Address.String(), d.r.names.product(f), last, vfSummary(d.r.host, f)}, "\n")
	if u != nil && u.Blocked != "" {
		b.kind += " blocked"
		b.tip += "\n" + u.Blocked
	}
	return b
}
