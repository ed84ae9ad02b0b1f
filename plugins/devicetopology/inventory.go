package devicetopology

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
	"github.com/kubevfio/kubevfio/topology"
)

// nodeEntry is what an inventory says about one node. It is immutable.
type nodeEntry struct {
	node   *engine.Node
	bootID string
	// version changes whenever the entry does.
	version int64
	// err says why the inventory cannot be used; node is nil then.
	err error
}

// inventories holds the nodes' shapes and the resource names that are ours. It
// is safe for concurrent use; readers do not lock.
type inventories struct {
	interner engine.Interner

	mu      sync.Mutex
	version int64
	pools   map[string]string // pool name -> resource name

	// entries is node name -> *nodeEntry.
	entries sync.Map
	// resources are the names that some inventory or pool has.
	resources atomic.Pointer[map[string]struct{}]
	// gen changes with every change of any entry or pool.
	gen atomic.Int64
}

func newInventories() *inventories {
	i := &inventories{pools: map[string]string{}}
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
	i.mu.Lock()
	defer i.mu.Unlock()
	i.version++
	i.entries.Store(inv.Name, &nodeEntry{node: node, bootID: inv.Spec.BootID, version: i.version, err: err})
	i.changed()
}

func (i *inventories) remove(node string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.entries.Delete(node)
	i.changed()
}

// replace drops the entries of nodes that are not in keep.
func (i *inventories) keepOnly(keep map[string]bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.entries.Range(func(k, _ any) bool {
		if !keep[k.(string)] {
			i.entries.Delete(k)
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
	for _, s := range i.interner.Shapes() {
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
