package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// VirtualMachineInstance is one running guest and the pod that carries it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=kvmi
// +kubebuilder:subresource:status
type VirtualMachineInstance struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   VirtualMachineInstanceSpec   `json:"spec"`
	Status VirtualMachineInstanceStatus `json:"status,omitempty"`
}

// VirtualMachineInstanceSpec describes a guest. The same text, as YAML, is the
// value of the kubevfio.io/vm annotation of a plain launcher pod. Field names
// are KubeVirt's wherever the thing is the same.
type VirtualMachineInstanceSpec struct {
	Domain DomainSpec `json:"domain"`
	// +optional
	// +listType=map
	// +listMapKey=name
	Volumes []Volume `json:"volumes,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	Networks []Network `json:"networks,omitempty"`
	// TerminationGracePeriodSeconds is how long a guest may take to shut down.
	// +optional
	// +kubebuilder:validation:Minimum=0
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`
}

// DomainSpec is the guest's machine.
type DomainSpec struct {
	// +optional
	CPU *CPU `json:"cpu,omitempty"`
	// +optional
	Memory *Memory `json:"memory,omitempty"`
	// +optional
	Firmware *Firmware `json:"firmware,omitempty"`
	// +optional
	Devices Devices `json:"devices,omitempty"`
}

// CPU is the guest's processor.
type CPU struct {
	// +optional
	// +kubebuilder:validation:Minimum=1
	Cores uint32 `json:"cores,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=1
	Sockets uint32 `json:"sockets,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=1
	Threads uint32 `json:"threads,omitempty"`
	// DedicatedCPUPlacement pins vCPUs to the CPUs that kubelet gave the pod.
	// +optional
	DedicatedCPUPlacement bool `json:"dedicatedCpuPlacement,omitempty"`
}

// Memory is the guest's memory.
type Memory struct {
	// Guest is what the guest sees.
	Guest *resource.Quantity `json:"guest,omitempty"`
	// +optional
	Hugepages *Hugepages `json:"hugepages,omitempty"`
}

// Hugepages backs guest memory with huge pages.
type Hugepages struct {
	// PageSize is 2Mi or 1Gi.
	// +kubebuilder:validation:Enum="2Mi";"1Gi"
	PageSize string `json:"pageSize"`
}

// Firmware is how the guest boots.
type Firmware struct {
	// KernelBoot boots a kernel directly.
	// +optional
	KernelBoot *KernelBoot `json:"kernelBoot,omitempty"`
}

// KernelBoot is a direct kernel boot.
type KernelBoot struct {
	// +optional
	KernelArgs string `json:"kernelArgs,omitempty"`
	// +optional
	Container *KernelBootContainer `json:"container,omitempty"`
}

// KernelBootContainer names kernel and initrd within an OCI image, which is
// mounted as an image volume.
type KernelBootContainer struct {
	// Image reference. In a plain pod the image volume is the pod's own and
	// this field may be empty.
	// +optional
	Image string `json:"image,omitempty"`
	// KernelPath within the image; in a plain pod a path in the container.
	KernelPath string `json:"kernelPath"`
	// +optional
	InitrdPath string `json:"initrdPath,omitempty"`
}

// Devices of the guest.
type Devices struct {
	// +optional
	// +listType=map
	// +listMapKey=name
	GPUs []GPU `json:"gpus,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	HostDevices []HostDevice `json:"hostDevices,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	Interfaces []Interface `json:"interfaces,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	Disks []Disk `json:"disks,omitempty"`
	// Alignment is the wish of how near the devices must be, as in the
	// kubevfio.io/alignment annotation.
	// +optional
	// +kubebuilder:validation:Pattern=`^(required|preferred):(switch|root|numa|socket)$`
	Alignment string `json:"alignment,omitempty"`
}

// GPU is a passed-through graphics or compute device.
type GPU struct {
	Name       string `json:"name"`
	DeviceName string `json:"deviceName"`
}

// HostDevice is any other passed-through device.
type HostDevice struct {
	Name       string `json:"name"`
	DeviceName string `json:"deviceName"`
}

// Interface is a network card of the guest. Exactly one binding is set.
type Interface struct {
	Name string `json:"name"`
	// SRIOV passes a virtual function through.
	// +optional
	SRIOV *InterfaceSRIOV `json:"sriov,omitempty"`
	// Passt connects the guest to the pod network in user space.
	// +optional
	Passt *InterfacePasst `json:"passt,omitempty"`
	// MacAddress of the guest's card.
	// +optional
	MacAddress string `json:"macAddress,omitempty"`
}

// InterfaceSRIOV is a virtual function.
type InterfaceSRIOV struct {
	// DeviceName is the resource that the virtual function comes from. KubeVirt
	// finds it by the Multus network; here it can be named directly.
	// +optional
	DeviceName string `json:"deviceName,omitempty"`
}

// InterfacePasst has no settings yet.
type InterfacePasst struct{}

// Disk is a disk of the guest; its volume has the same name.
type Disk struct {
	Name string `json:"name"`
}

// Volume is where a disk's data lives.
type Volume struct {
	Name string `json:"name"`
}

// Network is what an interface of the same name connects to.
type Network struct {
	Name string `json:"name"`
	// +optional
	Pod *PodNetwork `json:"pod,omitempty"`
}

// PodNetwork is the pod's own network.
type PodNetwork struct{}

// VirtualMachineInstanceStatus is what the controller saw.
type VirtualMachineInstanceStatus struct {
	// +optional
	Phase string `json:"phase,omitempty"`
	// +optional
	NodeName string `json:"nodeName,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// VirtualMachineInstanceList is a list of VirtualMachineInstance.
//
// +kubebuilder:object:root=true
type VirtualMachineInstanceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VirtualMachineInstance `json:"items"`
}

// VirtualMachine is a guest that is wanted: a run strategy and a template.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=kvm
// +kubebuilder:subresource:status
type VirtualMachine struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   VirtualMachineSpec   `json:"spec"`
	Status VirtualMachineStatus `json:"status,omitempty"`
}

// VirtualMachineSpec is what the owner wants.
type VirtualMachineSpec struct {
	// +kubebuilder:validation:Enum=Always;Halted;Manual;RerunOnFailure;Once
	RunStrategy string `json:"runStrategy"`
	// Template of the instance.
	Template VirtualMachineInstanceTemplate `json:"template"`
}

// VirtualMachineInstanceTemplate is metadata and spec of the instance.
type VirtualMachineInstanceTemplate struct {
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	ObjectMeta metav1.ObjectMeta          `json:"metadata,omitempty"`
	Spec       VirtualMachineInstanceSpec `json:"spec"`
}

// VirtualMachineStatus is what the controller saw.
type VirtualMachineStatus struct {
	// +optional
	PrintableStatus string `json:"printableStatus,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// VirtualMachineList is a list of VirtualMachine.
//
// +kubebuilder:object:root=true
type VirtualMachineList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VirtualMachine `json:"items"`
}

