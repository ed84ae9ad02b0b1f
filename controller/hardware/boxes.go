package hardware

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/topology/draw"
)

// unknown sorts behind all numbers of sockets and NUMA nodes.
const unknown = int32(1) << 30

// Boxes arranges units of a node as they hang in it: socket, NUMA node, root
// complex, switches, device; the virtual functions of one physical function share a
// group. units are all of the node's or some, as [Units] makes them; NUMA nodes
// without any are left out unless all is true.
func Boxes(inv *v1alpha1.NodeInventory, units []Unit, all bool) *draw.Box {
	page := &draw.Box{Kind: draw.Page, Title: inv.Name, Lines: []string{policies(inv)}}
	byNUMA := map[int32][]Unit{}
	for _, u := range units {
		id := unknown
		if u.NUMA != nil {
			id = *u.NUMA
		}
		byNUMA[id] = append(byNUMA[id], u)
	}
	nodes := map[int32]*v1alpha1.InventoryNUMANode{}
	for i := range inv.Spec.NUMANodes {
		n := &inv.Spec.NUMANodes[i]
		nodes[n.ID] = n
		if all && byNUMA[n.ID] == nil {
			byNUMA[n.ID] = []Unit{}
		}
	}
	socketOf := func(id int32) int32 {
		if n := nodes[id]; n != nil && n.Socket != nil {
			return *n.Socket
		}
		return unknown
	}
	ids := slices.Collect(maps.Keys(byNUMA))
	slices.SortFunc(ids, func(a, b int32) int { return cmp.Or(cmp.Compare(socketOf(a), socketOf(b)), cmp.Compare(a, b)) })
	var socket *draw.Box
	last := int32(-1)
	for _, id := range ids {
		if s := socketOf(id); s != last {
			last = s
			title := "Socket not known"
			if s != unknown {
				title = fmt.Sprintf("Socket %d", s)
			}
			socket = &draw.Box{Kind: draw.Socket, Title: title}
			page.Inner = append(page.Inner, socket)
		}
		socket.Inner = append(socket.Inner, numaBox(nodes[id], byNUMA[id]))
	}
	return page
}

func policies(inv *v1alpha1.NodeInventory) string {
	k := inv.Spec.Kubelet
	return fmt.Sprintf("topology manager %s, CPU manager %s", cmp.Or(k.TopologyManagerPolicy, "unknown"), cmp.Or(k.CPUManagerPolicy, "unknown"))
}

func numaBox(n *v1alpha1.InventoryNUMANode, units []Unit) *draw.Box {
	b := &draw.Box{Kind: draw.NUMA, Title: "NUMA node not known"}
	if n != nil {
		b.Title = fmt.Sprintf("NUMA node %d", n.ID)
		b.Lines = []string{fmt.Sprintf("CPUs %s · %s%s", cmp.Or(n.CPUs, "none"), memory(n.MemoryMiB), hugepages(n))}
	}
	b.Inner = below(units, 0)
	return b
}

// memory is a size for people.
func memory(mib int64) string {
	if mib >= 1024 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(mib)/1024), ".0") + " GiB"
	}
	return fmt.Sprintf("%d MiB", mib)
}

func hugepages(n *v1alpha1.InventoryNUMANode) string {
	text := ""
	for _, size := range slices.Sorted(maps.Keys(n.Hugepages)) {
		if c := n.Hugepages[size]; c > 0 {
			text += fmt.Sprintf(" · %d × %s pages", c, size)
		}
	}
	return text
}

// below makes the boxes of units whose path has the same first depth names.
func below(units []Unit, depth int) []*draw.Box {
	var out []*draw.Box
	place := map[string]*draw.Box{}
	inside := map[string][]Unit{}
	groups := map[string]*draw.Box{}
	for i := range units {
		u := &units[i]
		if depth < len(u.Path) {
			name := u.Path[depth]
			if place[name] == nil {
				place[name] = &draw.Box{Kind: draw.Switch, Title: "Switch " + name}
				if depth == 0 {
					place[name] = &draw.Box{Kind: draw.Root, Title: "Root complex " + name}
				}
				out = append(out, place[name])
			}
			inside[name] = append(inside[name], *u)
			continue
		}
		if u.PF == "" {
			out = append(out, device(u))
			continue
		}
		// One group has one resource: a pool may take some functions of a PF.
		key := u.PF + " " + u.Resource
		g := groups[key]
		if g == nil {
			g = &draw.Box{Kind: draw.Group, Title: "VFs of " + u.PF, Lines: details(u)}
			groups[key] = g
			out = append(out, g)
		}
		v := device(u)
		v.Title = u.Address
		g.Inner = append(g.Inner, v)
	}
	for name, b := range place {
		b.Inner = below(inside[name], depth+1)
	}
	return out
}

func details(u *Unit) []string {
	lines := []string{}
	if u.Product != "" {
		lines = append(lines, u.Product)
	}
	if u.Resource != "" {
		lines = append(lines, u.Resource)
	}
	return lines
}

func device(u *Unit) *draw.Box {
	b := &draw.Box{Kind: u.Class, Title: u.Address, Ref: u.Address, Lines: details(u), Problem: u.Problem}
	if len(u.Members) > 0 {
		b.Tip = "with " + strings.Join(u.Members, ", ")
	}
	switch u.State {
	case Held:
		b.State, b.Holder = draw.Held, u.Holder.String()
	case NotReady:
		b.State = draw.NotReady
	case NotOffered:
		b.State = draw.NotOffered
	default:
		b.State = draw.Free
	}
	return b
}
