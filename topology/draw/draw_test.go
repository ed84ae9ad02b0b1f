package draw_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubevfio/kubevfio/topology/draw"
)

func device(kind draw.Kind, title string, state draw.State, holder string) *draw.Box {
	return &draw.Box{Kind: kind, Title: title, Ref: title, Lines: []string{"model", "example.com/res"}, State: state, Holder: holder}
}

// scene has every kind of box, and text that XML would misread.
func scene() *draw.Box {
	sick := device(draw.Disk, "0000:01:00.0", draw.NotReady, "")
	sick.Problem, sick.Tip = `<"reset" & failed>`, "with 0000:01:00.1"
	group := &draw.Box{Kind: draw.Group, Title: "VFs of 0000:02:00.0", Lines: []string{"VF"}}
	for i := range 5 {
		v := device(draw.Net, fmt.Sprintf("0000:02:10.%d", i), draw.Free, "")
		if i == 1 {
			v.State, v.Holder = draw.Held, "vmi a/b"
		}
		group.Inner = append(group.Inner, v)
	}
	root := &draw.Box{Kind: draw.Root, Title: "Root complex pci0000:00", Inner: []*draw.Box{
		{Kind: draw.Switch, Title: "Switch 0000:00:01.0", Inner: []*draw.Box{device(draw.GPU, "0000:03:00.0", draw.Held, "vmi a/b"), sick}},
		group,
		device(draw.Other, "0000:04:00.0", draw.NotOffered, ""),
	}}
	return &draw.Box{Kind: draw.Page, Title: "node", Lines: []string{"policy"}, Inner: []*draw.Box{
		{Kind: draw.Socket, Title: "Socket 0", Inner: []*draw.Box{{Kind: draw.NUMA, Title: "NUMA node 0", Lines: []string{"CPUs 0-3"}, Inner: []*draw.Box{root}}}},
	}}
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	if err := draw.Text(&b, scene()); err != nil {
		t.Fatal(err)
	}
	want := `node  policy
└─ Socket 0
   └─ NUMA node 0  CPUs 0-3
      └─ Root complex pci0000:00
         ├─ Switch 0000:00:01.0
         │  ├─ 0000:03:00.0  model  example.com/res  held by vmi a/b
         │  └─ 0000:01:00.0  model  example.com/res  NOT READY: <"reset" & failed>
         │     └─ with 0000:01:00.1
         ├─ VFs of 0000:02:00.0  VF
         │  ├─ 0000:02:10.0                 free
         │  ├─ 0000:02:10.1                 held by vmi a/b
         │  └─ 0000:02:10.2 … 0000:02:10.4  3 free
         └─ 0000:04:00.0  model  example.com/res  not offered
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// rect is a rectangle of the picture with what it is.
type rect struct {
	class      string
	x, y, w, h int
	depth      int
}

func rects(t *testing.T, svg string) []rect {
	t.Helper()
	var list []rect
	var classes []string
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatalf("no well-formed XML: %v\n%s", err, svg)
		}
		switch e := token.(type) {
		case xml.StartElement:
			attrs := map[string]string{}
			for _, a := range e.Attr {
				attrs[a.Name.Local] = a.Value
			}
			switch e.Name.Local {
			case "g":
				classes = append(classes, attrs["class"])
			case "rect":
				r := rect{class: classes[len(classes)-1], depth: len(classes)}
				for name, v := range map[string]*int{"x": &r.x, "y": &r.y, "width": &r.w, "height": &r.h} {
					if _, err := fmt.Sscan(attrs[name], v); err != nil {
						t.Fatal(err)
					}
				}
				list = append(list, r)
			}
		case xml.EndElement:
			if e.Name.Local == "g" {
				classes = classes[:len(classes)-1]
			}
		}
	}
}

func TestSVG(t *testing.T) {
	var b bytes.Buffer
	if err := draw.SVG(&b, scene()); err != nil {
		t.Fatal(err)
	}
	list := rects(t, b.String())
	classes := map[string]int{}
	var above []rect
	for _, r := range list {
		classes[r.class]++
		above = append(above[:r.depth-1], r)
		if len(above) < 2 {
			continue
		}
		if o := above[len(above)-2]; r.x < o.x || r.y < o.y || r.x+r.w > o.x+o.w || r.y+r.h > o.y+o.h {
			t.Errorf("%+v sticks out of %+v", r, o)
		}
	}
	for i, r := range list {
		for _, o := range list[i+1:] {
			if r.depth == o.depth && r.x < o.x+o.w && o.x < r.x+r.w && r.y < o.y+o.h && o.y < r.y+r.h {
				t.Errorf("%+v and %+v overlap", r, o)
			}
		}
	}
	want := map[string]int{
		"page": 1, "socket": 1, "numa": 1, "root": 1, "switch": 1, "group": 1, "gpu held": 1, "disk notready blocked": 1,
		"net free": 4, "net held": 1, "other notoffered": 1,
	}
	if d := cmp.Diff(want, classes); d != "" {
		t.Errorf("boxes (-want +got):\n%s", d)
	}
}

func TestHue(t *testing.T) {
	seen := map[int]bool{}
	for i := range 200 {
		h := draw.Hue(fmt.Sprintf("vmi vms/machine-%d", i))
		if h < 15 || h > 345 {
			t.Fatalf("hue %d looks like trouble", h)
		}
		seen[h] = true
	}
	if len(seen) < 10 {
		t.Errorf("%d colours for 200 holders", len(seen))
	}
}
