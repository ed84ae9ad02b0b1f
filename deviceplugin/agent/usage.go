package agent

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
	"github.com/kubevfio/kubevfio/deviceplugin/publish"
	"github.com/kubevfio/kubevfio/host"
)

// Limits of the NodeUsage: in the long run one look per usageEvery, but the first
// usageBurst changes after a calm time are published at once. A unit that a pod
// has given back is kept from the next one until the scheduler has read of it
// here, so on a calm node that must not take seconds.
const (
	usageEvery = 5 * time.Second
	usageBurst = 6
	// usageSettle lets the several changes that one pod's end makes become one write.
	usageSettle = 100 * time.Millisecond
)

// departed are the pods that have given units back, the newest last. Safe for
// concurrent use; the zero value is ready.
type departed struct {
	mu   sync.Mutex
	uids []string
	wake chan struct{}
}

// changed is closed when the next pod leaves.
func (d *departed) changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wake == nil {
		d.wake = make(chan struct{})
	}
	return d.wake
}

func (d *departed) add(uid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uids = append(slices.DeleteFunc(d.uids, func(u string) bool { return u == uid }), uid)
	if n := len(d.uids) - v1alpha1.MaxReleased; n > 0 {
		d.uids = slices.Delete(d.uids, 0, n)
	}
	if d.wake != nil {
		close(d.wake)
		d.wake = nil
	}
}

// without lists them, less those that still hold something: a pod gives its units
// back one after the other.
func (d *departed) without(claims []handoff.Claim) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.uids), func(uid string) bool {
		return slices.ContainsFunc(claims, func(c handoff.Claim) bool { return c.PodUID == uid })
	})
}

// usage publishes from which NUMA nodes the pods' exclusive CPUs and memory
// came, whenever pods have changed, but not too often.
func (a *Agent) usage(ctx context.Context) error {
	limit := rate.NewLimiter(rate.Every(usageEvery), usageBurst)
	for ctx.Err() == nil {
		changed, gone := a.pods.Changed(), a.gone.changed()
		if p := a.last(); p != nil && a.pods.Synced() {
			if err := a.publishUsage(ctx, p); err != nil && ctx.Err() == nil {
				a.cfg.Log.Warn("cannot publish the node's usage", "err", err)
			}
		}
		select {
		case <-changed:
		case <-gone:
		case <-time.After(a.cfg.Poll):
		case <-ctx.Done():
		}
		select {
		case <-time.After(usageSettle):
		case <-ctx.Done():
		}
		if err := limit.Wait(ctx); err != nil {
			break // ctx has ended
		}
	}
	return ctx.Err()
}

func (a *Agent) publishUsage(ctx context.Context, p *picture) error {
	call, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	list, err := a.resources.List(call)
	if err != nil {
		return err
	}
	pods, err := a.pods.Pods(ctx)
	if err != nil {
		return err
	}
	spec := v1alpha1.NodeUsageSpec{BootID: p.host.BootID, Pods: usageOf(list, pods), Released: a.gone.without(a.ledger.Claims())}
	wrote, err := a.publisher.Usage(ctx, publish.Owner{Name: p.node.Name, UID: p.node.UID}, spec)
	if wrote || err != nil {
		a.metrics.Publish("NodeUsage", err)
	}
	return err
}

// usageOf sums kubelet's answer by pod. Pods that hold nothing of one NUMA node
// alone are left out: the scheduler predicts nothing else for them. Kubelet names
// pods by name; a name that comes again means the pod that still lives.
func usageOf(list *podresources.ListPodResourcesResponse, pods []handoff.Pod) []v1alpha1.PodUsage {
	uids := map[string]string{}
	for i := range pods {
		if !pods[i].Terminal {
			uids[pods[i].Ref()] = pods[i].UID
		}
	}
	var out []v1alpha1.PodUsage
	for _, pr := range list.GetPodResources() {
		uid := uids[pr.GetNamespace()+"/"+pr.GetName()]
		if uid == "" {
			continue
		}
		u := v1alpha1.PodUsage{UID: uid}
		var cpus []int
		for _, c := range pr.GetContainers() {
			for _, id := range c.GetCpuIds() {
				cpus = append(cpus, int(id))
			}
			for _, m := range c.GetMemory() {
				var numa []int32
				for _, n := range m.GetTopology().GetNodes() {
					numa = append(numa, int32(n.GetID()))
				}
				slices.Sort(numa)
				u.Memory = append(u.Memory, v1alpha1.MemoryUsage{Type: m.GetMemoryType(), NUMA: numa, Bytes: int64(m.GetSize())})
			}
			for _, d := range c.GetDevices() {
				if d.GetTopology() == nil {
					continue // slots, and units of unknown node
				}
				if u.Devices == nil {
					u.Devices = map[string][]string{}
				}
				u.Devices[d.GetResourceName()] = append(u.Devices[d.GetResourceName()], d.GetDeviceIds()...)
			}
		}
		for r := range u.Devices {
			slices.Sort(u.Devices[r])
			u.Devices[r] = slices.Compact(u.Devices[r])
		}
		if len(cpus) > 0 {
			slices.Sort(cpus)
			u.CPUs = host.FormatList(cpus)
		}
		slices.SortFunc(u.Memory, func(x, y v1alpha1.MemoryUsage) int {
			return cmp.Or(cmp.Compare(x.Type, y.Type), slices.Compare(x.NUMA, y.NUMA), cmp.Compare(x.Bytes, y.Bytes))
		})
		if u.CPUs != "" || len(u.Memory) > 0 || len(u.Devices) > 0 {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(x, y v1alpha1.PodUsage) int { return cmp.Compare(x.UID, y.UID) })
	return out
}
