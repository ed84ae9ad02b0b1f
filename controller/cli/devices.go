package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/hardware"
)

func (s *session) devices() *cobra.Command {
	var node, resource string
	var problems, free bool
	c := &cobra.Command{
		Use:   "devices",
		Short: "List every unit of the cluster: where, what, its state and health, who holds it",
		Example: `  kubectl vfio devices
  kubectl vfio devices --node gpu-01 --free
  kubectl vfio devices --problems
  kubectl vfio devices -o json | jq '[.[] | select(.state == "Held")] | length'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := s.cluster()
			if err != nil {
				return err
			}
			inventories, err := cl.inventories(cmd.Context(), node)
			if err != nil {
				return err
			}
			held, partial, err := cl.holders(cmd.Context())
			if err != nil {
				return err
			}
			units := []hardware.Unit{}
			for i := range inventories {
				units = append(units, hardware.Units(&inventories[i], held)...)
			}
			units = slices.DeleteFunc(units, func(u hardware.Unit) bool {
				return resource != "" && u.Resource != resource || problems && u.Healthy || free && u.State != hardware.Free
			})
			s.note(partial)
			if s.output == "json" {
				return s.json(units)
			}
			if len(units) == 0 {
				_, err := fmt.Fprintln(s.err, "no such device; nodes publish only units that a DevicePool selects: kubectl get devicepools,nodeinventories")
				return err
			}
			return s.table(deviceRows(units))
		},
	}
	c.Flags().StringVar(&node, "node", "", "only this node")
	c.Flags().StringVar(&resource, "resource", "", "only units of this resource")
	c.Flags().BoolVar(&problems, "problems", false, "only units that are not healthy")
	c.Flags().BoolVar(&free, "free", false, "only units that can be had now")
	return c
}

func deviceRows(units []hardware.Unit) [][]string {
	rows := [][]string{{"NODE", "ADDRESS", "RESOURCE", "STATE", "HEALTH", "HOLDER", "NUMA", "ROOT", "PRODUCT", "PROBLEM"}}
	for _, u := range units {
		health, holder := "OK", "-"
		if !u.Healthy {
			health = "NotReady"
		}
		if u.Holder != nil {
			holder = u.Holder.String()
		}
		rows = append(rows, []string{
			u.Node, u.Address, cmp.Or(u.Resource, "-"), u.State, health, holder, numa(u.NUMA), cmp.Or(u.Root, "-"), cmp.Or(u.Product, "-"), u.Problem,
		})
	}
	return rows
}

func numa(n *int32) string {
	if n == nil {
		return "?"
	}
	return strconv.Itoa(int(*n))
}

// inventories are those of all nodes, or of one that must have one.
func (c *cluster) inventories(ctx context.Context, node string) ([]v1alpha1.NodeInventory, error) {
	if node != "" {
		inv, err := c.inventory(ctx, node)
		if err != nil {
			return nil, err
		}
		return []v1alpha1.NodeInventory{*inv}, nil
	}
	var list v1alpha1.NodeInventoryList
	err := c.client.List(ctx, &list)
	return list.Items, err
}

// inventory is a node's; that there is none is explained.
func (c *cluster) inventory(ctx context.Context, node string) (*v1alpha1.NodeInventory, error) {
	var inv v1alpha1.NodeInventory
	err := c.client.Get(ctx, client.ObjectKey{Name: node}, &inv)
	if !apierrors.IsNotFound(err) || typeMissing(err) {
		return &inv, err
	}
	if get := c.client.Get(ctx, client.ObjectKey{Name: node}, &corev1.Node{}); apierrors.IsNotFound(get) {
		return nil, fmt.Errorf("there is no node %q: kubectl get nodes", node)
	}
	return nil, fmt.Errorf("node %s has no inventory: does the agent run there? kubectl -n %s get pods -o wide", node, v1alpha1.SystemNamespace)
}

// holders says who holds what. An owner of VMs need not be allowed to see all pods:
// then partial says in words what is missing.
func (c *cluster) holders(ctx context.Context) (held hardware.Holders, partial string, err error) {
	var pods corev1.PodList
	var usages v1alpha1.NodeUsageList
	for _, list := range []client.ObjectList{&pods, &usages} {
		switch err := c.client.List(ctx, list); {
		case err == nil:
		case apierrors.IsForbidden(err):
			partial = "you may not list all pods and nodeusages: holders may be unknown, and units that look free may be held"
		default:
			return nil, "", err
		}
	}
	return hardware.NewHolders(pods.Items, usages.Items), partial, nil
}

// note tells people something that does not belong into the output.
func (s *session) note(text string) {
	if text != "" {
		fmt.Fprintln(s.err, "note:", text)
	}
}
