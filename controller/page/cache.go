package page

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Cache is a [Source] that reads from a controller's cache.
type Cache struct{ Reader client.Reader }

// Objects implements [Source].
func (c Cache) Objects(ctx context.Context) (Objects, error) {
	var (
		nodes       corev1.NodeList
		inventories v1alpha1.NodeInventoryList
		usages      v1alpha1.NodeUsageList
		pods        corev1.PodList
		machines    v1alpha1.VirtualMachineList
		instances   v1alpha1.VirtualMachineInstanceList
	)
	for what, list := range map[string]client.ObjectList{
		"nodes": &nodes, "nodeinventories": &inventories, "nodeusages": &usages, "pods": &pods,
		"virtualmachines": &machines, "virtualmachineinstances": &instances,
	} {
		// Nothing is changed: the cache's own objects will do.
		if err := c.Reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return Objects{}, fmt.Errorf("list %s: %w", what, err)
		}
	}
	return Objects{
		Nodes: nodes.Items, Inventories: inventories.Items, Usages: usages.Items, Pods: pods.Items,
		Machines: machines.Items, Instances: instances.Items,
	}, nil
}
