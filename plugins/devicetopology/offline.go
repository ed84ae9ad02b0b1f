package devicetopology

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Offline is the plugin fed by its caller instead of an API server's watches.
// It is for tests and simulations of a whole cluster.
type Offline struct {
	pl *plugin
}

// NewOffline builds the plugin with default arguments on a framework handle, of
// which it uses the snapshot lister and, to bind, the client set.
func NewOffline(h fwk.Handle) (*Offline, error) {
	args, err := decodeArgs(nil)
	if err != nil {
		return nil, err
	}
	return &Offline{pl: &plugin{shared: newShared(args), handle: h}}, nil
}

// Plugin is the plugin itself, with all its extension points.
func (o *Offline) Plugin() fwk.Plugin { return o.pl }

// SetInventory takes over a node's inventory.
func (o *Offline) SetInventory(inv *v1alpha1.NodeInventory) { o.pl.inv.set(inv) }

// SetUsage takes over a node's usage report.
func (o *Offline) SetUsage(u *v1alpha1.NodeUsage) { o.pl.setUsage(u) }

// PodDeleted tells that a pod is gone.
func (o *Offline) PodDeleted(pod *corev1.Pod) { o.pl.forget(pod) }

// ExampleInventory is a server with 2 NUMA nodes, 4 root complexes, 8 GPUs
// (kubevfio.io/gpu) and 64 virtual functions of 8 physical ones (kubevfio.io/vf).
// Benchmarks and simulations use it.
func ExampleInventory(node string) *v1alpha1.NodeInventory {
	inv := &v1alpha1.NodeInventory{}
	inv.Name = node
	s := &inv.Spec
	s.Resources = []string{v1alpha1.Group + "/gpu", v1alpha1.Group + "/vf"}
	s.Kinds = []v1alpha1.DeviceKind{
		{Vendor: "10de", Device: "2335", Class: "030200"},
		{Vendor: "15b3", Device: "101e", Class: "020000"},
	}
	for n := range int32(2) {
		socket := n
		s.NUMANodes = append(s.NUMANodes, v1alpha1.InventoryNUMANode{ID: n, Socket: &socket})
	}
	for r := range int32(4) {
		s.Attachments = append(s.Attachments, v1alpha1.Attachment{Name: fmt.Sprintf("pci0000:%02x", 0x20*(r+1))})
		numa, gpu, vf := r/2, int32(0), int32(1)
		for g := range 2 {
			s.Units = append(s.Units, v1alpha1.InventoryUnit{
				ID: fmt.Sprintf("0000:%02x:00.0", 0x20*(int(r)+1)+1+g), Kind: 0, At: r, NUMA: &numa, Resource: &gpu,
			})
			pf := fmt.Sprintf("0000:%02x:00.0", 0x20*(int(r)+1)+8+g)
			for v := range int32(8) {
				index := v
				s.Units = append(s.Units, v1alpha1.InventoryUnit{
					ID: fmt.Sprintf("0000:%02x:10.%d", 0x20*(int(r)+1)+8+g, v), Kind: 1, At: r, NUMA: &numa, Resource: &vf, PF: pf, VF: &index,
				})
			}
		}
	}
	return inv
}
