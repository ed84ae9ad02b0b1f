package devicetopology

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/utils/cpuset"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
)

// nodeKubelet is a node's kubelet as the inventory describes it.
type nodeKubelet struct {
	model *engine.Kubelet
	// cpus are the CPUs by NUMA node, in the model's order.
	cpus []cpuset.CPUSet
}

const hugepagesPrefix = "hugepages-"

// kubeletOf builds the model. Nil means that kubelet's managers do not decide
// which devices a pod gets.
func kubeletOf(s *v1alpha1.NodeInventorySpec) (*nodeKubelet, error) {
	p := &s.Kubelet
	m := &engine.Kubelet{
		Policy:         p.TopologyManagerPolicy,
		PodScope:       p.TopologyManagerScope == "pod",
		PreferClosest:  p.TopologyManagerPolicyOptions["prefer-closest-numa-nodes"] == "true",
		StaticCPU:      p.CPUManagerPolicy == "static",
		StaticMemory:   p.MemoryManagerPolicy == "Static",
		AlignBySocket:  p.CPUManagerPolicyOptions["align-by-socket"] == "true",
		FullCores:      p.CPUManagerPolicyOptions["full-pcpus-only"] == "true",
		DistributeNUMA: p.CPUManagerPolicyOptions["distribute-cpus-across-numa"] == "true",
		MemoryTypes:    []string{string(corev1.ResourceMemory)},
	}
	if (m.Policy == "" || m.Policy == engine.PolicyNone) && !m.StaticMemory {
		return nil, nil
	}
	reserved, err := cpuset.Parse(p.ReservedCPUs)
	if err != nil {
		return nil, fmt.Errorf("kubelet.reservedCPUs: %w", err)
	}
	for _, n := range s.NUMANodes {
		for _, size := range slices.Sorted(maps.Keys(n.Hugepages)) {
			if t := hugepagesPrefix + size; !slices.Contains(m.MemoryTypes, t) {
				m.MemoryTypes = append(m.MemoryTypes, t)
			}
		}
	}
	k := &nodeKubelet{model: m}
	for i := range s.NUMANodes {
		n := &s.NUMANodes[i]
		cpus, err := cpuset.Parse(n.CPUs)
		if err != nil {
			return nil, fmt.Errorf("numaNodes[%d].cpus: %w", i, err)
		}
		kn := engine.KubeletNUMA{ID: int(n.ID), Socket: -1, CPUs: cpus.Size(), Assignable: cpus.Difference(reserved).Size()}
		if n.Socket != nil {
			kn.Socket = int(*n.Socket)
		}
		for _, d := range n.Distances {
			kn.Distances = append(kn.Distances, int(d))
		}
		if kn.Memory, err = memoryOf(n, m.MemoryTypes, p.ReservedMemory[strconv.Itoa(int(n.ID))]); err != nil {
			return nil, fmt.Errorf("numaNodes[%d]: %w", i, err)
		}
		m.NUMA = append(m.NUMA, kn)
		k.cpus = append(k.cpus, cpus)
	}
	return k, nil
}

// memoryOf is what the memory manager can hand out of a NUMA node, by type.
func memoryOf(n *v1alpha1.InventoryNUMANode, types []string, reserved map[string]string) ([]int64, error) {
	out := make([]int64, len(types))
	plain := n.MemoryMiB << 20
	for t, name := range types {
		size, ok := strings.CutPrefix(name, hugepagesPrefix)
		if !ok {
			continue
		}
		q, err := resource.ParseQuantity(size)
		if err != nil {
			return nil, fmt.Errorf("hugepages[%s]: %w", size, err)
		}
		out[t] = n.Hugepages[size] * q.Value()
		plain -= out[t]
	}
	out[0] = plain
	for t, name := range types {
		if r, ok := reserved[name]; ok {
			q, err := resource.ParseQuantity(r)
			if err != nil {
				return nil, fmt.Errorf("kubelet.reservedMemory %s: %w", name, err)
			}
			out[t] -= q.Value()
		}
		out[t] = max(0, out[t])
	}
	return out, nil
}

// exclusive are the containers of a pod as kubelet's managers see them, in the
// order of admission, with no devices. Only pods of QoS class Guaranteed get
// CPUs and memory of their own.
func exclusive(pod *corev1.Pod) []engine.Container {
	own := qos.GetPodQOS(pod) == corev1.PodQOSGuaranteed && !resourcehelper.IsPodLevelResourcesSet(pod)
	out := make([]engine.Container, 0, len(pod.Spec.InitContainers)+len(pod.Spec.Containers))
	add := func(c *corev1.Container, kind engine.ContainerKind) {
		ec := engine.Container{Name: c.Name, Kind: kind}
		if own {
			if cpu := c.Resources.Requests.Cpu(); cpu.Value()*1000 == cpu.MilliValue() {
				ec.CPUs = int(cpu.Value())
			}
			for name, q := range c.Resources.Requests {
				if name == corev1.ResourceMemory || strings.HasPrefix(string(name), hugepagesPrefix) {
					ec.Memory = append(ec.Memory, engine.MemoryNeed{Type: string(name), Bytes: q.Value()})
				}
			}
			slices.SortFunc(ec.Memory, func(a, b engine.MemoryNeed) int { return cmp.Compare(a.Type, b.Type) })
		}
		out = append(out, ec)
	}
	for i := range pod.Spec.InitContainers {
		kind := engine.Init
		if sidecar(&pod.Spec.InitContainers[i]) {
			kind = engine.Sidecar
		}
		add(&pod.Spec.InitContainers[i], kind)
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i], engine.App)
	}
	return out
}

// load is what kubelet's managers have handed out on a node: by the agent's
// report for the pods that it covers, predicted for the others in the order in
// which kubelet met them.
func (s *shared) load(k *nodeKubelet, e *nodeEntry, node string, usage *nodeUsage, pods []fwk.PodInfo, skip string) *engine.Load {
	l := k.model.NewLoad()
	if usage != nil && usage.bootID != e.bootID {
		usage = nil
	}
	var rest []*corev1.Pod
	for _, pi := range pods {
		pod := pi.GetPod()
		if string(pod.UID) == skip || terminated(pod) {
			continue
		}
		if usage != nil && usage.pods[pod.UID] != nil {
			k.use(l, usage.pods[pod.UID])
			continue
		}
		if qos.GetPodQOS(pod) == corev1.PodQOSGuaranteed {
			rest = append(rest, pod)
		}
	}
	slices.SortFunc(rest, func(a, b *corev1.Pod) int {
		return cmp.Or(begin(a)-begin(b), cmp.Compare(a.UID, b.UID))
	})
	for _, pod := range rest {
		var numa []int
		if a := s.decision(pod, node); a != nil {
			numa = a.NUMANodes
		}
		l = k.model.AdmitNear(l, exclusive(pod), numa)
	}
	return l
}

// begin orders pods as kubelet met them, as far as one can tell.
func begin(p *corev1.Pod) int {
	if p.Status.StartTime != nil {
		return int(p.Status.StartTime.Unix())
	}
	return int(p.CreationTimestamp.Unix())
}

// use notes what the agent reports for one pod. A report that cannot be read
// counts as nothing: the agent's own tests hold its form.
func (k *nodeKubelet) use(l *engine.Load, u *v1alpha1.PodUsage) {
	if set, err := cpuset.Parse(u.CPUs); err == nil {
		for i := range k.cpus {
			if n := set.Intersection(k.cpus[i]).Size(); n > 0 {
				l.UseCPUs(k.model, k.model.NUMA[i].ID, n)
			}
		}
	}
	for _, m := range u.Memory {
		ids := make([]int, len(m.NUMA))
		for i, id := range m.NUMA {
			ids[i] = int(id)
		}
		l.UseMemory(k.model, m.Type, ids, m.Bytes)
	}
}
