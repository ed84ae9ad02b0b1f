package hardwaretest

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/host/inventory"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
)

// Cluster is what an API server would list.
type Cluster struct {
	Nodes       []corev1.Node
	Inventories []v1alpha1.NodeInventory
	Usages      []v1alpha1.NodeUsage
	Pods        []corev1.Pod
	Machines    []v1alpha1.VirtualMachine
	Instances   []v1alpha1.VirtualMachineInstance
}

// GPU and VF are the resources of the nodes.
const (
	GPU = "example.com/h200"
	VF  = "example.com/cx7-vf"
)

// Inventory is that of one server with eight GPUs, 64 virtual functions on eight
// cards and four NVSwitches: 73 units.
func Inventory(ctx context.Context) (*v1alpha1.NodeInventory, error) {
	h, err := host.Read(ctx, hosttest.HGX().Tree())
	if err != nil {
		return nil, fmt.Errorf("read the emulated host: %w", err)
	}
	var pools []v1alpha1.DevicePool
	for _, p := range []struct{ name, device string }{{"h200", "2335"}, {"cx7-vf", "101e"}, {"nvswitch", "22a3"}} {
		o := v1alpha1.DevicePool{ObjectMeta: metav1.ObjectMeta{Name: p.name}}
		o.Spec = v1alpha1.DevicePoolSpec{ResourceName: "example.com/" + p.name, Selectors: []v1alpha1.DeviceSelector{{Devices: []string{p.device}}}}
		pools = append(pools, o)
	}
	s := pool.Select(pool.Input{Pools: pools, Host: h, Units: topology.Units(h)})
	product := map[uint16]string{0x2335: "H200 SXM", 0x101e: "ConnectX-7 VF", 0x22a3: "NVSwitch"}
	return &v1alpha1.NodeInventory{Spec: inventory.Build(inventory.Input{
		Host: h, Selection: &s, AgentVersion: "v0.0.0-test",
		Kubelet:  v1alpha1.KubeletPolicy{TopologyManagerPolicy: "restricted", CPUManagerPolicy: "static", MemoryManagerPolicy: "Static"},
		Launcher: v1alpha1.LauncherSupport{Seccomp: true, KVM: true},
		Product:  func(_, device uint16) string { return product[device] },
	})}, nil
}

// New makes a cluster of n nodes. On each, machines of one GPU and two virtual
// functions near it run, between one and seven; every fifth node has a device in
// trouble, the fourth is cordoned, the last not ready; a plain pod that only
// NodeUsage knows holds a virtual function of each node.
func New(ctx context.Context, n int) (*Cluster, error) {
	base, err := Inventory(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	for i := range n {
		inv := base.DeepCopy()
		inv.Name = fmt.Sprintf("gpu-%02d", i+1)
		node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: inv.Name}}
		ready := corev1.ConditionTrue
		if i == n-1 && n > 1 {
			ready = corev1.ConditionUnknown
		}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
		node.Spec.Unschedulable = i == 3
		c.Nodes = append(c.Nodes, node)
		gpus, vfs := split(inv)
		use := v1alpha1.NodeUsage{ObjectMeta: metav1.ObjectMeta{Name: inv.Name}}
		use.Spec.Pods = []v1alpha1.PodUsage{{UID: fmt.Sprintf("plain-%d", i), Devices: map[string][]string{VF: {vfs[len(vfs)-1].ID}}}}
		c.Usages = append(c.Usages, use)
		for m := range 1 + (i*3)%7 {
			c.machine(inv, fmt.Sprintf("trainer-%d", len(c.Machines)), gpus[m].ID, vfs[8*m].ID, vfs[8*m+1].ID)
		}
		if i%5 == 1 {
			gpus[7].NotReady = gpus[7].ID + ": reset failed: config space reads all ones"
			vfs[1].NotReady = vfs[1].ID + ": bound to mlx5_core, want vfio-pci"
			inv.Spec.Summary.Ready -= 2
			inv.Spec.Summary.Problem = gpus[7].NotReady
		}
		c.Inventories = append(c.Inventories, *inv)
	}
	c.waiting()
	return c, nil
}

// split finds GPUs and virtual functions; the pointers are into the inventory.
func split(inv *v1alpha1.NodeInventory) (gpus, vfs []*v1alpha1.InventoryUnit) {
	for i := range inv.Spec.Units {
		u := &inv.Spec.Units[i]
		switch inv.Spec.Resources[*u.Resource] {
		case GPU:
			gpus = append(gpus, u)
		case VF:
			vfs = append(vfs, u)
		}
	}
	return gpus, vfs
}

// machine makes a running machine with its instance and pod.
func (c *Cluster) machine(inv *v1alpha1.NodeInventory, name, gpu string, vfs ...string) {
	const ns = "vms"
	uid := types.UID("uid-" + name)
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: ns, Name: name + "-1a2b3c4d5e", UID: uid,
		Labels: map[string]string{launcherpod.LabelInstance: name, launcherpod.LabelInstanceUID: string(uid)},
	}}
	pod.Spec.NodeName = inv.Name
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP = fmt.Sprintf("10.42.%d.%d", len(c.Inventories), len(c.Machines)%250)
	status := corev1.ContainerStatus{Name: launcherpod.Container}
	vmi := v1alpha1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	vmi.Status.Phase, vmi.Status.NodeName, vmi.Status.PodName, vmi.Status.PodUID = v1alpha1.VMIRunning, inv.Name, pod.Name, uid
	add := func(device, resource string, ids ...string) {
		r := corev1.ResourceStatus{Name: corev1.ResourceName(resource)}
		for i, id := range ids {
			r.Resources = append(r.Resources, corev1.ResourceHealth{ResourceID: corev1.ResourceID(id)})
			vmi.Status.Devices = append(vmi.Status.Devices, v1alpha1.DeviceStatus{Name: fmt.Sprintf("%s%d", device, i), Resource: resource, Address: id, Node: inv.Name})
		}
		status.AllocatedResourcesStatus = append(status.AllocatedResourcesStatus, r)
	}
	add("gpu", GPU, gpu)
	add("fast", VF, vfs...)
	vmi.Status.DeviceSummary = &v1alpha1.DeviceSummary{Devices: "3/3", Alignment: "switch"}
	vmi.Status.Interfaces = []v1alpha1.InterfaceStatus{{Name: "default", IPAddress: pod.Status.PodIP}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
	vm := v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	vm.Spec.RunStrategy = v1alpha1.RunAlways
	vm.Status.PrintableStatus, vm.Status.Ready, vm.Status.NodeName, vm.Status.Devices = v1alpha1.VMRunning, true, inv.Name, "3/3"
	c.Pods, c.Instances, c.Machines = append(c.Pods, pod), append(c.Instances, vmi), append(c.Machines, vm)
}

// waiting adds machines that do not run: one that finds no node, one that is
// switched off, one that fails again and again.
func (c *Cluster) waiting() {
	add := func(name, status string, strategy v1alpha1.RunStrategy) *v1alpha1.VirtualMachine {
		vm := v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "lab", Name: name}}
		vm.Spec.RunStrategy, vm.Status.PrintableStatus = strategy, status
		c.Machines = append(c.Machines, vm)
		return &c.Machines[len(c.Machines)-1]
	}
	add("too-big", v1alpha1.VMUnschedulable, v1alpha1.RunAlways)
	vmi := v1alpha1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "lab", Name: "too-big"}}
	vmi.Status.Phase, vmi.Status.Reason = v1alpha1.VMIScheduling, "Unschedulable"
	vmi.Status.Message = "0/3 nodes are available: 3 no set of 8 example.com/h200 is free"
	c.Instances = append(c.Instances, vmi)
	add("spare", v1alpha1.VMStopped, v1alpha1.RunHalted)
	broken := add("broken", v1alpha1.VMCrashLoopBackOff, v1alpha1.RunAlways)
	broken.Status.LastOutcome = &v1alpha1.LauncherOutcome{ExitCode: 68, Reason: "GuestPanicked", Message: "no root file system"}
	broken.Status.StartFailure = &v1alpha1.StartFailure{Count: 4}
}
