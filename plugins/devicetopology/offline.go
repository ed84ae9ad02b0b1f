package devicetopology

import (
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
