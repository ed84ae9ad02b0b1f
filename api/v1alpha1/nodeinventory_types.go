package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodeInventory is the shape and health of one node's hardware, published by
// its agent under the node's name and owned by the Node. It is written only
// when shape or health change: never for allocations, never periodically.
//
// Repeated facts are in tables and units point into them by index, so that
// 8 GPUs with 64 VFs fit in 24 KiB and with 1,024 VFs in 256 KiB.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=nodeinv
// +kubebuilder:printcolumn:name="Units",type=integer,JSONPath=`.spec.summary.units`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.spec.summary.ready`
// +kubebuilder:printcolumn:name="NUMA",type=integer,JSONPath=`.spec.summary.numaNodes`
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.kubelet.topologyManagerPolicy`
// +kubebuilder:printcolumn:name="Problem",type=string,JSONPath=`.spec.summary.problem`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeInventory struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec NodeInventorySpec `json:"spec"`
}

// NodeInventorySpec is one reading of a node.
type NodeInventorySpec struct {
	// BootID changes with every boot of the node.
	// +optional
	BootID string `json:"bootID,omitempty"`
	// AgentVersion wrote this object.
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`

	// NUMANodes are sorted by id.
	// +optional
	// +listType=atomic
	NUMANodes []InventoryNUMANode `json:"numaNodes,omitempty"`
	// Attachments is the table of places where units hang: root complexes and
	// PCIe switches. Parents come before children.
	// +optional
	// +listType=atomic
	Attachments []Attachment `json:"attachments,omitempty"`
	// Kinds is the table of device models.
	// +optional
	// +listType=atomic
	Kinds []DeviceKind `json:"kinds,omitempty"`
	// Resources is the table of resource names.
	// +optional
	// +listType=atomic
	Resources []string `json:"resources,omitempty"`
	// Units are the isolation units that a pool offers or would offer, sorted
	// by id.
	// +optional
	// +listType=atomic
	Units []InventoryUnit `json:"units,omitempty"`
	// Fabric lists the sets of units that may be used together where a fabric
	// (NVSwitch partitions) allows only some; any set is legal when absent.
	// +optional
	// +listType=atomic
	Fabric []FabricPartition `json:"fabric,omitempty"`
	// Kubelet is how the node's kubelet places containers.
	// +optional
	Kubelet KubeletPolicy `json:"kubelet,omitempty"`
	// Launcher says what launcher pods find on this node.
	// +optional
	Launcher LauncherSupport `json:"launcher,omitempty"`
	// Summary is for people (printer columns).
	// +optional
	Summary InventorySummary `json:"summary,omitempty"`
}

// InventoryNUMANode is one NUMA node.
type InventoryNUMANode struct {
	ID int32 `json:"id"`
	// Socket is the physical package, absent where unknown.
	// +optional
	Socket *int32 `json:"socket,omitempty"`
	// CPUs in kernel list form, "0-15,32-47"; empty for memory-only nodes.
	// +optional
	CPUs string `json:"cpus,omitempty"`
	// MemoryMiB is the total memory.
	// +optional
	MemoryMiB int64 `json:"memoryMiB,omitempty"`
	// Hugepages maps page size ("2Mi", "1Gi") to the number of pages.
	// +optional
	Hugepages map[string]int64 `json:"hugepages,omitempty"`
	// Distances to the nodes of the list, in its order.
	// +optional
	// +listType=atomic
	Distances []int32 `json:"distances,omitempty"`
}

// Attachment is a root complex or a switch.
type Attachment struct {
	// Name is "pci0000:80" for a root complex, the upstream port's address for
	// a switch.
	Name string `json:"name"`
	// Parent is the index of the attachment above; absent for root complexes.
	// +optional
	Parent *int32 `json:"parent,omitempty"`
}

// DeviceKind is a device model.
type DeviceKind struct {
	// Vendor, Device and Class in lower case hex: "10de", "2335", "030200".
	Vendor string `json:"vendor"`
	Device string `json:"device"`
	Class  string `json:"class"`
	// +optional
	Product string `json:"product,omitempty"`
}

// InventoryUnit is an isolation unit. Short JSON names keep large nodes small.
type InventoryUnit struct {
	// ID is the leader's PCI address: kubelet's device ID.
	ID string `json:"id"`
	// Members beside the leader.
	// +optional
	// +listType=atomic
	Members []string `json:"members,omitempty"`
	// Size is the number of primaries, absent for 1. A unit counts as one for
	// its resource whatever its size.
	// +optional
	Size int32 `json:"size,omitempty"`
	// Kind indexes spec.kinds.
	Kind int32 `json:"kind"`
	// At indexes spec.attachments: the nearest switch, else the root complex.
	At int32 `json:"at"`
	// NUMA node; absent when the host does not say.
	// +optional
	NUMA *int32 `json:"numa,omitempty"`
	// Resource indexes spec.resources; absent when no pool offers the unit.
	// +optional
	Resource *int32 `json:"res,omitempty"`
	// PF is the physical function's address of a virtual function.
	// +optional
	PF string `json:"pf,omitempty"`
	// VF is the index of a virtual function.
	// +optional
	VF *int32 `json:"vf,omitempty"`
	// NotReady says why the unit cannot be handed out now; absent when it can.
	// +optional
	NotReady string `json:"notReady,omitempty"`
}

// FabricPartition is a set of units that the fabric can join.
type FabricPartition struct {
	ID    string   `json:"id"`
	Units []string `json:"units"`
}

// KubeletPolicy is the part of kubelet's configuration that decides placement.
type KubeletPolicy struct {
	// +optional
	TopologyManagerPolicy string `json:"topologyManagerPolicy,omitempty"`
	// +optional
	TopologyManagerScope string `json:"topologyManagerScope,omitempty"`
	// +optional
	TopologyManagerPolicyOptions map[string]string `json:"topologyManagerPolicyOptions,omitempty"`
	// +optional
	CPUManagerPolicy string `json:"cpuManagerPolicy,omitempty"`
	// +optional
	CPUManagerPolicyOptions map[string]string `json:"cpuManagerPolicyOptions,omitempty"`
	// +optional
	MemoryManagerPolicy string `json:"memoryManagerPolicy,omitempty"`
	// ReservedCPUs in kernel list form.
	// +optional
	ReservedCPUs string `json:"reservedCPUs,omitempty"`
	// ReservedMemory per NUMA node and resource, as kubelet is configured:
	// "0" -> "memory" -> "1Gi".
	// +optional
	ReservedMemory map[string]map[string]string `json:"reservedMemory,omitempty"`
}

// LauncherSupport is what launcher pods find on the node.
type LauncherSupport struct {
	// Seccomp: the Localhost profile kubevfio/launcher.json is installed.
	// +optional
	Seccomp bool `json:"seccomp,omitempty"`
	// KVM: /dev/kvm is there.
	// +optional
	KVM bool `json:"kvm,omitempty"`
	// IOMMUFD: the kernel has it.
	// +optional
	IOMMUFD bool `json:"iommufd,omitempty"`
	// PhysAddrBits is the CPU's physical address width.
	// +optional
	PhysAddrBits int32 `json:"physAddrBits,omitempty"`
}

// InventorySummary holds figures for printer columns.
type InventorySummary struct {
	Units     int32 `json:"units"`
	Ready     int32 `json:"ready"`
	NUMANodes int32 `json:"numaNodes"`
	// Problem is the first reason why a unit is not ready.
	// +optional
	Problem string `json:"problem,omitempty"`
}

// NodeInventoryList is a list of NodeInventory.
//
// +kubebuilder:object:root=true
type NodeInventoryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeInventory `json:"items"`
}

// NodeUsage says from which NUMA nodes the exclusive CPUs and the memory of
// running containers came, by kubelet's pod-resources API. It is small, changes
// with pods and is rate-limited; the scheduler trusts it for the pods that it
// covers and predicts the others.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=nodeuse
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeUsage struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec NodeUsageSpec `json:"spec"`
}

// NodeUsageSpec is one reading.
type NodeUsageSpec struct {
	// BootID of the reading.
	// +optional
	BootID string `json:"bootID,omitempty"`
	// Pods that the reading covers, by UID: pods not in it were not seen.
	// +optional
	// +listType=map
	// +listMapKey=uid
	Pods []PodUsage `json:"pods,omitempty"`
	// Released are UIDs of pods that held devices and hold none any more, the newest
	// last: what came and went between two readings is told here alone.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	Released []string `json:"released,omitempty"`
}

// MaxReleased is the most that NodeUsageSpec.Released has.
const MaxReleased = 64

// PodUsage is what one pod holds.
type PodUsage struct {
	UID string `json:"uid"`
	// Devices are unit IDs that kubelet gave to the pod, sorted, by resource.
	// +optional
	Devices map[string][]string `json:"devices,omitempty"`
	// CPUs that the pod has for itself, in kernel list form.
	// +optional
	CPUs string `json:"cpus,omitempty"`
	// Memory taken from NUMA nodes.
	// +optional
	// +listType=atomic
	Memory []MemoryUsage `json:"memory,omitempty"`
}

// MemoryUsage is memory of one type from one set of NUMA nodes.
type MemoryUsage struct {
	// Type is "memory", "hugepages-2Mi", "hugepages-1Gi".
	Type string `json:"type"`
	// NUMA nodes that the memory may be on.
	NUMA []int32 `json:"numa"`
	// Bytes of memory.
	Bytes int64 `json:"bytes"`
}

// NodeUsageList is a list of NodeUsage.
//
// +kubebuilder:object:root=true
type NodeUsageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeUsage `json:"items"`
}
