package rendercmd

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/launcher/domain"
	"github.com/kubevfio/kubevfio/topology"
)

// The drawing's measures in pixels.
const (
	boxWidth   = 210
	boxHeight  = 34
	gap        = 10
	pad        = 12
	title      = 22
	sideWidth  = boxWidth + 4*pad
	sidesApart = 150
	top        = 74
)

// group is a NUMA node with its root complexes.
type group struct {
	name  string
	roots []rootBox
}

type rootBox struct {
	name  string
	lines []line
}

// line is one device; key ties host and guest together.
type line struct{ key, text, sub string }

// writeSVG draws the host's side on the left, the guest's on the right, and a
// line from each function to what the guest sees of it.
func writeSVG(w io.Writer, in *domain.Input, r *domain.Report) error {
	left, right := sides(in, r)
	var b strings.Builder
	leftAt := map[string][2]int{}
	rightAt := map[string][2]int{}
	h := max(drawSide(&b, left, pad, leftAt, true), drawSide(&b, right, pad+sideWidth+sidesApart, rightAt, false))
	for _, d := range r.Devices {
		a, z := leftAt[d.Guest], rightAt[d.Guest]
		mid := (a[0] + z[0]) / 2
		fmt.Fprintf(&b, `<path d="M%d %d C%d %d %d %d %d %d" class="tie"/>`+"\n", a[0], a[1], mid, a[1], mid, z[1], z[0], z[1])
	}
	width := 2*pad + 2*sideWidth + sidesApart
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">
<title>%s: host and guest topology</title>
<style>
text{font:12px sans-serif;fill:#1b1f24}.h{font-weight:bold;font-size:14px}.s{fill:#57606a;font-size:11px}
.node{fill:#eef4fb;stroke:#7a9cc6}.root{fill:#fff;stroke:#9aa4af}.dev{fill:#e7f5ec;stroke:#5b9a6f}.cpu{fill:#fdf4e3;stroke:#c9a24a}
.tie{fill:none;stroke:#5b9a6f;stroke-width:1.5;opacity:.7}
</style>
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="%d" y="24" class="h">%s</text>
<text x="%d" y="44" class="s">%d vCPUs, %s memory, MMIO window %s</text>
<text x="%d" y="68" class="h">host</text><text x="%d" y="68" class="h">guest</text>
`, width, h+pad, width, h+pad, html.EscapeString(in.Name), pad, html.EscapeString(in.Name), pad, r.VCPUs, size(r.MemoryBytes), size(r.Window.Size), pad, pad+sideWidth+sidesApart)
	_, err := io.WriteString(w, head+b.String()+"</svg>\n")
	return err
}

// sides arranges the report by NUMA node and root complex.
func sides(in *domain.Input, r *domain.Report) (host, guest []group) {
	type key struct {
		numa int
		root string
	}
	var keys []key
	by := map[key][]domain.DeviceReport{}
	for _, d := range r.Devices {
		k := key{d.NUMA, d.Root}
		if _, ok := by[k]; !ok {
			keys = append(keys, k)
		}
		by[k] = append(by[k], d)
	}
	slices.SortStableFunc(keys, func(a, b key) int { return cmp.Compare(a.numa, b.numa) })
	nodes := map[int]*group{}
	var order []int
	node := func(id int) *group {
		if nodes[id] == nil {
			name := fmt.Sprintf("NUMA node %d", id)
			if id == topology.NUMAUnknown {
				name = "NUMA node unknown"
			} else if n := in.Host.NUMANode(id); n != nil {
				name += fmt.Sprintf(" (%d CPUs)", len(n.CPUs))
			}
			nodes[id] = &group{name: name}
			order = append(order, id)
		}
		return nodes[id]
	}
	for _, c := range r.Cells {
		if c.HostNode != nil {
			node(*c.HostNode)
		}
	}
	for _, k := range keys {
		x := rootBox{name: k.root}
		for _, d := range by[k] {
			x.lines = append(x.lines, line{d.Guest, d.Name, d.Host})
		}
		node(k.numa).roots = append(node(k.numa).roots, x)
	}
	slices.Sort(order)
	for _, id := range order {
		host = append(host, *nodes[id])
	}
	guest = guestSide(r)
	return host, guest
}

func guestSide(r *domain.Report) []group {
	var out []group
	for _, c := range r.Cells {
		cpus := "no CPUs"
		if c.VCPUs != "" {
			cpus = "vCPUs " + c.VCPUs
		}
		g := group{name: fmt.Sprintf("cell %d (%s, %s)", c.Cell, cpus, size(c.MemoryBytes))}
		for _, e := range r.Expanders {
			if e.Cell != nil && *e.Cell == c.Cell {
				g.roots = append(g.roots, guestRoot(r, e))
			}
		}
		out = append(out, g)
	}
	none := group{name: "no cell"}
	for _, e := range r.Expanders {
		if e.Cell == nil {
			none.roots = append(none.roots, guestRoot(r, e))
		}
	}
	if len(none.roots) > 0 {
		out = append(out, none)
	}
	root := rootBox{name: "pcie.0 (bus 00), emulated"}
	for _, e := range r.Emulated {
		root.lines = append(root.lines, line{"", e.Device, e.Guest})
	}
	if len(root.lines) > 0 {
		out = append(out, group{name: "chipset", roots: []rootBox{root}})
	}
	return out
}

func guestRoot(r *domain.Report, e domain.ExpanderReport) rootBox {
	x := rootBox{name: fmt.Sprintf("expander, buses %02x-%02x", e.Bus, e.LastBus)}
	for _, d := range r.Devices {
		if d.Root == e.Root && d.NUMA == e.NUMA {
			x.lines = append(x.lines, line{d.Guest, d.Name, d.Guest})
		}
	}
	return x
}

// drawSide draws one side from top to bottom, notes where each device's line
// ends, and gives the lowest point.
func drawSide(b *strings.Builder, groups []group, x int, at map[string][2]int, rightEdge bool) int {
	y := top
	for _, g := range groups {
		height := title + pad
		for _, r := range g.roots {
			height += title + len(r.lines)*(boxHeight+gap) + gap
		}
		rect(b, "node", x, y, sideWidth, height)
		text(b, "h", x+pad, y+16, g.name)
		in := y + title
		for _, r := range g.roots {
			h := title + len(r.lines)*(boxHeight+gap)
			rect(b, "root", x+pad, in, boxWidth+2*pad, h)
			text(b, "", x+2*pad, in+15, r.name)
			for i, l := range r.lines {
				ly := in + title + i*(boxHeight+gap)
				class := "dev"
				if l.key == "" {
					class = "cpu"
				}
				rect(b, class, x+2*pad, ly, boxWidth, boxHeight)
				text(b, "", x+2*pad+8, ly+14, l.text)
				text(b, "s", x+2*pad+8, ly+28, l.sub)
				edge := x + 2*pad
				if rightEdge {
					edge += boxWidth
				}
				if l.key != "" {
					at[l.key] = [2]int{edge, ly + boxHeight/2}
				}
			}
			in += h + gap
		}
		y += height + gap
	}
	return y
}

func rect(b *strings.Builder, class string, x, y, w, h int) {
	fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="5"/>`+"\n", class, x, y, w, h)
}

func text(b *strings.Builder, class string, x, y int, s string) {
	fmt.Fprintf(b, `<text class="%s" x="%d" y="%d">%s</text>`+"\n", class, x, y, html.EscapeString(s))
}
