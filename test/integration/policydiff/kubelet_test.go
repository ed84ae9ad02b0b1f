package policydiff

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	cadvisorapi "github.com/google/cadvisor/info/v1"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/cm/containermap"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/memorymanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/utils/cpuset"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/integration/kubeletns"
)

// kubelet is kubelet's own managers around a list of pods.
type kubelet struct {
	tm   topologymanager.Manager
	dm   *devicemanager.ManagerImpl
	cm   cpumanager.Manager
	mm   memorymanager.Manager
	mu   sync.Mutex
	pods map[string]*corev1.Pod
	// dir is where the managers keep their state.
	dir string
	// admitting is the pod in admission, with its assignment: the agent's view.
	admitting  *corev1.Pod
	assignment *v1alpha1.Assignment
}

func (k *kubelet) AddSource(string) {}
func (k *kubelet) AllReady() bool   { return true }

// GetPodStatus and UpdateContainerResources are for the managers' reconcilers,
// which have nothing to do: no container ever runs.
func (k *kubelet) GetPodStatus(types.UID) (corev1.PodStatus, bool) { return corev1.PodStatus{}, false }

func (k *kubelet) UpdateContainerResources(context.Context, string, *runtimeapi.ContainerResources) error {
	return nil
}

func (k *kubelet) active() []*corev1.Pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Values(k.pods))
}

// add and remove change the list of pods.
func (k *kubelet) add(pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pods[string(pod.UID)] = pod
}

func (k *kubelet) remove(pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pods, string(pod.UID))
}

// newKubelet starts the managers for a machine.
func newKubelet(m *machine, dir string) (*kubelet, error) {
	ctx, logger := context.Background(), klog.Background()
	k := &kubelet{pods: map[string]*corev1.Pod{}, dir: dir}
	// Another session's pods have the same UIDs.
	if err := os.Remove(kubeletns.PluginDir + "/kubelet_internal_checkpoint"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	info := m.machineInfo()
	var err error
	if k.tm, err = topologymanager.NewManager(info.Topology, m.policy, m.scope, m.topologyOptions); err != nil {
		return nil, err
	}
	reserved := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(m.reserved.Size()), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(int64(m.numa)*m.reservedMemory, resource.BinarySI),
	}
	if k.cm, err = cpumanager.NewManager(logger, m.cpuPolicy, m.cpuOptions, 24*time.Hour, info, m.reserved, reserved, dir, k.tm); err != nil {
		return nil, err
	}
	var mem []kubeletconfig.MemoryReservation
	for n := range m.numa {
		mem = append(mem, kubeletconfig.MemoryReservation{
			NumaNode: int32(n),
			Limits:   corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(m.reservedMemory, resource.BinarySI)},
		})
	}
	if k.mm, err = memorymanager.NewManager(logger, m.memoryPolicy, info, reserved, mem, dir, k.tm); err != nil {
		return nil, err
	}
	if k.dm, err = devicemanager.NewManagerImpl(info.Topology, k.tm); err != nil {
		return nil, err
	}
	for _, h := range []topologymanager.HintProvider{k.dm, k.cm, k.mm} {
		k.tm.AddHintProvider(logger, h)
	}
	if err := k.cm.Start(ctx, k.active, k, k, k, containermap.NewContainerMap()); err != nil {
		return nil, err
	}
	if err := k.mm.Start(ctx, k.active, k, k, k, containermap.NewContainerMap()); err != nil {
		return nil, err
	}
	if err := k.dm.Start(logger, k.active, k, containermap.NewContainerMap(), sets.New[string]()); err != nil {
		return nil, err
	}
	for _, r := range m.resources {
		if err := k.dm.PluginConnected(ctx, r, devicePlugin{k: k, resource: r}); err != nil {
			return nil, err
		}
		resp := &pluginapi.ListAndWatchResponse{}
		for _, u := range m.units {
			if u.resource != r {
				continue
			}
			d := &pluginapi.Device{ID: u.id, Health: pluginapi.Healthy}
			if !u.healthy {
				d.Health = pluginapi.Unhealthy
			}
			if u.numa >= 0 {
				d.Topology = &pluginapi.TopologyInfo{Nodes: []*pluginapi.NUMANode{{ID: int64(u.numa)}}}
			}
			resp.Devices = append(resp.Devices, d)
		}
		k.dm.PluginListAndWatchReceiver(logger, r, resp)
	}
	return k, nil
}

func (k *kubelet) stop() error { return k.dm.Stop(klog.Background()) }

// admit is kubelet's admission of a pod. The refusal's reason is its error.
func (k *kubelet) admit(pod *corev1.Pod, a *v1alpha1.Assignment) error {
	k.admitting, k.assignment = pod, a
	k.add(pod)
	res := k.tm.Admit(&lifecycle.PodAdmitAttributes{Pod: pod, OtherPods: k.active()})
	if !res.Admit {
		k.remove(pod)
		return fmt.Errorf("%s: %s", res.Reason, res.Message)
	}
	return nil
}

// view is how kubelet's managers see a pod that they refused, for messages.
func (k *kubelet) view(pod *corev1.Pod) string {
	var b strings.Builder
	for i := range pod.Spec.Containers {
		fmt.Fprintf(&b, "affinity of %s: %+v\n", pod.Spec.Containers[i].Name, k.tm.GetAffinity(string(pod.UID), pod.Spec.Containers[i].Name))
	}
	fmt.Fprintf(&b, "hints of memory: %+v\nhints of devices: %+v\nhints of CPUs: %+v", k.mm.GetPodTopologyHints(pod), k.dm.GetPodTopologyHints(pod), k.cm.GetPodTopologyHints(pod))
	if state, err := os.ReadFile(filepath.Join(k.dir, "memory_manager_state")); err == nil {
		fmt.Fprintf(&b, "\nmemory manager: %s", state)
	}
	return b.String()
}

// usage is what the node's agent would read from the pod-resources API.
func (k *kubelet) usage(m *machine) *v1alpha1.NodeUsage {
	u := &v1alpha1.NodeUsage{}
	u.Name = m.name
	u.Spec.BootID = "boot"
	for _, uid := range slices.Sorted(maps.Keys(k.pods)) {
		pu := v1alpha1.PodUsage{UID: uid}
		var cpus cpuset.CPUSet
		for i := range k.pods[uid].Spec.Containers {
			c := &k.pods[uid].Spec.Containers[i]
			cpus = cpus.Union(k.cm.GetExclusiveCPUs(uid, c.Name))
			for _, b := range k.mm.GetMemory(uid, c.Name) {
				mu := v1alpha1.MemoryUsage{Type: string(b.Type), Bytes: int64(b.Size)}
				for _, n := range b.NUMAAffinity {
					mu.NUMA = append(mu.NUMA, int32(n))
				}
				pu.Memory = append(pu.Memory, mu)
			}
			for r, ids := range k.devices(uid, c.Name) {
				if pu.Devices == nil {
					pu.Devices = map[string][]string{}
				}
				pu.Devices[r] = append(pu.Devices[r], ids...)
			}
		}
		pu.CPUs = cpus.String()
		u.Spec.Pods = append(u.Spec.Pods, pu)
	}
	return u
}

// devices are what the device manager gave to a container, sorted.
func (k *kubelet) devices(uid, container string) map[string][]string {
	out := map[string][]string{}
	for r, ds := range k.dm.GetDevices(uid, container) {
		out[r] = slices.Sorted(maps.Keys(ds))
	}
	return out
}

// devicePlugin is our agent towards kubelet: it steers to the assignment and
// gives nothing else.
type devicePlugin struct {
	k        *kubelet
	resource string
}

func (d devicePlugin) API() pluginapi.DevicePluginClient { return d }
func (d devicePlugin) Resource() string                  { return d.resource }
func (d devicePlugin) SocketPath() string                { return "/nowhere" }

func (d devicePlugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty, ...grpc.CallOption) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{GetPreferredAllocationAvailable: true}, nil
}

var errUnused = errors.New("not used")

func (d devicePlugin) ListAndWatch(context.Context, *pluginapi.Empty, ...grpc.CallOption) (grpc.ServerStreamingClient[pluginapi.ListAndWatchResponse], error) {
	return nil, errUnused
}

func (d devicePlugin) PreStartContainer(context.Context, *pluginapi.PreStartContainerRequest, ...grpc.CallOption) (*pluginapi.PreStartContainerResponse, error) {
	return nil, errUnused
}

// mine are the assigned units of the pod in admission that are still available.
func (d devicePlugin) mine() []string {
	var out []string
	for _, resources := range d.k.assignment.Containers {
		for _, a := range resources[d.resource] {
			out = append(out, a.String())
		}
	}
	return out
}

func (d devicePlugin) GetPreferredAllocation(_ context.Context, req *pluginapi.PreferredAllocationRequest, _ ...grpc.CallOption) (*pluginapi.PreferredAllocationResponse, error) {
	resp := &pluginapi.PreferredAllocationResponse{}
	for _, c := range req.ContainerRequests {
		ids := slices.Clone(c.MustIncludeDeviceIDs)
		// Containers are served in order; the next one whose units fit is meant.
		for _, ct := range d.k.admitting.Spec.Containers {
			var want []string
			for _, a := range d.k.assignment.Containers[ct.Name][d.resource] {
				want = append(want, a.String())
			}
			if len(want) != int(c.AllocationSize) || slices.ContainsFunc(want, func(id string) bool { return !slices.Contains(c.AvailableDeviceIDs, id) }) {
				continue
			}
			for _, id := range want {
				if !slices.Contains(ids, id) {
					ids = append(ids, id)
				}
			}
			break
		}
		resp.ContainerResponses = append(resp.ContainerResponses, &pluginapi.ContainerPreferredAllocationResponse{DeviceIDs: ids})
	}
	return resp, nil
}

func (d devicePlugin) Allocate(_ context.Context, req *pluginapi.AllocateRequest, _ ...grpc.CallOption) (*pluginapi.AllocateResponse, error) {
	resp := &pluginapi.AllocateResponse{}
	mine := d.mine()
	for _, c := range req.ContainerRequests {
		for _, id := range c.DevicesIds {
			if !slices.Contains(mine, id) {
				return nil, fmt.Errorf("%s of %s is not in the assignment %v", id, d.resource, mine)
			}
		}
		resp.ContainerResponses = append(resp.ContainerResponses, &pluginapi.ContainerAllocateResponse{})
	}
	return resp, nil
}

// machineInfo is what cadvisor would tell kubelet.
func (m *machine) machineInfo() *cadvisorapi.MachineInfo {
	info := &cadvisorapi.MachineInfo{NumSockets: m.sockets}
	for n := range m.numa {
		node := cadvisorapi.Node{Id: n, Memory: uint64(m.memory), Distances: m.distances(n)}
		for size, pages := range m.hugepages[n] {
			node.HugePages = append(node.HugePages, cadvisorapi.HugePagesInfo{PageSize: uint64(size >> 10), NumPages: uint64(pages)})
		}
		for c := range m.cores {
			core := cadvisorapi.Core{Id: n*m.cores + c, SocketID: m.socketOf(n)}
			for t := range m.threads {
				core.Threads = append(core.Threads, m.cpu(n, c, t))
			}
			node.Cores = append(node.Cores, core)
		}
		info.NumCores += m.cores * m.threads
		info.NumPhysicalCores += m.cores
		info.MemoryCapacity += uint64(m.memory)
		info.Topology = append(info.Topology, node)
	}
	return info
}

// inventory is what the node's agent would publish.
func (m *machine) inventory() *v1alpha1.NodeInventory {
	inv := &v1alpha1.NodeInventory{}
	inv.Name = m.name
	s := &inv.Spec
	s.BootID = "boot"
	s.Kinds = []v1alpha1.DeviceKind{{}}
	s.Resources = m.resources
	s.Kubelet = v1alpha1.KubeletPolicy{
		TopologyManagerPolicy: m.policy, TopologyManagerScope: m.scope, TopologyManagerPolicyOptions: m.topologyOptions,
		CPUManagerPolicy: m.cpuPolicy, CPUManagerPolicyOptions: m.cpuOptions, MemoryManagerPolicy: m.memoryPolicy,
		ReservedCPUs: m.reserved.String(), ReservedMemory: map[string]map[string]string{},
	}
	for n := range m.numa {
		var cpus []int
		for c := range m.cores {
			for t := range m.threads {
				cpus = append(cpus, m.cpu(n, c, t))
			}
		}
		socket := int32(m.socketOf(n))
		in := v1alpha1.InventoryNUMANode{ID: int32(n), Socket: &socket, CPUs: cpuset.New(cpus...).String(), MemoryMiB: m.memory >> 20}
		for size, pages := range m.hugepages[n] {
			if in.Hugepages == nil {
				in.Hugepages = map[string]int64{}
			}
			in.Hugepages[resource.NewQuantity(size, resource.BinarySI).String()] = pages
		}
		for _, d := range m.distances(n) {
			in.Distances = append(in.Distances, int32(d))
		}
		s.NUMANodes = append(s.NUMANodes, in)
		s.Attachments = append(s.Attachments, v1alpha1.Attachment{Name: "pci" + strconv.Itoa(n)})
		s.Kubelet.ReservedMemory[strconv.Itoa(n)] = map[string]string{"memory": strconv.FormatInt(m.reservedMemory, 10)}
	}
	s.Attachments = append(s.Attachments, v1alpha1.Attachment{Name: "pci-unknown"})
	for _, u := range m.units {
		iu := v1alpha1.InventoryUnit{ID: u.id, At: int32(m.numa)}
		res := int32(slices.Index(m.resources, u.resource))
		iu.Resource = &res
		if u.numa >= 0 {
			n := int32(u.numa)
			iu.NUMA, iu.At = &n, n
		}
		if !u.healthy {
			iu.NotReady = "broken"
		}
		s.Units = append(s.Units, iu)
	}
	return inv
}
