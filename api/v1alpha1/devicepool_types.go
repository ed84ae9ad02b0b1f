package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DevicePool says which hardware of which nodes is offered under one resource
// name, and how it is prepared. The agent of every matching node acts on it.
//
// A function that several pools select belongs to the first by (priority
// descending, name ascending); the others' status says so.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=devpool
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Resource",type=string,JSONPath=`.spec.resourceName`
// +kubebuilder:printcolumn:name="Driver",type=string,JSONPath=`.spec.driver`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodeCount`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Total",type=integer,JSONPath=`.status.total`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type DevicePool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DevicePoolSpec   `json:"spec"`
	Status DevicePoolStatus `json:"status,omitempty"`
}

// DevicePoolSpec is what the admin asks for.
//
// +kubebuilder:validation:XValidation:rule="has(self.selectors) != has(self.slot)",message="exactly one of spec.selectors (PCI hardware) and spec.slot (a virtual resource) must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.vfs) || self.vfs.count == 0 || has(self.selectors)",message="spec.vfs needs spec.selectors"
type DevicePoolSpec struct {
	// ResourceName is the extended resource that pods request, such as
	// example.com/h200.
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('kubernetes.io/') && !self.contains('.kubernetes.io/')",message="spec.resourceName: the kubernetes.io domain is reserved"
	ResourceName string `json:"resourceName"`

	// NodeSelector limits the pool to nodes with these labels; empty means all.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// Priority decides between pools that select the same function; higher wins.
	// +optional
	// +kubebuilder:default=0
	Priority int32 `json:"priority,omitempty"`

	// Selectors: a function belongs to the pool when it matches any of them.
	// With vfs set they select the physical functions.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Selectors []DeviceSelector `json:"selectors,omitempty"`

	// Driver that the agent binds: vfio-pci, "auto" (the best VFIO variant
	// driver by modalias, else vfio-pci) or a VFIO variant driver by name.
	// "keep" binds nothing and takes what is bound to a VFIO driver already.
	// +optional
	// +kubebuilder:default=vfio-pci
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-]{1,64}$`
	Driver string `json:"driver,omitempty"`

	// VFs asks for SR-IOV virtual functions of the selected physical functions;
	// then these are offered, not the physical functions.
	// +optional
	VFs *VFSpec `json:"vfs,omitempty"`

	// Companions says what happens with the other functions of a unit's IOMMU
	// group: Together hands them out with it, Refuse takes the unit out.
	// +optional
	// +kubebuilder:default=Together
	// +kubebuilder:validation:Enum=Together;Refuse
	Companions string `json:"companions,omitempty"`

	// TopologyHints tells kubelet's topology manager the NUMA node of each unit.
	// +optional
	// +kubebuilder:default=true
	TopologyHints *bool `json:"topologyHints,omitempty"`

	// Mode: Strict refuses an allocation that is not the scheduler's assignment;
	// Adopt accepts what kubelet chose and reports the mismatch.
	// +optional
	// +kubebuilder:default=Strict
	// +kubebuilder:validation:Enum=Strict;Adopt
	Mode string `json:"mode,omitempty"`

	// Reset between tenants: Auto uses the function's own reset or else the bus
	// reset of a bridge that it has for itself; Never trusts the guest.
	// +optional
	// +kubebuilder:default=Auto
	// +kubebuilder:validation:Enum=Auto;Never
	Reset string `json:"reset,omitempty"`

	// Slot makes a virtual resource of a character device: N requests of no
	// identity, such as /dev/kvm.
	// +optional
	Slot *SlotSpec `json:"slot,omitempty"`
}

// DeviceSelector matches a function when every field that is set matches; a
// list matches when any of its entries does.
//
// +kubebuilder:validation:MinProperties=1
type DeviceSelector struct {
	// Vendors are PCI vendor IDs in hex, "10de".
	// +optional
	// +kubebuilder:validation:items:Pattern=`^[0-9a-fA-F]{4}$`
	Vendors []string `json:"vendors,omitempty"`
	// Devices are PCI device IDs in hex, "2330".
	// +optional
	// +kubebuilder:validation:items:Pattern=`^[0-9a-fA-F]{4}$`
	Devices []string `json:"devices,omitempty"`
	// Classes are prefixes of the class code in hex: "03", "0302", "010802".
	// +optional
	// +kubebuilder:validation:items:Pattern=`^([0-9a-fA-F]{2}){1,3}$`
	Classes []string `json:"classes,omitempty"`
	// Drivers are names of the driver that is bound, or was before ours.
	// +optional
	Drivers []string `json:"drivers,omitempty"`
	// Addresses are PCI addresses, "0000:81:00.0".
	// +optional
	// +kubebuilder:validation:items:Pattern=`^[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7]$`
	Addresses []string `json:"addresses,omitempty"`
	// PFNames are network device names of physical functions, with an optional
	// range of VFs: "eth2", "eth2#0,2-7".
	// +optional
	PFNames []string `json:"pfNames,omitempty"`
	// RootDevices are addresses of physical functions, with an optional range
	// of VFs: "0000:86:00.0#0-1,3".
	// +optional
	RootDevices []string `json:"rootDevices,omitempty"`
}

// VFSpec asks for virtual functions.
type VFSpec struct {
	// Count per physical function; 0 takes the virtual functions that are there.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4096
	Count int32 `json:"count"`
}

// SlotSpec is a virtual resource.
type SlotSpec struct {
	// HostPath is the character device on the host.
	// +kubebuilder:validation:Pattern=`^/dev/[A-Za-z0-9_/-]+$`
	HostPath string `json:"hostPath"`
	// Count of slots that the node offers.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +kubebuilder:default=1000
	Count int32 `json:"count,omitempty"`
}

// DevicePoolStatus is what the agents saw.
type DevicePoolStatus struct {
	// Nodes are the nodes that the pool has something to say about, by name.
	// +optional
	// +listType=map
	// +listMapKey=node
	Nodes []DevicePoolNodeStatus `json:"nodes,omitempty"`
	// NodeCount, Ready and Total are sums over Nodes.
	// +optional
	NodeCount int32 `json:"nodeCount,omitempty"`
	// +optional
	Ready int32 `json:"ready,omitempty"`
	// +optional
	Total int32 `json:"total,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// DevicePoolNodeStatus is the pool on one node.
type DevicePoolNodeStatus struct {
	Node string `json:"node"`
	// Ready units can be handed out, or are held by a pod.
	Ready int32 `json:"ready"`
	// Total units that the pool selects.
	Total int32 `json:"total"`
	// Reasons why units are not ready, each naming an address; at most 16.
	// +optional
	// +kubebuilder:validation:MaxItems=17
	Reasons []string `json:"reasons,omitempty"`
}

// DevicePoolList is a list of DevicePool.
//
// +kubebuilder:object:root=true
type DevicePoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DevicePool `json:"items"`
}
