package podsource

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
)

func typesUID(s string) types.UID { return types.UID(s) }

// ErrNotSynced: the informer has not listed the node's pods yet.
var ErrNotSynced = errors.New("pods of this node are not listed yet")

// Informer caches the pods that are bound to one node.
type Informer struct {
	informer cache.SharedIndexInformer

	mu      sync.Mutex
	pods    map[types.UID]*handoff.Pod
	changed chan struct{}
}

// NewInformer watches the pods of a node once Run runs.
func NewInformer(client kubernetes.Interface, node string) (*Informer, error) {
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
	}))
	i := &Informer{informer: f.Core().V1().Pods().Informer(), pods: map[types.UID]*handoff.Pod{}, changed: make(chan struct{})}
	// What the agent never looks at need not be kept for each pod of the node.
	err := i.informer.SetTransform(func(o any) (any, error) {
		if p, ok := o.(*corev1.Pod); ok {
			p.ManagedFields = nil
			p.Spec.Volumes = nil
			for j := range p.Spec.Containers {
				slim(&p.Spec.Containers[j])
			}
			for j := range p.Spec.InitContainers {
				slim(&p.Spec.InitContainers[j])
			}
		}
		return o, nil
	})
	if err != nil {
		return nil, fmt.Errorf("informer of pods: %w", err)
	}
	_, err = i.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { i.put(o) },
		UpdateFunc: func(_, o any) { i.put(o) },
		DeleteFunc: func(o any) {
			if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = d.Obj
			}
			if p, ok := o.(*corev1.Pod); ok {
				i.drop(p.UID)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("informer of pods: %w", err)
	}
	return i, nil
}

func slim(c *corev1.Container) {
	c.Env, c.EnvFrom, c.VolumeMounts, c.LivenessProbe, c.ReadinessProbe, c.StartupProbe, c.Lifecycle = nil, nil, nil, nil, nil, nil, nil
	c.Command, c.Args = nil, nil
}

func (i *Informer) put(o any) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return
	}
	h := handoff.FromPod(p)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pods[p.UID] = &h
	i.fire()
}

func (i *Informer) drop(uid types.UID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.pods, uid)
	i.fire()
}

func (i *Informer) fire() {
	close(i.changed)
	i.changed = make(chan struct{})
}

// Run watches until ctx ends.
func (i *Informer) Run(ctx context.Context) { i.informer.RunWithContext(ctx) }

// Synced says that the first list is in.
func (i *Informer) Synced() bool { return i.informer.HasSynced() }

// Changed gives a channel that closes at the next change.
func (i *Informer) Changed() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed
}

// Pods implements handoff.Source; before the first list it is [ErrNotSynced].
func (i *Informer) Pods(context.Context) ([]handoff.Pod, error) {
	if !i.Synced() {
		return nil, ErrNotSynced
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	out := make([]handoff.Pod, 0, len(i.pods))
	for _, p := range i.pods {
		out = append(out, *p)
	}
	return out, nil
}

// ByUID gives a pod's cached object, nil when there is none. Volumes,
// environments and probes are left out. It must not be changed.
func (i *Informer) ByUID(uid string) *corev1.Pod {
	i.mu.Lock()
	h := i.pods[types.UID(uid)]
	i.mu.Unlock()
	if h == nil {
		return nil
	}
	o, ok, err := i.informer.GetStore().GetByKey(h.Namespace + "/" + h.Name)
	if err != nil || !ok {
		return nil
	}
	p, ok := o.(*corev1.Pod)
	if !ok || string(p.UID) != uid {
		return nil
	}
	return p
}

// Objects gives all cached pods, in no order, slim as those of ByUID. They must
// not be changed.
func (i *Informer) Objects() []*corev1.Pod {
	list := i.informer.GetStore().List()
	out := make([]*corev1.Pod, 0, len(list))
	for _, o := range list {
		if p, ok := o.(*corev1.Pod); ok {
			out = append(out, p)
		}
	}
	return out
}
