package policydiff

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/utils/cpuset"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology"
)

// machine is a random node and its kubelet's configuration.
type machine struct {
	name                          string
	numa, sockets, cores, threads int
	memory, reservedMemory        int64
	hugepages                     []map[int64]int64
	reserved                      cpuset.CPUSet
	policy, scope                 string
	cpuPolicy, memoryPolicy       string
	topologyOptions, cpuOptions   map[string]string
	resources                     []string
	units                         []unit
}

type unit struct {
	id, resource string
	numa         int
	healthy      bool
}

func (m *machine) socketOf(numa int) int { return numa * m.sockets / m.numa }

// cpu numbers threads as Linux does: first threads of all cores, then second ones.
func (m *machine) cpu(numa, core, thread int) int {
	return thread*m.numa*m.cores + numa*m.cores + core
}

func (m *machine) distances(n int) []uint64 {
	var out []uint64
	for o := range m.numa {
		switch {
		case o == n:
			out = append(out, 10)
		case m.socketOf(o) == m.socketOf(n):
			out = append(out, 12)
		default:
			out = append(out, 21)
		}
	}
	return out
}

const mi = int64(1) << 20

func randomMachine(r *rand.Rand, policy string) *machine {
	m := &machine{
		name: "node-a", numa: 1 << r.IntN(3), cores: 2 + r.IntN(5), threads: 1 + r.IntN(2),
		memory: (4 + int64(r.IntN(5))) * 1024 * mi, reservedMemory: int64(64+r.IntN(3)*64) * mi,
		policy: policy, scope: []string{"container", "pod"}[r.IntN(2)],
		cpuPolicy:    []string{"static", "static", "none"}[r.IntN(3)],
		memoryPolicy: []string{"Static", "None"}[r.IntN(2)],
		resources:    []string{"kubevfio.io/gpu", "kubevfio.io/vf"},
	}
	m.sockets = 1
	if m.numa > 1 {
		m.sockets = 1 + r.IntN(2)
	}
	if m.numa > 1 && r.IntN(3) == 0 && policy != "none" {
		m.topologyOptions = map[string]string{"prefer-closest-numa-nodes": "true"}
	}
	m.reserved = cpuset.New(0)
	// Every NUMA node of a machine knows the same sizes, with as few as no pages.
	small, large := r.IntN(2) == 0, r.IntN(3) == 0
	for range m.numa {
		hp := map[int64]int64{}
		if small {
			hp[2*mi] = int64(r.IntN(400))
		}
		if large {
			hp[1024*mi] = int64(r.IntN(3))
		}
		m.hugepages = append(m.hugepages, hp)
	}
	for i := range 3 + r.IntN(14) {
		u := unit{id: fmt.Sprintf("0000:%02x:00.0", i+1), resource: m.resources[r.IntN(2)], numa: r.IntN(m.numa), healthy: r.IntN(12) > 0}
		if r.IntN(15) == 0 {
			u.numa = -1
		}
		m.units = append(m.units, u)
	}
	return m
}

// randomPod is a pod with one or two containers that ask for devices, and
// usually for CPUs and memory of their own.
func randomPod(r *rand.Rand, m *machine, n int) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: fmt.Sprintf("p%d", n), UID: types.UID(fmt.Sprintf("uid-%d", n)),
		CreationTimestamp: metav1.NewTime(time.Unix(int64(n), 0)),
	}}
	guaranteed := r.IntN(4) > 0
	for c := range 1 + r.IntN(5)/4 {
		req := corev1.ResourceList{}
		if guaranteed {
			q := resource.NewQuantity(int64(1+r.IntN(m.cores*m.threads)), resource.DecimalSI)
			if r.IntN(5) == 0 {
				q = resource.NewMilliQuantity(1500, resource.DecimalSI)
			}
			req[corev1.ResourceCPU] = *q
			req[corev1.ResourceMemory] = *resource.NewQuantity(int64(128+r.IntN(2500))*mi, resource.BinarySI)
			if _, ok := m.hugepages[0][2*mi]; ok && r.IntN(3) == 0 {
				req["hugepages-2Mi"] = *resource.NewQuantity(int64(1+r.IntN(200))*2*mi, resource.BinarySI)
			}
		}
		for i, res := range m.resources {
			if k := r.IntN(4); k > 0 && (i == 0 || r.IntN(2) == 0) {
				req[corev1.ResourceName(res)] = *resource.NewQuantity(int64(k), resource.DecimalSI)
			}
		}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
			Name: fmt.Sprintf("c%d", c), Resources: corev1.ResourceRequirements{Requests: req, Limits: req},
		})
	}
	if r.IntN(4) == 0 {
		level := []string{"root", "numa", "socket"}[r.IntN(3)]
		p.Annotations = map[string]string{v1alpha1.AlignmentAnnotation: []string{"required:", "preferred:"}[r.IntN(2)] + level}
	}
	p.Status.QOSClass = corev1.PodQOSBurstable
	if guaranteed {
		p.Status.QOSClass = corev1.PodQOSGuaranteed
	}
	return p
}

// allocatable is the node's, as kubelet computes it.
func (m *machine) allocatable() corev1.ResourceList {
	out := corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(110, resource.DecimalSI)}
	out[corev1.ResourceCPU] = *resource.NewQuantity(int64(m.numa*m.cores*m.threads-m.reserved.Size()), resource.DecimalSI)
	mem := int64(m.numa) * (m.memory - m.reservedMemory)
	huge := map[int64]int64{}
	for _, hp := range m.hugepages {
		for size, pages := range hp {
			huge[size] += size * pages
			mem -= size * pages
		}
	}
	for size, b := range huge {
		name := "hugepages-" + resource.NewQuantity(size, resource.BinarySI).String()
		out[corev1.ResourceName(name)] = *resource.NewQuantity(b, resource.BinarySI)
	}
	out[corev1.ResourceMemory] = *resource.NewQuantity(mem, resource.BinarySI)
	return out
}

// cluster is one node with its scheduler plugin and kubelet.
type cluster struct {
	fwk.Handle
	client  clientset.Interface
	node    *corev1.Node
	bound   *corev1.Binding
	pods    []*corev1.Pod
	offline *devicetopology.Offline
}

func (c *cluster) ClientSet() clientset.Interface          { return c.client }
func (c *cluster) APICacher() fwk.APICacher                { return nil }
func (c *cluster) SnapshotSharedLister() fwk.SharedLister  { return c }
func (c *cluster) NodeInfos() fwk.NodeInfoLister           { return lister{c} }
func (c *cluster) StorageInfos() fwk.StorageInfoLister     { return nil }
func (c *cluster) PodGroupStates() fwk.PodGroupStateLister { return nil }

type lister struct{ c *cluster }

func (l lister) List() ([]fwk.NodeInfo, error)                                 { return []fwk.NodeInfo{l.c.info()}, nil }
func (l lister) Get(string) (fwk.NodeInfo, error)                              { return l.c.info(), nil }
func (l lister) HavePodsWithAffinityList() ([]fwk.NodeInfo, error)             { return nil, nil }
func (l lister) HavePodsWithRequiredAntiAffinityList() ([]fwk.NodeInfo, error) { return nil, nil }

func (c *cluster) info() fwk.NodeInfo {
	ni := framework.NewNodeInfo(c.pods...)
	ni.SetNode(c.node)
	return ni
}

func newCluster(m *machine) (*cluster, error) {
	client := fake.NewClientset()
	c := &cluster{client: client}
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "binding" {
			return false, nil, nil
		}
		c.bound = a.(clienttesting.CreateAction).GetObject().(*corev1.Binding)
		return true, c.bound, nil
	})
	c.node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.name}}
	c.node.Status.Allocatable = m.allocatable()
	c.node.Status.NodeInfo.BootID = "boot"
	var err error
	c.offline, err = devicetopology.NewOffline(c)
	if err == nil {
		c.offline.SetInventory(m.inventory())
	}
	return c, err
}

// roomy is the scheduler's own check of sums (NodeResourcesFit).
func (c *cluster) roomy(pod *corev1.Pod) bool {
	sum := corev1.ResourceList{}
	for _, p := range append(slices.Clone(c.pods), pod) {
		for _, ct := range p.Spec.Containers {
			for name, q := range ct.Resources.Requests {
				s := sum[name]
				s.Add(q)
				sum[name] = s
			}
		}
	}
	for name, q := range sum {
		if a, ok := c.node.Status.Allocatable[name]; ok && q.Cmp(a) > 0 {
			return false
		}
	}
	return true
}

var errUnfit = errors.New("does not fit")

// schedule runs the plugin's cycle; errUnfit tells that it found no place.
func (c *cluster) schedule(pod *corev1.Pod) (*v1alpha1.Assignment, error) {
	ctx, state := context.Background(), framework.NewCycleState()
	pl := c.offline.Plugin()
	ni := c.info()
	_, st := pl.(fwk.PreFilterPlugin).PreFilter(ctx, state, pod, []fwk.NodeInfo{ni})
	if !st.IsSuccess() {
		return nil, fmt.Errorf("%w: %s", errUnfit, st.Message())
	}
	if st := pl.(fwk.FilterPlugin).Filter(ctx, state, pod, ni); !st.IsSuccess() {
		return nil, fmt.Errorf("%w: %s", errUnfit, st.Message())
	}
	if st := pl.(fwk.ReservePlugin).Reserve(ctx, state, pod, c.node.Name); !st.IsSuccess() {
		return nil, fmt.Errorf("Reserve: %s", st.Message())
	}
	if st := pl.(fwk.BindPlugin).Bind(ctx, state, pod, c.node.Name); !st.IsSuccess() {
		return nil, fmt.Errorf("Bind: %s", st.Message())
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[v1alpha1.AssignmentAnnotation] = c.bound.Annotations[v1alpha1.AssignmentAnnotation]
	pod.Spec.NodeName = c.node.Name
	return v1alpha1.DecodeAssignment(pod.Annotations[v1alpha1.AssignmentAnnotation])
}

// tally is what came of the pods.
type tally struct{ placed, unfit, refused int }

// session runs pods on one random machine. Reports about pods' usage reach the
// plugin late pods later.
func session(t *testing.T, seed uint64, policy string, late int, fail bool) tally {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	m := randomMachine(r, policy)
	k, err := newKubelet(m, t.TempDir())
	if err != nil {
		t.Fatalf("seed %d: start kubelet's managers: %v", seed, err)
	}
	defer func() {
		if err := k.stop(); err != nil {
			t.Errorf("seed %d: stop the device manager: %v", seed, err)
		}
	}()
	c, err := newCluster(m)
	if err != nil {
		t.Fatal(err)
	}
	var out tally
	var reports []*v1alpha1.NodeUsage
	for n := range 40 {
		for len(c.pods) > 0 && r.IntN(3) == 0 {
			i := r.IntN(len(c.pods))
			p := c.pods[i]
			c.pods = slices.Delete(c.pods, i, i+1)
			k.remove(p)
			c.offline.PodDeleted(p)
		}
		reports = append(reports, k.usage(m))
		if i := len(reports) - 1 - late; i >= 0 {
			c.offline.SetUsage(reports[i])
		}
		pod := randomPod(r, m, n)
		if !c.roomy(pod) {
			continue
		}
		a, err := c.schedule(pod)
		if errors.Is(err, errUnfit) {
			out.unfit++
			continue
		}
		if err != nil {
			t.Fatalf("seed %d pod %d: %v", seed, n, err)
		}
		out.placed++
		if err := k.admit(pod, a); err != nil {
			out.refused++
			if fail {
				t.Fatalf("seed %d pod %d: kubelet refuses: %v\nmachine %+v\npod %+v\nassignment %s\nusage %+v\n%s", seed, n, err, m, pod.Spec.Containers, pod.Annotations[v1alpha1.AssignmentAnnotation], k.usage(m).Spec.Pods, k.view(pod))
			}
			c.offline.PodDeleted(pod)
			continue
		}
		c.pods = append(c.pods, pod)
		for name, resources := range a.Containers {
			got := k.devices(string(pod.UID), name)
			for res, want := range resources {
				var ids []string
				for _, u := range want {
					ids = append(ids, u.String())
				}
				slices.Sort(ids)
				if !slices.Equal(ids, got[res]) {
					t.Fatalf("seed %d pod %d: container %s: assigned %v of %s, kubelet gave %v", seed, n, name, ids, res, got[res])
				}
			}
		}
	}
	return out
}

// TestPolicies: while reports are current, kubelet admits every pod that the
// plugin places, with exactly its assignment.
func TestPolicies(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano() % 1e9)
	}
	t.Logf("seed %d", seed)
	policies := []string{"none", "best-effort", "restricted", "single-numa-node"}
	for _, policy := range policies {
		t.Run(policy, func(t *testing.T) {
			var sum tally
			for i := uint64(0); sum.placed < *podsFlag/len(policies); i++ {
				s := session(t, seed+i, policy, 0, true)
				sum.placed += s.placed
				sum.unfit += s.unfit
			}
			t.Logf("%d pods placed and admitted, %d found no place", sum.placed, sum.unfit)
			if sum.unfit > 4*sum.placed {
				t.Errorf("the plugin refuses too much: %d of %d", sum.unfit, sum.unfit+sum.placed)
			}
		})
	}
}

// TestLateReports states the rate of refusals when reports come late: the
// plugin then predicts what kubelet did with the pods that are not covered.
func TestLateReports(t *testing.T) {
	for _, policy := range []string{"best-effort", "restricted", "single-numa-node"} {
		var sum tally
		for i := uint64(0); sum.placed < *podsFlag/8; i++ {
			s := session(t, 1000+i, policy, 3, false)
			sum.placed += s.placed
			sum.refused += s.refused
		}
		rate := float64(sum.refused) / float64(sum.placed)
		t.Logf("%s: reports 3 pods late: %d of %d placed pods refused (%.2f %%)", policy, sum.refused, sum.placed, 100*rate)
		if rate > 0.05 {
			t.Errorf("%s: more than 5 %% refused", policy)
		}
	}
}
