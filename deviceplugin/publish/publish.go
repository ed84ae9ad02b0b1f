// Package publish writes what the agent knows into the cluster: NodeInventory,
// NodeUsage, its part of the DevicePools' status.
//
// It is for package agent. Nothing is written that has not changed: thousands of
// nodes and a scheduler watch these objects. A foreign change of an object is put
// right at the next call.
package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// ErrPublish is the class of errors about writing to the API server.
var ErrPublish = errors.New("publish")

// Owner is the Node that the objects belong to.
type Owner struct {
	Name string
	UID  types.UID
}

// Publisher writes for one node.
type Publisher struct {
	client client.Client

	mu        sync.Mutex
	inventory *v1alpha1.NodeInventory // as last written or read
	usage     *v1alpha1.NodeUsage
	status    map[string]string // by pool: our entry as last applied
}

// New makes a publisher; the client must read from the API server, not a cache.
func New(c client.Client) *Publisher {
	return &Publisher{client: c, status: map[string]string{}}
}

func ownerRef(o Owner) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: o.Name, UID: o.UID}}
}

// Inventory writes the node's inventory when it differs; it says whether it wrote.
func (p *Publisher) Inventory(ctx context.Context, o Owner, spec v1alpha1.NodeInventorySpec) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inventory != nil && equality.Semantic.DeepEqual(p.inventory.Spec, spec) && owned(p.inventory, o) {
		return false, nil
	}
	want := &v1alpha1.NodeInventory{}
	want.Name = o.Name
	wrote, err := p.write(ctx, o, want, func() bool {
		same := equality.Semantic.DeepEqual(want.Spec, spec)
		want.Spec = spec
		return same
	})
	if err != nil {
		p.inventory = nil
		return false, fmt.Errorf("%w: NodeInventory %s: %w", ErrPublish, o.Name, err)
	}
	p.inventory = want
	return wrote, nil
}

// Usage writes the node's usage when it differs; it says whether it wrote.
func (p *Publisher) Usage(ctx context.Context, o Owner, spec v1alpha1.NodeUsageSpec) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.usage != nil && equality.Semantic.DeepEqual(p.usage.Spec, spec) && owned(p.usage, o) {
		return false, nil
	}
	want := &v1alpha1.NodeUsage{}
	want.Name = o.Name
	wrote, err := p.write(ctx, o, want, func() bool {
		same := equality.Semantic.DeepEqual(want.Spec, spec)
		want.Spec = spec
		return same
	})
	if err != nil {
		p.usage = nil
		return false, fmt.Errorf("%w: NodeUsage %s: %w", ErrPublish, o.Name, err)
	}
	p.usage = want
	return wrote, nil
}

func owned(obj client.Object, o Owner) bool {
	return reflect.DeepEqual(obj.GetOwnerReferences(), ownerRef(o))
}

// write creates or updates obj; fill puts the new content in and says whether it
// was there already.
func (p *Publisher) write(ctx context.Context, o Owner, obj client.Object, fill func() (same bool)) (bool, error) {
	err := p.client.Get(ctx, client.ObjectKeyFromObject(obj), obj)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return false, err
	}
	same := fill() && owned(obj, o)
	obj.SetOwnerReferences(ownerRef(o))
	switch {
	case missing:
		return true, p.client.Create(ctx, obj)
	case same:
		return false, nil
	default:
		return true, p.client.Update(ctx, obj)
	}
}

// Forget makes the next calls look at the API server again.
func (p *Publisher) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inventory, p.usage = nil, nil
	clear(p.status)
}

// maxReasons is what the API allows, less one line that says how many more.
const maxReasons = 16

// PoolStatus applies this node's entry in a pool's status; nil takes it out. The
// entries of other nodes belong to their agents.
func (p *Publisher) PoolStatus(ctx context.Context, pool, node string, entry *v1alpha1.DevicePoolNodeStatus) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	nodes := []v1alpha1.DevicePoolNodeStatus{}
	if entry != nil {
		e := *entry
		e.Node = node
		if n := len(e.Reasons); n > maxReasons {
			e.Reasons = append(append([]string{}, e.Reasons[:maxReasons]...), fmt.Sprintf("and %d more", n-maxReasons))
		}
		nodes = append(nodes, e)
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.Group + "/" + v1alpha1.Version,
		"kind":       "DevicePool",
		"metadata":   map[string]any{"name": pool},
		"status":     map[string]any{"nodes": nodes},
	})
	if err != nil {
		return fmt.Errorf("%w: status of DevicePool %s: %w", ErrPublish, pool, err)
	}
	if p.status[pool] == string(body) || entry == nil && p.status[pool] == "" {
		return nil
	}
	obj := &v1alpha1.DevicePool{}
	obj.Name = pool
	err = p.client.Status().Patch(ctx, obj, client.RawPatch(types.ApplyPatchType, body),
		client.FieldOwner("kubevfio-agent-"+node), client.ForceOwnership)
	if apierrors.IsNotFound(err) {
		return nil // the pool is gone, and its status with it
	}
	if err != nil {
		return fmt.Errorf("%w: status of DevicePool %s: %w", ErrPublish, pool, err)
	}
	p.status[pool] = string(body)
	if entry == nil {
		delete(p.status, pool)
	}
	return nil
}

// Sums writes a pool's totals over all nodes when they differ from the entries.
// Any agent may do it; a conflict means that another one just did.
func (p *Publisher) Sums(ctx context.Context, pool *v1alpha1.DevicePool) error {
	var ready, total int32
	for _, n := range pool.Status.Nodes {
		ready, total = ready+n.Ready, total+n.Total
	}
	count := int32(len(pool.Status.Nodes))
	if s := &pool.Status; s.NodeCount == count && s.Ready == ready && s.Total == total {
		return nil
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": pool.ResourceVersion},
		"status":   map[string]any{"nodeCount": count, "ready": ready, "total": total},
	})
	if err != nil {
		return fmt.Errorf("%w: totals of DevicePool %s: %w", ErrPublish, pool.Name, err)
	}
	obj := &v1alpha1.DevicePool{}
	obj.Name = pool.Name
	err = p.client.Status().Patch(ctx, obj, client.RawPatch(types.MergePatchType, body), client.FieldOwner("kubevfio-agent-sums"))
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: totals of DevicePool %s: %w", ErrPublish, pool.Name, err)
	}
	return nil
}
