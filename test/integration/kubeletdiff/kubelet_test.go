package kubeletdiff

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sort"
	"time"

	cadvisorapi "github.com/google/cadvisor/info/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cm/containermap"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"

	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
	"github.com/kubevfio/kubevfio/test/integration/kubeletns"
)

const pluginDir = kubeletns.PluginDir

const checkpointFile = pluginDir + "/kubelet_internal_checkpoint"

// kubelet is the part of kubelet that admits pods: its own device and topology
// managers, with the list of pods and the admission loop around them as in
// kubelet.go.
type kubelet struct {
	policy, scope string
	dm            *devicemanager.ManagerImpl
	tm            topologymanager.Manager
	list          []*pod // the pod manager
	ready         bool   // sources are ready
	// podsFail and holdersFail make the APIs of kubelet fail.
	podsFail, holdersFail bool
}

func (k *kubelet) AddSource(string) {}
func (k *kubelet) AllReady() bool   { return k.ready }

// start makes a new kubelet process; running are containers that the runtime
// reports.
func (k *kubelet) start(running []*pod) error {
	nodes := []cadvisorapi.Node{{Id: 0}, {Id: 1}}
	var err error
	if k.tm, err = topologymanager.NewManager(nodes, k.policy, k.scope, nil); err != nil {
		return err
	}
	if k.dm, err = devicemanager.NewManagerImpl(nodes, k.tm); err != nil {
		return err
	}
	k.tm.AddHintProvider(klog.Background(), k.dm)
	containers, set := containermap.NewContainerMap(), sets.New[string]()
	for _, p := range running {
		for name := range p.started {
			id := p.uid() + "/" + name
			containers.Add(p.uid(), name, id)
			set.Insert(id)
		}
	}
	k.list, k.ready = nil, false
	return k.dm.Start(klog.Background(), k.active, k, containers, set)
}

func (k *kubelet) stop() error { return k.dm.Stop(klog.Background()) }

// active is GetActivePods: what is not terminated.
func (k *kubelet) active() []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range k.list {
		if !p.rejected && !p.ended {
			out = append(out, p.api)
		}
	}
	return out
}

// admit is HandlePodAdditions for one batch. veto says when another admission
// handler refuses a pod: before the devices or after them.
func (k *kubelet) admit(batch []*pod, veto func(*pod) (before, after bool)) {
	for _, p := range k.order(batch) {
		k.list = append(k.list, p)
		p.seen = true
		if p.ended || p.api.Status.Phase == corev1.PodFailed || p.api.Status.Phase == corev1.PodSucceeded {
			continue
		}
		before, after := veto(p)
		ok := !before
		if ok {
			ok = k.tm.Admit(&lifecycle.PodAdmitAttributes{Pod: p.api, OtherPods: k.active()}).Admit
		}
		if ok && !after {
			p.admitted = true
			continue
		}
		p.admitted, p.rejected = false, true
		p.pending = append(p.pending, func() { p.api = p.api.DeepCopy(); p.api.Status.Phase = corev1.PodFailed })
	}
}

// order is that in which kubelet admits a batch.
func (k *kubelet) order(batch []*pod) []*pod {
	batch = slices.Clone(batch)
	sort.SliceStable(batch, func(i, j int) bool {
		return batch[i].api.CreationTimestamp.Before(&batch[j].api.CreationTimestamp)
	})
	return batch
}

// startContainers starts what an admitted pod has; it says whether kubelet could.
func (k *kubelet) startContainers(p *pod) error {
	for i := range p.api.Spec.Containers {
		c := &p.api.Spec.Containers[i]
		if p.started[c.Name] {
			continue
		}
		if _, err := k.dm.GetDeviceRunContainerOptions(context.Background(), p.api, c); err != nil {
			return fmt.Errorf("%s/%s: %w", p.api.Name, c.Name, err)
		}
		p.started[c.Name] = true
	}
	p.pending = append(p.pending, func() {
		status := p.api.DeepCopy()
		status.Status.Phase = corev1.PodRunning
		status.Status.ContainerStatuses = nil
		for _, c := range status.Spec.Containers {
			s := corev1.ContainerStatus{Name: c.Name, ContainerID: "containerd://" + p.uid() + "/" + c.Name}
			for resource, ids := range k.devices(p, c.Name) {
				rs := corev1.ResourceStatus{Name: corev1.ResourceName(resource)}
				for _, id := range ids {
					rs.Resources = append(rs.Resources, corev1.ResourceHealth{ResourceID: corev1.ResourceID(id), Health: "Healthy"})
				}
				s.AllocatedResourcesStatus = append(s.AllocatedResourcesStatus, rs)
			}
			status.Status.ContainerStatuses = append(status.Status.ContainerStatuses, s)
		}
		p.api = status
	})
	return nil
}

// devices is what the device manager says that a container holds.
func (k *kubelet) devices(p *pod, container string) map[string][]string {
	out := map[string][]string{}
	for resource, instances := range k.dm.GetDevices(p.uid(), container) {
		out[resource] = slices.Sorted(maps.Keys(instances))
	}
	return out
}

// Pods implements handoff.Source: kubelet's /pods.
func (k *kubelet) Pods(context.Context) ([]handoff.Pod, error) {
	if k.podsFail {
		return nil, errors.New("kubelet /pods: 500")
	}
	var out []handoff.Pod
	for _, p := range k.list {
		out = append(out, handoff.FromPod(p.api))
	}
	return out, nil
}

// Holders implements handoff.Holders: the pod-resources API.
func (k *kubelet) Holders(context.Context) ([]handoff.Held, error) {
	if k.holdersFail {
		return nil, errors.New("pod-resources: unavailable")
	}
	k.dm.UpdateAllocatedDevices()
	var out []handoff.Held
	for _, p := range k.list {
		if p.rejected || p.ended {
			continue
		}
		for _, c := range p.api.Spec.Containers {
			for resource, ids := range k.devices(p, c.Name) {
				out = append(out, handoff.Held{Namespace: p.api.Namespace, Name: p.api.Name, Container: c.Name, Resource: resource, IDs: ids})
			}
		}
	}
	return out, nil
}

// allocatable waits until kubelet offers n of each resource.
func (k *kubelet) waitCapacity(want map[string]int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		_, got, _ := k.dm.GetCapacity()
		right := true
		for resource, n := range want {
			q := got[corev1.ResourceName(resource)]
			right = right && q.Value() == int64(n)
		}
		if right {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("allocatable after %v: %v, want %v", limit, got, want)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func loseCheckpoint() error {
	err := os.Remove(checkpointFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
