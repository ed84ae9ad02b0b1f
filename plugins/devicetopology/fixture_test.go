package devicetopology

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

const testVF = "kubevfio.io/vf"

// fakeHandle is a scheduler around the plugin: a cache of pods by node, the
// snapshot of which every cycle takes, and an API that takes Bindings.
type fakeHandle struct {
	fwk.Handle
	client clientset.Interface
	nodes  []*corev1.Node
	pods   map[string][]*corev1.Pod
	infos  map[string]fwk.NodeInfo
	// bind decides what becomes of a Binding; nil accepts.
	bind      func(*corev1.Binding) error
	bindings  []*corev1.Binding
	activated int
}

func (h *fakeHandle) ClientSet() clientset.Interface         { return h.client }
func (h *fakeHandle) APICacher() fwk.APICacher               { return nil }
func (h *fakeHandle) SnapshotSharedLister() fwk.SharedLister { return h }
func (h *fakeHandle) NodeInfos() fwk.NodeInfoLister          { return nodeLister{h} }
func (h *fakeHandle) StorageInfos() fwk.StorageInfoLister    { return nil }

func (h *fakeHandle) PodGroupStates() fwk.PodGroupStateLister { return nil }

func (h *fakeHandle) Activate(_ klog.Logger, pods map[string]*corev1.Pod) { h.activated += len(pods) }

type nodeLister struct{ h *fakeHandle }

func (l nodeLister) List() ([]fwk.NodeInfo, error) { return nil, nil }

func (l nodeLister) Get(n string) (fwk.NodeInfo, error) {
	if ni, ok := l.h.infos[n]; ok {
		return ni, nil
	}
	return nil, fmt.Errorf("node %s is not in the snapshot", n)
}
func (l nodeLister) HavePodsWithAffinityList() ([]fwk.NodeInfo, error) { return nil, nil }

func (l nodeLister) HavePodsWithRequiredAntiAffinityList() ([]fwk.NodeInfo, error) { return nil, nil }

// snapshot takes the cache's state for the next cycle.
func (h *fakeHandle) snapshot() []fwk.NodeInfo {
	h.infos = map[string]fwk.NodeInfo{}
	var out []fwk.NodeInfo
	for _, n := range h.nodes {
		ni := framework.NewNodeInfo(h.pods[n.Name]...)
		ni.SetNode(n)
		h.infos[n.Name] = ni
		out = append(out, ni)
	}
	return out
}

func newFakeHandle(t testing.TB, nodes ...string) *fakeHandle {
	t.Helper()
	client := fake.NewClientset()
	h := &fakeHandle{client: client, pods: map[string][]*corev1.Pod{}}
	for _, n := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}}
		node.Status.Allocatable = corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"),
			corev1.ResourcePods: resource.MustParse("110"),
		}
		node.Status.NodeInfo.BootID = "boot"
		h.nodes = append(h.nodes, node)
	}
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "binding" {
			return false, nil, nil
		}
		b := a.(clienttesting.CreateAction).GetObject().(*corev1.Binding)
		h.bindings = append(h.bindings, b)
		if h.bind != nil {
			return true, b, h.bind(b)
		}
		return true, b, nil
	})
	h.snapshot()
	return h
}

// testInventory is a node with roots root complexes of vfs virtual functions
// each, one NUMA node per root complex.
func testInventory(node string, roots, vfs int) *v1alpha1.NodeInventory {
	inv := &v1alpha1.NodeInventory{ObjectMeta: metav1.ObjectMeta{Name: node}}
	inv.Spec.BootID = "boot"
	inv.Spec.Resources = []string{testVF}
	inv.Spec.Kinds = []v1alpha1.DeviceKind{{Vendor: "8086", Device: "10ca", Class: "020000"}}
	for r := range roots {
		inv.Spec.NUMANodes = append(inv.Spec.NUMANodes, v1alpha1.InventoryNUMANode{ID: int32(r)})
		inv.Spec.Attachments = append(inv.Spec.Attachments, v1alpha1.Attachment{Name: fmt.Sprintf("pci0000:%02x", 0x10*(r+1))})
		for v := range vfs {
			numa, res, vf := int32(r), int32(0), int32(v)
			inv.Spec.Units = append(inv.Spec.Units, v1alpha1.InventoryUnit{
				ID: fmt.Sprintf("0000:%02x:%02x.%d", 0x10*(r+1)+1, 0x10+v/8, v%8), At: int32(r), NUMA: &numa, Resource: &res,
				PF: fmt.Sprintf("0000:%02x:00.0", 0x10*(r+1)+1), VF: &vf,
			})
		}
	}
	return inv
}

// testPod asks for n virtual functions; wish may be empty.
func testPod(name string, n int64, wish string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}}
	req := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	if n > 0 {
		req[testVF] = *resource.NewQuantity(n, resource.DecimalSI)
	}
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: req, Limits: req}}}
	if wish != "" {
		p.Annotations = map[string]string{v1alpha1.AlignmentAnnotation: wish}
	}
	return p
}

func newTestPlugin(t testing.TB, h *fakeHandle) *plugin {
	t.Helper()
	o, err := NewOffline(h)
	if err != nil {
		t.Fatal(err)
	}
	return o.pl
}

// filter runs PreFilter and Filter on one node.
func filter(pl *plugin, h *fakeHandle, pod *corev1.Pod, node string) (fwk.CycleState, *fwk.Status) {
	infos := h.snapshot()
	state := framework.NewCycleState()
	if _, st := pl.PreFilter(context.Background(), state, pod, infos); !st.IsSuccess() {
		return state, st
	}
	return state, pl.Filter(context.Background(), state, pod, h.infos[node])
}

// bindTo runs the rest of the cycle as the scheduler does: assume, Reserve,
// Bind; and Unreserve and forget when it fails.
func bindTo(pl *plugin, h *fakeHandle, state fwk.CycleState, pod *corev1.Pod, node string) *fwk.Status {
	ctx := context.Background()
	assumed := pod.DeepCopy()
	assumed.Spec.NodeName = node
	h.pods[node] = append(h.pods[node], assumed)
	st := pl.Reserve(ctx, state, assumed, node)
	if st.IsSuccess() {
		st = pl.Bind(ctx, state, assumed, node)
	}
	if !st.IsSuccess() {
		pl.Unreserve(ctx, state, assumed, node)
		h.forget(node, pod.UID)
	}
	return st
}

func (h *fakeHandle) forget(node string, uid types.UID) {
	for i, p := range h.pods[node] {
		if p.UID == uid {
			h.pods[node] = append(h.pods[node][:i:i], h.pods[node][i+1:]...)
			return
		}
	}
}
