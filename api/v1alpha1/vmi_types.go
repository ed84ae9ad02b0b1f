package v1alpha1

import (
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
