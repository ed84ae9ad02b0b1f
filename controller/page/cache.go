package page

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Cache is a [Source] that reads from a controller's cache.
type Cache struct{ Reader client.Reader }

// Objects implements [Source].
func (c Cache) Objects(ctx context.Context) (Objects, error) {
	// Nothing is changed: the cache's own objects will do.
	objects, forbidden, err := Read(ctx, c.Reader, client.UnsafeDisableDeepCopy)
	if err == nil && len(forbidden) > 0 {
		return Objects{}, fmt.Errorf("may not list %v: see the ClusterRole of the controller", forbidden)
	}
	return objects, err
}

// Read lists the objects of the page. Those that the reader may not list are left out
// and named.
func Read(ctx context.Context, reader client.Reader, options ...client.ListOption) (o Objects, forbidden []string, err error) {
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
		switch err := reader.List(ctx, list, options...); {
		case apierrors.IsForbidden(err):
			forbidden = append(forbidden, what)
		case err != nil:
			return Objects{}, nil, fmt.Errorf("list %s: %w", what, err)
		}
	}
	slices.Sort(forbidden)
	return Objects{
		Nodes: nodes.Items, Inventories: inventories.Items, Usages: usages.Items, Pods: pods.Items,
		Machines: machines.Items, Instances: instances.Items,
	}, forbidden, nil
}
