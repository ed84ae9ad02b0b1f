package scenario

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// VM is what is known of one virtual machine from all sides.
type VM struct {
	Pod  string `json:"pod"`
	Node string `json:"node"`
	// Assigned is the scheduler's decision, Allocated what kubelet says that it
	// gave: host PCI addresses, sorted.
	Assigned  []string `json:"assigned"`
	Allocated []string `json:"allocated"`
	// GuestPCI are the devices' addresses inside the guest; GuestNUMA and
	// GuestMAC belong to them by index.
	GuestPCI   []string `json:"guestPCI"`
	GuestNUMA  []int    `json:"guestNUMA"`
	GuestMAC   []string `json:"guestMAC"`
	GuestLSPCI []string `json:"guestLSPCI"`
	// PingReceived counts answers over the virtual function.
	PingReceived int `json:"pingReceived"`
	// Why explains the choice in words, one line per unit.
	Why []string `json:"why"`
}

// NodeExecer runs a command on a node.
type NodeExecer interface {
	NodeExec(ctx context.Context, node string, argv ...string) (stdout, stderr string, code int, err error)
}

// NodeOutput runs a command on a node and returns its standard output; a command
// that fails is an error with what it printed on standard error.
func NodeOutput(ctx context.Context, nodes NodeExecer, node string, argv ...string) (string, error) {
	out, errs, code, err := nodes.NodeExec(ctx, node, argv...)
	if err != nil {
		return out, fmt.Errorf("%s on %s: %w", argv[0], node, err)
	}
	if code != 0 {
		return out, fmt.Errorf("%s on %s: exit code %d: %s", argv[0], node, code, strings.TrimSpace(errs))
	}
	return out, nil
}

// Report gathers the facts of a VM pod whose guest has VFs of the given
// vendor:device, and checks that they agree: assignment equals allocation, and
// the guest's cards carry the MAC addresses that the physical function's
// driver on the node holds for just these functions.
func (e *Env) Report(ctx context.Context, nodes NodeExecer, namespace, name, id string, g *Guest) (*VM, error) {
	p, err := e.Pod(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	assigned, a, err := Assigned(p)
	if err != nil {
		return nil, err
	}
	v := &VM{
		Pod: name, Node: p.Spec.NodeName, Assigned: assigned, Allocated: Allocated(p), PingReceived: g.PingReceived,
		GuestPCI: []string{}, GuestNUMA: []int{}, GuestLSPCI: []string{}, GuestMAC: []string{},
	}
	for _, f := range g.WithID(id) {
		v.GuestPCI = append(v.GuestPCI, f.Address)
		v.GuestNUMA = append(v.GuestNUMA, f.NUMA)
		v.GuestMAC = append(v.GuestMAC, g.MACOf(f.Address))
	}
	for _, l := range g.LSPCI {
		if strings.Contains(l, id) {
			v.GuestLSPCI = append(v.GuestLSPCI, l)
		}
	}
	if v.Why, err = e.why(ctx, a); err != nil {
		return v, err
	}
	if !slices.Equal(v.Assigned, v.Allocated) {
		return v, fmt.Errorf("%s: kubelet allocated %v, the scheduler had assigned %v", name, v.Allocated, v.Assigned)
	}
	if g.Restarts > 0 {
		return v, fmt.Errorf("%s: the guest restarted, which nobody asked for; its last words:\n%s", name, g.LastWords)
	}
	if len(v.GuestPCI) != len(v.Assigned) {
		return v, fmt.Errorf("%s: the guest has %d devices %s at %v, assigned are %v", name, len(v.GuestPCI), id, v.GuestPCI, v.Assigned)
	}
	for _, addr := range v.Assigned {
		mac, err := HostVFMAC(ctx, nodes, v.Node, addr)
		if err != nil {
			return v, err
		}
		if !slices.Contains(v.GuestMAC, mac) {
			return v, fmt.Errorf("%s: on node %s function %s has MAC %s, the guest's cards have %v: not the same device",
				name, v.Node, addr, mac, v.GuestMAC)
		}
	}
	return v, nil
}

// why explains an assignment in the words of the node's shape.
func (e *Env) why(ctx context.Context, a *v1alpha1.Assignment) ([]string, error) {
	var inv v1alpha1.NodeInventory
	if err := e.Objects.Get(ctx, client.ObjectKey{Name: a.Node}, &inv); err != nil {
		return nil, fmt.Errorf("inventory of %s: %w", a.Node, err)
	}
	var lines []string
	for _, container := range slices.Sorted(maps.Keys(a.Containers)) {
		resources := a.Containers[container]
		for _, r := range slices.Sorted(maps.Keys(resources)) {
			for _, u := range resources[r] {
				lines = append(lines, describeUnit(&inv.Spec, r, u.String()))
			}
		}
	}
	if a.Alignment != "" {
		lines = append(lines, "alignment reached: "+a.Alignment)
	}
	return lines, nil
}

func describeUnit(s *v1alpha1.NodeInventorySpec, resource, id string) string {
	for _, u := range s.Units {
		if u.ID != id {
			continue
		}
		numa := "an unknown NUMA node"
		if u.NUMA != nil {
			numa = fmt.Sprintf("NUMA node %d", *u.NUMA)
		}
		at := "?"
		if int(u.At) < len(s.Attachments) {
			at = s.Attachments[u.At].Name
		}
		of := ""
		if u.PF != "" && u.VF != nil {
			of = fmt.Sprintf(", VF %d of %s", *u.VF, u.PF)
		}
		return fmt.Sprintf("%s is %s at %s on %s%s", id, resource, at, numa, of)
	}
	return id + " is not in the inventory"
}
