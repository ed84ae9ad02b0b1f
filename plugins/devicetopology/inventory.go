package devicetopology

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
	"github.com/kubevfio/kubevfio/topology"
)

// nodeEntry is what an inventory says about one node. It is immutable but for
// its end.
type nodeEntry struct {
	node *engine.Node
	// kubelet is nil where its managers do not decide about devices.
	kubelet *nodeKubelet
	bootID  string
	// replaced: another entry has taken its place, or none has.
	replaced atomic.Bool
	// err says why the inventory cannot be used; node is nil then.
	err error
}

// inventories holds the nodes' shapes and the resource names that are ours. It
// is safe for concurrent use; readers do not lock.
type inventories struct {
	interner engine.Interner

	mu    sync.Mutex
	pools map[string]string // pool name -> resource name

	// shapes counts the nodes of each shape that is in use.
	shapes map[*engine.Shape]*shapeUse

	// entries is node name -> *nodeEntry.
	entries sync.Map
	// resources are the names that some inventory or pool has.
	resources atomic.Pointer[map[string]struct{}]
	// gen changes with every change of any entry or pool.
	gen atomic.Int64

	// never caches what hardware can hold a request.
	neverMu sync.Mutex
	never   map[*engine.Request]*fitness
}

// fitness is which hardware can hold a request at all.
type fitness struct {
	gen int64
	// miss says why no hardware can, empty when some can.
	miss string
	// nodes are those that can, nil when they are not worth listing.
	nodes sets.Set[string]
}

// listedNodes is the number of inventories from which on it pays to list the
// nodes that can hold a request; below, every node is asked and gives a reason.
const listedNodes = 64

// maxFitness bounds the cache of fitness.
const maxFitness = 1024

// fitness tells which hardware can hold a request, whatever is free. It is
// computed once per request and inventory change.
func (i *inventories) fitness(req *engine.Request) *fitness {
	gen := i.gen.Load()
	i.neverMu.Lock()
	defer i.neverMu.Unlock()
	if f := i.never[req]; f != nil && f.gen == gen {
		return f
	}
	f := i.judge(req)
	f.gen = gen
	if len(i.never) >= maxFitness {
		clear(i.never)
	}
	i.never[req] = f
	return f
}

// judge computes a fitness.
func (i *inventories) judge(req *engine.Request) *fitness {
	i.mu.Lock()
	defer i.mu.Unlock()
	able := map[*engine.Shape]bool{}
	ableNodes, nodes := 0, 0
	var near engine.Near
	for s, u := range i.shapes {
		nodes += u.nodes
		if !engine.Never(s, req) {
			able[s] = true
			ableNodes += u.nodes
			continue
		}
		near.Add(s, req, u.example)
	}
	f := &fitness{}
	switch {
	case nodes == 0:
	case ableNodes == 0:
		f.miss = near.String()
	case nodes >= listedNodes && ableNodes <= nodes/2:
		f.nodes = make(sets.Set[string], ableNodes)
		i.entries.Range(func(k, v any) bool {
			if e := v.(*nodeEntry); e.node != nil && able[e.node.Shape] {
				f.nodes.Insert(k.(string))
			}
			return true
		})
	}
	return f
}

// shapeUse is how many nodes have a shape, and one of them.
type shapeUse struct {
	nodes   int
	example string
}

func newInventories() *inventories {
	i := &inventories{pools: map[string]string{}, shapes: map[*engine.Shape]*shapeUse{}, never: map[*engine.Request]*fitness{}}
	i.resources.Store(&map[string]struct{}{})
	return i
}

// get is the entry of a node, nil when there is none.
func (i *inventories) get(node string) *nodeEntry {
	if e, ok := i.entries.Load(node); ok {
		return e.(*nodeEntry)
	}
	return nil
}

// ours reports whether a resource is handed out by KubeVFIO with an identity.
func (i *inventories) ours(resource string) bool {
	if strings.HasPrefix(resource, v1alpha1.SlotPrefix) {
		return false
	}
	if strings.HasPrefix(resource, v1alpha1.Group+"/") {
		return true
	}
	_, ok := (*i.resources.Load())[resource]
	return ok
}

// set takes over an inventory object.
func (i *inventories) set(inv *v1alpha1.NodeInventory) {
	node, err := engine.NewNode(specOf(&inv.Spec), &i.interner)
	kubelet, kubeletErr := kubeletOf(&inv.Spec)
	if err = errors.Join(err, kubeletErr); err != nil {
		node = nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.count(inv.Name, -1)
	old := i.get(inv.Name)
	i.entries.Store(inv.Name, &nodeEntry{node: node, kubelet: kubelet, bootID: inv.Spec.BootID, err: err})
	if old != nil {
		old.replaced.Store(true)
	}
	i.count(inv.Name, +1)
	i.changed()
}

func (i *inventories) remove(node string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.drop(node)
	i.changed()
}

// drop forgets a node. The lock is held.
func (i *inventories) drop(node string) {
	i.count(node, -1)
	if old, ok := i.entries.LoadAndDelete(node); ok {
		old.(*nodeEntry).replaced.Store(true)
	}
}

// count notes that a node's shape is in use, or no longer. The lock is held.
func (i *inventories) count(node string, by int) {
	e := i.get(node)
	if e == nil || e.node == nil {
		return
	}
	u := i.shapes[e.node.Shape]
	if u == nil {
		u = &shapeUse{}
		i.shapes[e.node.Shape] = u
	}
	u.nodes += by
	if by > 0 {
		u.example = node
	}
	if u.nodes == 0 {
		delete(i.shapes, e.node.Shape)
	}
}

// keepOnly drops the entries of nodes that are not in keep.
func (i *inventories) keepOnly(keep map[string]bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.entries.Range(func(k, _ any) bool {
		if !keep[k.(string)] {
			i.drop(k.(string))
		}
		return true
	})
	i.changed()
}

func (i *inventories) setPool(p *v1alpha1.DevicePool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pools[p.Name] = p.Spec.ResourceName
	i.changed()
}

func (i *inventories) removePool(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.pools, name)
	i.changed()
}

func (i *inventories) keepOnlyPools(keep map[string]bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	maps.DeleteFunc(i.pools, func(name, _ string) bool { return !keep[name] })
	i.changed()
}

// changed recomputes the resource names. The lock is held.
func (i *inventories) changed() {
	names := map[string]struct{}{}
	for _, r := range i.pools {
		if !strings.HasPrefix(r, v1alpha1.SlotPrefix) {
			names[r] = struct{}{}
		}
	}
	for s := range i.shapes {
		for _, r := range s.Resources() {
			names[r] = struct{}{}
		}
	}
	if old := *i.resources.Load(); !maps.Equal(old, names) {
		i.resources.Store(&names)
	}
	i.gen.Add(1)
}

// specOf turns the API's description into the engine's. Units that no pool
// offers are left out.
func specOf(s *v1alpha1.NodeInventorySpec) *engine.Spec {
	out := &engine.Spec{}
	for _, n := range s.NUMANodes {
		socket := -1
		if n.Socket != nil {
			socket = int(*n.Socket)
		}
		out.NUMA = append(out.NUMA, engine.NUMASpec{ID: int(n.ID), Socket: socket})
	}
	for _, a := range s.Attachments {
		parent := -1
		if a.Parent != nil {
			parent = int(*a.Parent)
		}
		out.Places = append(out.Places, engine.PlaceSpec{Name: a.Name, Parent: parent})
	}
	// Only names that units use, so that the table does not split shapes.
	index := map[int32]int{}
	for _, u := range s.Units {
		if u.Resource == nil {
			continue
		}
		r, ok := index[*u.Resource]
		if !ok {
			if int(*u.Resource) >= 0 && int(*u.Resource) < len(s.Resources) {
				r = len(out.Resources)
				out.Resources = append(out.Resources, s.Resources[*u.Resource])
			} else {
				r = -1
			}
			index[*u.Resource] = r
		}
		numa := topology.NUMAUnknown
		if u.NUMA != nil {
			numa = int(*u.NUMA)
		}
		out.Units = append(out.Units, engine.UnitSpec{
			ID: u.ID, Place: int(u.At), Resource: r, NUMA: numa, PF: u.PF, Ready: u.NotReady == "",
		})
	}
	for _, f := range s.Fabric {
		out.Fabric = append(out.Fabric, f.Units)
	}
	return out
}
