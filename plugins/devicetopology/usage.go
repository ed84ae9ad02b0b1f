package devicetopology

import (
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// usages holds the agents' NodeUsage reports by node. It is safe for concurrent
// use; the reports themselves are read only.
type usages struct {
	mu    sync.RWMutex
	nodes map[string]*nodeUsage
	// changes counts the reports, and those that were dropped.
	changes atomic.Int64
	// appeared counts the nodes that got a first report.
	appeared atomic.Int64
}

// nodeUsage is one report, indexed. It is immutable but for its end.
type nodeUsage struct {
	version int64
	// replaced: another report has taken its place, or none has.
	replaced atomic.Bool
	bootID   string
	pods     map[types.UID]*v1alpha1.PodUsage
	// left are pods of earlier reports that are not in this one, and those that it
	// says have left: the node has let go of them. The value is the version of the
	// report that first said so.
	left map[types.UID]int64
}

// rememberLeft is for how many reports, of all nodes, a pod that left is
// remembered: long enough for its deletion to arrive, not for ever.
const rememberLeft = 4096

func newUsages() *usages { return &usages{nodes: map[string]*nodeUsage{}} }

func (u *usages) set(o *v1alpha1.NodeUsage) {
	n := &nodeUsage{bootID: o.Spec.BootID, pods: make(map[types.UID]*v1alpha1.PodUsage, len(o.Spec.Pods))}
	for i := range o.Spec.Pods {
		p := &o.Spec.Pods[i]
		n.pods[types.UID(p.UID)] = p
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	n.version = u.changes.Load() + 1
	n.left = map[types.UID]int64{}
	if before := u.nodes[o.Name]; before != nil {
		for uid, version := range before.left {
			if n.pods[uid] == nil && n.version-version < rememberLeft {
				n.left[uid] = version
			}
		}
		for uid := range before.pods {
			if n.pods[uid] == nil {
				n.left[uid] = n.version
			}
		}
	}
	for _, uid := range o.Spec.Released {
		if _, known := n.left[types.UID(uid)]; !known && n.pods[types.UID(uid)] == nil {
			n.left[types.UID(uid)] = n.version
		}
	}
	before := u.nodes[o.Name]
	u.nodes[o.Name] = n
	if before != nil {
		before.replaced.Store(true)
	} else {
		u.appeared.Add(1)
	}
	u.changes.Add(1)
}

func (u *usages) remove(node string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.drop(node)
}

// drop forgets a node. The lock is held.
func (u *usages) drop(node string) {
	if n := u.nodes[node]; n != nil {
		delete(u.nodes, node)
		n.replaced.Store(true)
		u.changes.Add(1)
	}
}

func (u *usages) keepOnly(keep map[string]bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for n := range u.nodes {
		if !keep[n] {
			u.drop(n)
		}
	}
}

// get is a node's report, nil when there is none.
func (u *usages) get(node string) *nodeUsage {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.nodes[node]
}

// letGo reports whether the node held a pod once and has reported since that it
// does not.
func (u *usages) letGo(node string, uid types.UID) bool {
	n := u.get(node)
	if n == nil {
		return false
	}
	_, left := n.left[uid]
	return left
}

// devices are the units that the node's agent says a pod holds.
func (u *usages) devices(node string, uid types.UID, resource string) []string {
	n := u.get(node)
	if n == nil || n.pods[uid] == nil {
		return nil
	}
	return n.pods[uid].Devices[resource]
}
