package draw

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Measures of the picture in pixels.
const (
	pad       = 12 // around and between boxes
	titleH    = 22 // a box' title line
	deviceW   = 206
	deviceH   = 58
	cellW     = 46 // a virtual function in its group
	cellH     = 22
	cellGap   = 4
	lineH     = 15
	maxRow    = 4 // root complexes side by side
	devPerRow = 2 // devices of a root complex side by side
	textChars = 32
)

const style = `<style>
rect { stroke-width: 1 }
text { fill: #1d2733; font-size: 12px }
.title { font-weight: bold }
.small { font-size: 10.5px; fill: #44515f }
.page > rect { fill: #ffffff; stroke: none }
.page > .title { font-size: 15px }
.socket > rect { fill: #f3f5f8; stroke: #b6c0cc }
.numa > rect { fill: #e8eef6; stroke: #9fb2c8 }
.root > rect { fill: #ffffff; stroke: #8094a8 }
.switch > rect { fill: #fdf6e3; stroke: #cdb36b }
.group > rect { fill: #f6f9fd; stroke: #a9bfd8 }
.gpu > rect { fill: #dff2e1; stroke: #4d9a57 }
.net > rect { fill: #e0ecfb; stroke: #4f7fb8 }
.disk > rect { fill: #f1e6f7; stroke: #8b62a5 }
.other > rect { fill: #f4f4f4; stroke: #9a9a9a }
.free > rect { fill: #ffffff; stroke: #4d9a57 }
.notoffered > rect { fill: #f1f2f4; stroke: #a6adb5 }
.notready > rect { fill: #fde3e1; stroke: #c0392b; stroke-width: 2 }
.blocked > rect { stroke-dasharray: 5 3 }
.cell { font-size: 9.5px }
</style>
`

// laid is a box with its place: x and y are the page's once placed.
type laid struct {
	*Box
	x, y, w, h int
	inner      []*laid
	column     bool // inner boxes are one below the other
	cell       bool // a small box of a group
}

// SVG draws the box and what is in it as nested rectangles. Devices have the
// colour of their state and holder where these are set, else that of their kind.
func SVG(w io.Writer, b *Box) error {
	top := lay(b, false)
	stretch(top, 0, 0)
	out := bufio.NewWriter(w)
	_, _ = fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="DejaVu Sans, Verdana, sans-serif">`+"\n", top.w, top.h, top.w, top.h)
	_, _ = fmt.Fprint(out, style) // a bufio.Writer keeps its error for Flush
	top.draw(out)
	_, _ = fmt.Fprint(out, "</svg>\n")
	return out.Flush()
}

// lay measures a box and gives the boxes in it places relative to it.
func lay(b *Box, cell bool) *laid {
	l := &laid{Box: b, cell: cell}
	switch {
	case cell:
		l.w, l.h = cellW, cellH
		return l
	case b.Kind.Device():
		l.w, l.h = deviceW, deviceH
		if b.State != "" {
			l.h += lineH // its state in words
		}
		return l
	}
	group := b.Kind == Group
	for _, c := range b.Inner {
		l.inner = append(l.inner, lay(c, group))
	}
	switch b.Kind {
	case Page, Socket:
		l.arrange(1, pad)
	case NUMA:
		l.arrange(maxRow, pad)
	case Group:
		l.arrange(4, cellGap)
		l.w = max(l.w, deviceW)
	default:
		l.arrange(devPerRow, pad)
	}
	return l
}

// arrange puts the inner boxes into rows of n with a gap between them and sets
// the box' size.
func (l *laid) arrange(n, gap int) {
	top := pad
	if l.Title != "" {
		top += titleH + len(l.Lines)*lineH - pad/2
	}
	y, width := top, 0
	for i := 0; i < len(l.inner); i += n {
		x, high := pad, 0
		for _, c := range l.inner[i:min(i+n, len(l.inner))] {
			c.x, c.y = x, y
			x += c.w + gap
			high = max(high, c.h)
		}
		width = max(width, x-gap+pad)
		y += high + gap
	}
	if len(l.inner) > 0 {
		y += pad - gap
	}
	for i, text := range append([]string{l.Title}, l.Lines...) {
		perChar := 8.0
		if i > 0 {
			perChar = 6.3
		}
		width = max(width, int(perChar*float64(utf8.RuneCountInString(text)))+2*pad)
	}
	l.w, l.h, l.column = width, y, n == 1
}

// stretch turns relative places into those of the page and gives the boxes of a
// column one width.
func stretch(l *laid, x, y int) {
	l.x += x
	l.y += y
	for _, c := range l.inner {
		if l.column {
			c.w = l.w - 2*pad
		}
		stretch(c, l.x, l.y)
	}
}

func (l *laid) draw(w io.Writer) {
	class := string(l.Kind)
	if l.State != "" {
		class += " " + string(l.State)
	}
	if l.Problem != "" {
		class += " blocked"
		if l.State == Held {
			class += " notready"
		}
	}
	_, _ = fmt.Fprintf(w, `<g class="%s">`, class)
	if tip := l.tip(); tip != "" {
		_, _ = fmt.Fprintf(w, "<title>%s</title>", escape(tip))
	}
	fill := ""
	if l.State == Held && l.Holder != "" {
		hue := float64(Hue(l.Holder))
		fill = fmt.Sprintf(` style="fill:%s;stroke:%s"`, hsl(hue, 0.75, 0.84), hsl(hue, 0.55, 0.42))
		if l.Problem != "" {
			fill = fmt.Sprintf(` style="fill:%s"`, hsl(hue, 0.75, 0.84)) // the frame says that it is in trouble
		}
	}
	_, _ = fmt.Fprintf(w, `<rect x="%d" y="%d" width="%d" height="%d" rx="%d"%s/>`, l.x, l.y, l.w, l.h, l.radius(), fill)
	switch {
	case l.cell:
		_, _ = fmt.Fprintf(w, `<text class="cell" x="%d" y="%d" text-anchor="middle">%s</text>`, l.x+l.w/2, l.y+15, escape(tail(l.Title)))
	case l.Title != "":
		_, _ = fmt.Fprintf(w, `<text class="title" x="%d" y="%d">%s</text>`, l.x+8, l.y+16, escape(l.Title))
		for i, line := range l.words() {
			if l.Kind.Device() {
				line = fit(line)
			}
			_, _ = fmt.Fprintf(w, `<text class="small" x="%d" y="%d">%s</text>`, l.x+8, l.y+16+(i+1)*lineH, escape(line))
		}
	}
	for _, c := range l.inner {
		c.draw(w)
	}
	_, _ = fmt.Fprint(w, "</g>\n")
}

// words are the lines of a box; what does not fit is in the tip.
func (l *laid) words() []string {
	if !l.Kind.Device() {
		return l.Lines
	}
	lines := l.Lines[:min(len(l.Lines), 2)]
	switch {
	case l.Problem != "" && l.State != "":
		return append(slices.Clip(lines), "NOT READY")
	case l.Holder != "":
		return append(slices.Clip(lines), l.Holder)
	case l.State != "":
		return append(slices.Clip(lines), status(l.Box))
	}
	return lines
}

func (l *laid) radius() int {
	if l.cell {
		return 3
	}
	return 6
}

// tip is the text for who points at the box.
func (l *laid) tip() string {
	parts := []string{}
	if l.Kind.Device() {
		parts = append(parts, l.Title)
		parts = append(parts, l.Lines...)
	}
	if l.Tip != "" {
		parts = append(parts, l.Tip)
	}
	if l.Holder != "" {
		parts = append(parts, "held by "+l.Holder)
	}
	if l.Problem != "" {
		parts = append(parts, l.Problem)
	}
	return strings.Join(parts, "\n")
}

// tail is the end of an address that tells it from its neighbours: bus, device and
// function without the domain.
func tail(title string) string {
	word := title[strings.LastIndexByte(title, ' ')+1:]
	if i := strings.IndexByte(word, ':'); i >= 0 {
		return word[i+1:]
	}
	return word
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

// hsl is a colour in the notation that every viewer reads: hue in degrees,
// saturation and lightness from 0 to 1.
func hsl(h, s, l float64) string {
	a := s * min(l, 1-l)
	channel := func(n float64) int {
		k := math.Mod(n+h/30, 12)
		return int(math.Round(255 * (l - a*max(-1, min(k-3, 9-k, 1)))))
	}
	return fmt.Sprintf("#%02x%02x%02x", channel(0), channel(8), channel(4))
}
