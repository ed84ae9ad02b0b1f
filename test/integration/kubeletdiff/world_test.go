package kubeletdiff

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
	"github.com/kubevfio/kubevfio/topology"
)

const node = "node-a"

// poolSpec is a resource of the test's node.
type poolSpec struct {
	resource string
	units    []topology.Address
}

// pools: two resources over two NUMA nodes.
func pools() []poolSpec {
	out := []poolSpec{{resource: "kubevfio.io/gpu"}, {resource: "kubevfio.io/vf"}}
	for i := range 8 {
		out[0].units = append(out[0].units, topology.Address{Bus: uint8(0x10 + i)})
	}
	for i := range 12 {
		out[1].units = append(out[1].units, topology.Address{Bus: uint8(0x40 + i/6*0x40), Device: uint8(0x10 + i%6)})
	}
	return out
}

func numaOf(u topology.Address) int {
	if u.Bus >= 0x80 || u.Bus >= 0x14 && u.Bus < 0x18 {
		return 1
	}
	return 0
}

// pod is a pod of the world; api is what the API server has.
type pod struct {
	api      *corev1.Pod
	assigned bool // by our scheduler
	// Kubelet's half:
	seen     bool // in kubelet's list
	admitted bool
	rejected bool
	vetoed   bool            // by another admission handler
	ended    bool            // its containers have ended
	started  map[string]bool // containers
	gone     bool            // deleted from the API
	dropped  bool            // deleted from kubelet's list
	pending  []func()        // writes of kubelet's to the API that are on their way
}

func (p *pod) uid() string { return string(p.api.UID) }

// live pods hold their devices.
func (p *pod) live() bool { return p.admitted && !p.ended && !p.dropped }

func (p *pod) terminalInAPI() bool {
	return p.gone || p.api.Status.Phase == corev1.PodFailed || p.api.Status.Phase == corev1.PodSucceeded
}

// world is the API server with its scheduler.
type world struct {
	rng    *rand.Rand
	next   int
	clock  time.Time
	pods   []*pod // all that anybody still knows
	queue  []*pod // bound, not seen by kubelet
	events []func(*informer)
	inf    *informer
}

// informer is the plugin's cache; events reach it when the test says so.
type informer struct {
	mu      sync.Mutex
	pods    map[types.UID]*corev1.Pod
	changed chan struct{}
	broken  bool
}

func (i *informer) apply(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
	close(i.changed)
	i.changed = make(chan struct{})
}

// Changed is for the ledger.
func (i *informer) Changed() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed
}

// Pods implements handoff.Source.
func (i *informer) Pods(context.Context) ([]handoff.Pod, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.broken {
		return nil, errors.New("informer: not synced")
	}
	var out []handoff.Pod
	for _, p := range i.pods {
		out = append(out, handoff.FromPod(p))
	}
	return out, nil
}

// send puts the pod's state in the API on its way to the informer.
func (w *world) send(p *pod) {
	snapshot, gone := p.api.DeepCopy(), p.gone
	w.events = append(w.events, func(i *informer) {
		i.apply(func() {
			if gone {
				delete(i.pods, snapshot.UID)
			} else {
				i.pods[snapshot.UID] = snapshot
			}
		})
	})
}

// deliver lets n events arrive, in order.
func (w *world) deliver(n int) {
	for range min(n, len(w.events)) {
		f := w.events[0]
		w.events = w.events[1:]
		f(w.inf)
	}
}

// relist replaces the cache by what the API has, as after a lost watch.
func (w *world) relist() {
	w.events = nil
	w.inf.apply(func() {
		clear(w.inf.pods)
		for _, p := range w.pods {
			if !p.gone {
				w.inf.pods[p.api.UID] = p.api.DeepCopy()
			}
		}
		w.inf.broken = false
	})
}

// used are the units that our scheduler takes for used: what status says, else
// assignments.
func (w *world) used() map[string]bool {
	out := map[string]bool{}
	for _, p := range w.pods {
		if p.terminalInAPI() {
			continue
		}
		h := handoff.FromPod(p.api)
		for _, c := range h.Containers {
			for _, ids := range c.Devices {
				for _, id := range ids {
					out[id] = true
				}
			}
		}
		if h.Assignment == nil {
			continue
		}
		for _, resources := range h.Assignment.Containers {
			for _, units := range resources {
				for _, u := range units {
					out[u.String()] = true
				}
			}
		}
	}
	return out
}

// create makes and binds a pod. With ours the scheduler assigns units; it says
// false when they are not to be had.
func (w *world) create(ours bool) bool {
	w.next++
	w.clock = w.clock.Add(time.Duration(w.rng.IntN(2)) * time.Second) // ties are common
	p := &pod{assigned: ours, started: map[string]bool{}, api: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: fmt.Sprintf("pod-%d", w.next), CreationTimestamp: metav1.Time{Time: w.clock},
		UID: types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", w.next)),
	}}}
	// Names come again, as those of a StatefulSet do.
	if w.rng.IntN(4) == 0 {
		p.api.Name = fmt.Sprintf("set-%d", w.rng.IntN(3))
		for _, q := range w.pods {
			if !q.gone && q.api.Name == p.api.Name {
				p.api.Name = fmt.Sprintf("pod-%d", w.next)
				break
			}
		}
	}
	p.api.Spec.NodeName = node
	p.api.Status.Phase = corev1.PodPending
	assignment := &v1alpha1.Assignment{Version: v1alpha1.AssignmentVersion, PodUID: p.uid(), Node: node,
		Containers: map[string]map[string][]topology.Address{}}
	used := w.used()
	containers := 1 + w.rng.IntN(5)/4
	for c := range containers {
		k := corev1.Container{Name: fmt.Sprintf("c%d", c), Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{}}}
		assignment.Containers[k.Name] = map[string][]topology.Address{}
		for i, pool := range pools() {
			if len(p.api.Spec.Containers)+i > 0 && w.rng.IntN(3) == 0 {
				continue
			}
			n := 1 + w.rng.IntN(2)
			k.Resources.Limits[corev1.ResourceName(pool.resource)] = resource.MustParse(fmt.Sprint(n))
			// The scheduler prefers one NUMA node, at random which.
			units := slices.Clone(pool.units)
			w.rng.Shuffle(len(units), func(i, j int) { units[i], units[j] = units[j], units[i] })
			first := w.rng.IntN(4) / 3 // kubelet prefers the lowest node in ties
			sort.SliceStable(units, func(i, j int) bool { return (numaOf(units[i]) == first) && (numaOf(units[j]) != first) })
			for _, u := range units {
				if len(assignment.Containers[k.Name][pool.resource]) < n && !used[u.String()] {
					used[u.String()] = true
					assignment.Containers[k.Name][pool.resource] = append(assignment.Containers[k.Name][pool.resource], u)
				}
			}
			if ours && len(assignment.Containers[k.Name][pool.resource]) < n {
				return false
			}
		}
		p.api.Spec.Containers = append(p.api.Spec.Containers, k)
	}
	if ours {
		text, err := assignment.Encode()
		if err != nil {
			panic(err)
		}
		p.api.Annotations = map[string]string{v1alpha1.AssignmentAnnotation: text}
	}
	w.pods = append(w.pods, p)
	w.queue = append(w.queue, p)
	w.send(p)
	return true
}

// forget drops pods that nobody knows any more.
func (w *world) forget() {
	w.pods = slices.DeleteFunc(w.pods, func(p *pod) bool { return p.gone && (p.dropped || !p.seen) && len(p.pending) == 0 })
}
