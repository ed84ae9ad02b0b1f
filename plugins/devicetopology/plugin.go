package devicetopology

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
)

// Name is the plugin's name in profiles.
const Name = v1alpha1.PluginName

// Factory makes the plugin for each profile of one scheduler. All profiles
// share one view of inventories and reservations, so pods of several profiles
// never get one device. Use one Factory per scheduler process.
type Factory struct {
	mu     sync.Mutex
	shared *shared
}

// NewFactory returns a factory for one scheduler process.
func NewFactory() *Factory { return &Factory{} }

// shared is what the profiles have in common.
type shared struct {
	args    *Args
	inv     *inventories
	usage   *usages
	ledger  *ledger
	sources []*source
	waiting *waiting
	seen    engine.Observer
	memos   *memos
}

// plugin is DeviceTopology for one profile.
type plugin struct {
	*shared
	handle fwk.Handle
}

var (
	_ fwk.PreFilterPlugin   = &plugin{}
	_ fwk.FilterPlugin      = &plugin{}
	_ fwk.PreScorePlugin    = &plugin{}
	_ fwk.ScorePlugin       = &plugin{}
	_ fwk.ReservePlugin     = &plugin{}
	_ fwk.BindPlugin        = &plugin{}
	_ fwk.EnqueueExtensions = &plugin{}
	_ fwk.SignPlugin        = &plugin{}
)

// New builds the plugin for one profile; it has the signature of the
// scheduler's plugin factories. The first call starts the watches, which end
// with ctx. The arguments of the first profile hold for all.
func (f *Factory) New(ctx context.Context, obj runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
	args, err := decodeArgs(obj)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shared == nil {
		s := newShared(args)
		if err := s.start(ctx, handle); err != nil {
			return nil, err
		}
		f.shared = s
	}
	return &plugin{shared: f.shared, handle: handle}, nil
}

func newShared(args *Args) *shared {
	return &shared{args: args, inv: newInventories(), usage: newUsages(), ledger: newLedger(), waiting: newWaiting(), memos: newMemos()}
}

// start begins to watch our resources and the pods' ends.
func (s *shared) start(ctx context.Context, handle fwk.Handle) error {
	logger := klog.FromContext(ctx)
	if _, err := handle.SharedInformerFactory().Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(oldObj, obj any) {
			old, ok1 := oldObj.(*corev1.Pod)
			pod, ok2 := obj.(*corev1.Pod)
			if ok1 && ok2 && s.observe(old, pod) {
				handle.Activate(logger, map[string]*corev1.Pod{pod.Namespace + "/" + pod.Name: pod})
			}
		},
		DeleteFunc: func(obj any) {
			if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = d.Obj
			}
			if pod, ok := obj.(*corev1.Pod); ok {
				s.forget(pod)
			}
		},
	}); err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	config := handle.KubeConfig()
	if config == nil {
		return errors.New("DeviceTopology needs the scheduler's connection settings, and got none")
	}
	client, err := newClient(config)
	if err != nil {
		return err
	}
	wake := &notifier{interval: s.args.RetryInterval.Duration, fn: func() {
		s.waiting.activate(logger, handle)
	}}
	s.sources = []*source{
		{
			resource: "nodeinventories", example: &v1alpha1.NodeInventory{}, notify: wake.notify,
			set:      func(o any) { s.inv.set(o.(*v1alpha1.NodeInventory)) },
			remove:   s.inv.remove,
			keepOnly: s.inv.keepOnly,
		},
		{
			resource: "devicepools", example: &v1alpha1.DevicePool{}, notify: wake.notify,
			set:      func(o any) { s.inv.setPool(o.(*v1alpha1.DevicePool)) },
			remove:   s.inv.removePool,
			keepOnly: s.inv.keepOnlyPools,
		},
		{
			resource: "nodeusages", example: &v1alpha1.NodeUsage{}, notify: wake.notify,
			set:      func(o any) { s.setUsage(o.(*v1alpha1.NodeUsage)) },
			remove:   s.usage.remove,
			keepOnly: s.usage.keepOnly,
		},
	}
	go s.sweep(ctx, wake)
	for _, src := range s.sources {
		go src.run(ctx, client, s.args.RetryInterval.Duration)
	}
	return nil
}

// sweep ends holds whose time is over.
func (s *shared) sweep(ctx context.Context, wake *notifier) {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if s.ledger.sweep() {
				wake.notify()
			}
		}
	}
}

// setUsage takes over a report and ends the holds of pods that it shows to be
// gone from the node: their guests have ended.
func (s *shared) setUsage(u *v1alpha1.NodeUsage) {
	before := s.usage.get(u.Name)
	s.usage.set(u)
	held, _ := s.ledger.held(u.Name)
	now := s.usage.get(u.Name)
	for uid := range held {
		if before != nil && before.pods[uid] != nil && now.pods[uid] == nil || slices.Contains(u.Spec.Released, string(uid)) {
			s.ledger.release(u.Name, uid)
		}
	}
}

// observe notes that a pod was bound. Its holds stay until they end by
// themselves: the scheduler's cache may not have the pod yet. It reports whether
// a waiting pod has another wish now, which no event of the scheduler tells.
func (s *shared) observe(old, pod *corev1.Pod) (retry bool) {
	if pod.Spec.NodeName != "" {
		s.waiting.remove(pod.UID)
		return false
	}
	return old.Annotations[v1alpha1.AlignmentAnnotation] != pod.Annotations[v1alpha1.AlignmentAnnotation] &&
		s.waiting.replace(pod)
}

// forget drops what is kept for a pod that is gone. When its guest may still run
// (it was deleted by force), its units stay taken until the node reports that it
// has let go of them, or for some minutes.
func (s *shared) forget(pod *corev1.Pod) {
	s.waiting.remove(pod.UID)
	if a := s.decision(pod, pod.Spec.NodeName); a != nil && pod.Spec.NodeName != "" && running(pod) &&
		!s.usage.letGo(pod.Spec.NodeName, pod.UID) {
		s.ledger.hold(pod.Spec.NodeName, pod.UID, a, holdForced)
	} else {
		s.ledger.release("", pod.UID)
	}
	s.ledger.drop(pod.UID)
}

// running reports whether the last status that the scheduler saw of a pod that
// is gone has a container that still ran. Trap: the scheduler's informer asks
// for pods that have not ended, so that a pod that ends in order leaves it with
// its status of before and looks deleted by force. Its units are free with the
// NodeUsage that no longer has it, which may come before or after.
func running(pod *corev1.Pod) bool {
	if terminated(pod) {
		return false
	}
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].State.Running != nil {
			return true
		}
	}
	return false
}

// Name implements [fwk.Plugin].
func (pl *plugin) Name() string { return Name }

// waiting are the pods that the plugin rejected or may reject, so that news
// from our own watches can wake them.
type waiting struct {
	mu   sync.Mutex
	pods map[types.UID]*corev1.Pod
	// counted are the pods that the mix of requests has counted.
	counted map[types.UID]bool
}

func newWaiting() *waiting {
	return &waiting{pods: map[types.UID]*corev1.Pod{}, counted: map[types.UID]bool{}}
}

// first reports whether this is the first time that it is asked about a pod.
func (w *waiting) first(uid types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.counted[uid] {
		return false
	}
	w.counted[uid] = true
	return true
}

func (w *waiting) add(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods[pod.UID] = pod
}

// replace keeps the newest form of a waiting pod; false when it does not wait.
func (w *waiting) replace(pod *corev1.Pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pods[pod.UID] == nil {
		return false
	}
	w.pods[pod.UID] = pod
	return true
}

func (w *waiting) remove(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pods, uid)
	delete(w.counted, uid)
}

// activate puts the waiting pods back into the scheduling queue.
func (w *waiting) activate(logger klog.Logger, a fwk.PodActivator) {
	w.mu.Lock()
	pods := make(map[string]*corev1.Pod, len(w.pods))
	for _, p := range w.pods {
		pods[p.Namespace+"/"+p.Name] = p
	}
	w.mu.Unlock()
	if len(pods) > 0 {
		a.Activate(logger, pods)
	}
}
