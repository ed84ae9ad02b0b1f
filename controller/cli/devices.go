package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/explain"
)

// unit is one line of `devices`.
type unit struct {
	Node     string   `json:"node"`
	Address  string   `json:"address"`
	Members  []string `json:"members,omitempty"`
	Resource string   `json:"resource,omitempty"`
	// State is Free, Held, NotReady or NotOffered.
	State   string `json:"state"`
	Holder  string `json:"holder,omitempty"`
	NUMA    *int32 `json:"numaNode,omitempty"`
	Root    string `json:"root,omitempty"`
	Product string `json:"product,omitempty"`
	Problem string `json:"problem,omitempty"`
}

func (s *session) devices() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use:   "devices",
		Short: "List every unit of the cluster: where, what, how it is, who holds it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := s.cluster()
			if err != nil {
				return err
			}
			units, err := cl.units(cmd.Context(), node)
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.json(units)
			}
			rows := [][]string{{"NODE", "ADDRESS", "RESOURCE", "STATE", "HOLDER", "NUMA", "ROOT", "PRODUCT", "PROBLEM"}}
			for _, u := range units {
				rows = append(rows, []string{u.Node, u.Address, cmp.Or(u.Resource, "-"), u.State, cmp.Or(u.Holder, "-"), numa(u.NUMA), u.Root, u.Product, u.Problem})
			}
			return s.table(rows)
		},
	}
	c.Flags().StringVar(&node, "node", "", "only this node")
	return c
}

func numa(n *int32) string {
	if n == nil {
		return "?"
	}
	return strconv.Itoa(int(*n))
}

func (c *cluster) units(ctx context.Context, node string) ([]unit, error) {
	var inventories v1alpha1.NodeInventoryList
	if err := c.client.List(ctx, &inventories); err != nil {
		return nil, err
	}
	var pods corev1.PodList
	// Without the right to see all pods the holders stay unknown.
	if err := c.client.List(ctx, &pods); err != nil && !apierrors.IsForbidden(err) {
		return nil, err
	}
	held := explain.Holders(pods.Items)
	units := []unit{}
	for i := range inventories.Items {
		inv := &inventories.Items[i]
		if node == "" || node == inv.Name {
			units = append(units, unitsOf(inv, held[inv.Name])...)
		}
	}
	return units, nil
}

func unitsOf(inv *v1alpha1.NodeInventory, held map[string]string) []unit {
	var units []unit
	for i := range inv.Spec.Units {
		u := &inv.Spec.Units[i]
		line := unit{Node: inv.Name, Address: u.ID, Members: u.Members, NUMA: u.NUMA, Holder: held[u.ID], Problem: u.NotReady, State: "Free"}
		if u.Resource != nil && int(*u.Resource) < len(inv.Spec.Resources) {
			line.Resource = inv.Spec.Resources[*u.Resource]
		}
		if int(u.Kind) < len(inv.Spec.Kinds) {
			k := inv.Spec.Kinds[u.Kind]
			line.Product = cmp.Or(k.Product, k.Vendor+":"+k.Device)
		}
		if path := attachmentPath(inv, u.At); len(path) > 0 {
			line.Root = path[0]
		}
		switch {
		case u.NotReady != "":
			line.State = "NotReady"
		case line.Holder != "":
			line.State = "Held"
		case line.Resource == "":
			line.State = "NotOffered"
		}
		units = append(units, line)
	}
	return units
}

// attachmentPath are the names from the root complex down to an attachment.
func attachmentPath(inv *v1alpha1.NodeInventory, at int32) []string {
	var path []string
	for at >= 0 && int(at) < len(inv.Spec.Attachments) {
		a := inv.Spec.Attachments[at]
		path = append(path, a.Name)
		if a.Parent == nil || *a.Parent >= at {
			break
		}
		at = *a.Parent
	}
	slices.Reverse(path)
	return path
}

func (s *session) topology() *cobra.Command {
	return &cobra.Command{
		Use:   "topology node|vmi NAME",
		Short: "Draw a node's NUMA nodes, root complexes and devices, or those of an instance",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := s.cluster()
			if err != nil {
				return err
			}
			node, keep := args[1], func(unit) bool { return true }
			switch args[0] {
			case "node":
			case "vmi", "kvmi", "vm", "kvm":
				var vmi v1alpha1.VirtualMachineInstance
				if err := cl.client.Get(cmd.Context(), client.ObjectKey{Namespace: cl.namespace, Name: args[1]}, &vmi); err != nil {
					return err
				}
				if vmi.Status.NodeName == "" {
					return fmt.Errorf("%s is on no node yet", args[1])
				}
				node = vmi.Status.NodeName
				holder := vmi.Namespace + "/" + vmi.Status.PodName
				keep = func(u unit) bool { return u.Holder == holder }
			default:
				return fmt.Errorf("%w: %q: want node or vmi", ErrUsage, args[0])
			}
			var inv v1alpha1.NodeInventory
			if err := cl.client.Get(cmd.Context(), client.ObjectKey{Name: node}, &inv); err != nil {
				return err
			}
			var pods corev1.PodList
			if err := cl.client.List(cmd.Context(), &pods); err != nil && !apierrors.IsForbidden(err) {
				return err
			}
			_, err = fmt.Fprint(s.out, tree(&inv, explain.Holders(pods.Items)[node], keep))
			return err
		},
	}
}

// tree draws NUMA node -> root complex -> switch -> unit.
func tree(inv *v1alpha1.NodeInventory, held map[string]string, keep func(unit) bool) string {
	type place struct{ numa, at string }
	at := map[place][]unit{}
	var places []place
	lines := unitsOf(inv, held)
	for i, u := range lines {
		if !keep(u) {
			continue
		}
		p := place{"NUMA node " + numa(u.NUMA), strings.Join(attachmentPath(inv, inv.Spec.Units[i].At), " > ")}
		if _, ok := at[p]; !ok {
			places = append(places, p)
		}
		at[p] = append(at[p], u)
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(cmp.Compare(a.numa, b.numa), cmp.Compare(a.at, b.at)) })
	var b strings.Builder
	fmt.Fprintf(&b, "node %s (kubelet: topology manager %s)\n", inv.Name, cmp.Or(inv.Spec.Kubelet.TopologyManagerPolicy, "unknown"))
	last := ""
	for _, p := range places {
		if p.numa != last {
			last = p.numa
			fmt.Fprintf(&b, "├─ %s%s\n", p.numa, numaDetails(inv, p.numa))
		}
		fmt.Fprintf(&b, "│  ├─ %s\n", p.at)
		for _, u := range at[p] {
			fmt.Fprintf(&b, "│  │  ├─ %s  %s  %s  %s\n", u.Address, u.Product, cmp.Or(u.Resource, "not offered"), cmp.Or(u.Problem, u.Holder, "free"))
			for _, m := range u.Members {
				fmt.Fprintf(&b, "│  │  │  └─ %s\n", m)
			}
		}
	}
	return b.String()
}

func numaDetails(inv *v1alpha1.NodeInventory, name string) string {
	for _, n := range inv.Spec.NUMANodes {
		if name != fmt.Sprintf("NUMA node %d", n.ID) {
			continue
		}
		text := fmt.Sprintf("  CPUs %s, %d MiB", cmp.Or(n.CPUs, "none"), n.MemoryMiB)
		for _, size := range []string{"2Mi", "1Gi"} {
			if c := n.Hugepages[size]; c > 0 {
				text += fmt.Sprintf(", %d pages of %s", c, size)
			}
		}
		return text
	}
	return ""
}
