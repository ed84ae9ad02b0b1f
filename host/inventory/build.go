package inventory

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
)

// Input is what an inventory is built from.
type Input struct {
	Host      *topology.Host
	Selection *pool.Selection
	// Faults are reasons why units cannot be handed out beyond those of the
	// selection (health, quarantine), by unit ID. May be nil.
	Faults map[topology.Address]string
	// Product names a device model, empty when unknown. May be nil.
	Product func(vendor, device uint16) string

	AgentVersion string
	Kubelet      v1alpha1.KubeletPolicy
	Launcher     v1alpha1.LauncherSupport
	Fabric       []v1alpha1.FabricPartition
}

// maxReason bounds a reason's length: a thousand units may have one each.
const maxReason = 120

// builder collects the tables.
type builder struct {
	in    Input
	spec  *v1alpha1.NodeInventorySpec
	at    map[string]int32
	kinds map[v1alpha1.DeviceKind]int32
	res   map[string]int32
}

// Build makes the spec.
func Build(in Input) v1alpha1.NodeInventorySpec {
	b := &builder{
		in:    in,
		at:    map[string]int32{},
		kinds: map[v1alpha1.DeviceKind]int32{},
		res:   map[string]int32{},
		spec: &v1alpha1.NodeInventorySpec{
			BootID:       in.Host.BootID,
			AgentVersion: in.AgentVersion,
			Kubelet:      in.Kubelet,
			Launcher:     in.Launcher,
			Fabric:       in.Fabric,
		},
	}
	b.spec.Launcher.IOMMUFD = in.Host.IOMMUFD
	b.spec.Launcher.PhysAddrBits = int32(in.Host.PhysAddrBits)
	b.numa()
	type owned struct {
		offer    *pool.Offer
		resource string
	}
	var all []owned
	for i := range in.Selection.Pools {
		p := &in.Selection.Pools[i]
		for j := range p.Offers {
			all = append(all, owned{&p.Offers[j], p.Pool.Spec.ResourceName})
		}
	}
	slices.SortFunc(all, func(x, y owned) int { return x.offer.Unit.ID.Compare(y.offer.Unit.ID) })
	for _, o := range all {
		b.unit(o.offer, o.resource)
	}
	s := &b.spec.Summary
	s.NUMANodes = int32(len(b.spec.NUMANodes))
	for i := range b.spec.Units {
		u := &b.spec.Units[i]
		s.Units++
		switch {
		case u.NotReady == "":
			s.Ready++
		case s.Problem == "":
			s.Problem = u.NotReady
		}
	}
	return *b.spec
}

func (b *builder) numa() {
	h := b.in.Host
	for i := range h.NUMANodes {
		n := &h.NUMANodes[i]
		out := v1alpha1.InventoryNUMANode{
			ID:        int32(n.ID),
			CPUs:      host.FormatList(n.CPUs),
			MemoryMiB: int64(n.MemoryBytes >> 20),
		}
		if s := h.SocketOf(n.ID); s >= 0 {
			v := int32(s)
			out.Socket = &v
		}
		for _, p := range n.Hugepages {
			if p.Total == 0 {
				continue
			}
			if out.Hugepages == nil {
				out.Hugepages = map[string]int64{}
			}
			out.Hugepages[PageSize(p.PageBytes)] = int64(p.Total)
		}
		for _, d := range n.Distances {
			out.Distances = append(out.Distances, int32(d))
		}
		b.spec.NUMANodes = append(b.spec.NUMANodes, out)
	}
}

// PageSize is a page size as Kubernetes writes it: "2Mi", "1Gi".
func PageSize(bytes uint64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{30, "Gi"}, {20, "Mi"}, {10, "Ki"}} {
		if bytes != 0 && bytes&(1<<u.shift-1) == 0 {
			return strconv.FormatUint(bytes>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatUint(bytes, 10)
}

func (b *builder) unit(o *pool.Offer, resource string) {
	u := o.Unit
	f := b.in.Host.Function(u.ID)
	if f == nil {
		return // units and host are of one reading; be safe with another
	}
	out := v1alpha1.InventoryUnit{
		ID:       u.ID.String(),
		Kind:     b.kind(f),
		At:       b.attachment(f),
		NotReady: o.NotReady,
	}
	if r, ok := b.in.Faults[u.ID]; ok && out.NotReady == "" {
		out.NotReady = r
	}
	if len(out.NotReady) > maxReason {
		out.NotReady = out.NotReady[:maxReason-3] + "..."
	}
	for _, m := range u.Members[1:] {
		out.Members = append(out.Members, m.String())
	}
	if n := len(u.Primaries); n > 1 {
		out.Size = int32(n)
	}
	if u.NUMA != topology.NUMAUnknown {
		v := int32(u.NUMA)
		out.NUMA = &v
	}
	if _, ok := b.res[resource]; !ok {
		b.res[resource] = int32(len(b.spec.Resources))
		b.spec.Resources = append(b.spec.Resources, resource)
	}
	v := b.res[resource]
	out.Resource = &v
	if f.PF != nil {
		out.PF = f.PF.String()
		if f.VFIndex >= 0 {
			n := int32(f.VFIndex)
			out.VF = &n
		}
	}
	b.spec.Units = append(b.spec.Units, out)
}

func (b *builder) kind(f *topology.Function) int32 {
	k := v1alpha1.DeviceKind{
		Vendor: fmt.Sprintf("%04x", f.Vendor),
		Device: fmt.Sprintf("%04x", f.Device),
		Class:  fmt.Sprintf("%06x", f.Class),
	}
	if b.in.Product != nil {
		k.Product = b.in.Product(f.Vendor, f.Device)
	}
	n, ok := b.kinds[k]
	if !ok {
		n = int32(len(b.spec.Kinds))
		b.kinds[k] = n
		b.spec.Kinds = append(b.spec.Kinds, k)
	}
	return n
}

// attachment is the index of the function's nearest switch or root complex;
// the table gets what is missing, parents first.
func (b *builder) attachment(f *topology.Function) int32 {
	name := f.Root
	if name == "" {
		// A capture that does not say: functions of one bus hang together.
		name = fmt.Sprintf("pci%04x:%02x", f.Address.Domain, f.Address.Bus)
	}
	n := b.place(name, nil)
	for _, s := range f.Switches() {
		parent := n
		n = b.place(s.String(), &parent)
	}
	return n
}

func (b *builder) place(name string, parent *int32) int32 {
	n, ok := b.at[name]
	if !ok {
		n = int32(len(b.spec.Attachments))
		b.at[name] = n
		b.spec.Attachments = append(b.spec.Attachments, v1alpha1.Attachment{Name: name, Parent: parent})
	}
	return n
}
