package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// VirtualMachine is a guest that is wanted: a run strategy and a template. Its
// instance is the VirtualMachineInstance of the same name.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=kvm
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.printableStatus`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=='Ready')].status`
// +kubebuilder:printcolumn:name="Devices",type=string,JSONPath=`.status.devices`
// +kubebuilder:printcolumn:name="Strategy",type=string,priority=1,JSONPath=`.spec.runStrategy`
// +kubebuilder:printcolumn:name="Node",type=string,priority=1,JSONPath=`.status.nodeName`
type VirtualMachine struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   VirtualMachineSpec   `json:"spec"`
	Status VirtualMachineStatus `json:"status,omitempty"`
}

// RunStrategy says when the guest shall run. The words are KubeVirt's.
//
// +kubebuilder:validation:Enum=Always;Halted;Manual;RerunOnFailure;Once
type RunStrategy string

// The run strategies.
const (
	// RunAlways: an instance is there always; one that ended is replaced.
	RunAlways RunStrategy = "Always"
	// RunHalted: there is no instance.
	RunHalted RunStrategy = "Halted"
	// RunManual: start, stop and restart requests decide.
	RunManual RunStrategy = "Manual"
	// RunRerunOnFailure: an instance that failed is replaced, one that succeeded
	// stays ended.
	RunRerunOnFailure RunStrategy = "RerunOnFailure"
	// RunOnce: one instance, never replaced.
	RunOnce RunStrategy = "Once"
)

// VirtualMachineSpec is what the owner wants.
//
// +kubebuilder:validation:XValidation:rule="has(self.runStrategy)",message="runStrategy is not set: want Always, Halted, Manual, RerunOnFailure or Once",fieldPath=".runStrategy"
type VirtualMachineSpec struct {
	// RunStrategy says when the guest shall run. It must be set; a rule says so,
	// because a missing field would hide what the other rules have to say.
	// +optional
	RunStrategy RunStrategy `json:"runStrategy"`
	// Template of the instance.
	Template VirtualMachineInstanceTemplate `json:"template"`
}

// VirtualMachineInstanceTemplate is metadata and spec of the instance.
type VirtualMachineInstanceTemplate struct {
	// ObjectMeta: labels and annotations are copied to the instance and its pod.
	// +optional
	ObjectMeta TemplateMeta               `json:"metadata,omitempty"`
	Spec       VirtualMachineInstanceSpec `json:"spec"`
}

// TemplateMeta is the metadata that a template can give.
type TemplateMeta struct {
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// +optional
	// +kubebuilder:validation:XValidation:rule="!('kubevfio.io/assignment' in self)",message="annotation kubevfio.io/assignment cannot be given: only the scheduler writes it"
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Values of PrintableStatus. The words are KubeVirt's.
const (
	VMStopped          = "Stopped"
	VMStarting         = "Starting"
	VMRunning          = "Running"
	VMPaused           = "Paused"
	VMStopping         = "Stopping"
	VMTerminating      = "Terminating"
	VMMigrating        = "Migrating"
	VMCrashLoopBackOff = "CrashLoopBackOff"
	VMUnschedulable    = "ErrorUnschedulable"
	VMErrImagePull     = "ErrImagePull"
	VMImagePullBackOff = "ImagePullBackOff"
	VMErrorPvcNotFound = "ErrorPvcNotFound"
	VMInvalidSpec      = "InvalidSpec"
)

// VirtualMachineStatus is what the controller saw.
type VirtualMachineStatus struct {
	// ObservedGeneration of the spec that the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// PrintableStatus is one word for people.
	// +optional
	PrintableStatus string `json:"printableStatus,omitempty"`
	// Created: there is an instance. Ready: its guest runs.
	// +optional
	Created bool `json:"created,omitempty"`
	// +optional
	Ready bool `json:"ready,omitempty"`
	// InstanceUID is the UID of the latest instance that was made.
	// +optional
	InstanceUID types.UID `json:"instanceUID,omitempty"`
	// NodeName of the instance.
	// +optional
	NodeName string `json:"nodeName,omitempty"`
	// Devices as "held/wanted".
	// +optional
	Devices string `json:"devices,omitempty"`
	// StateChangeRequests are wishes of the subresources start, stop and
	// restart that are not carried out yet, in order.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	StateChangeRequests []StateChangeRequest `json:"stateChangeRequests,omitempty"`
	// StartFailure is the memory of failed starts.
	// +optional
	StartFailure *StartFailure `json:"startFailure,omitempty"`
	// LastOutcome is how the last instance ended.
	// +optional
	LastOutcome *LauncherOutcome `json:"lastOutcome,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// StateChangeAction is what is asked for.
//
// +kubebuilder:validation:Enum=Start;Stop
type StateChangeAction string

// The actions. A restart is a stop with the instance's UID, then a start.
const (
	ActionStart StateChangeAction = "Start"
	ActionStop  StateChangeAction = "Stop"
)

// StateChangeRequest is one wish.
type StateChangeRequest struct {
	Action StateChangeAction `json:"action"`
	// UID of the instance that a stop is about.
	// +optional
	UID types.UID `json:"uid,omitempty"`
	// GracePeriodSeconds of a stop replaces the template's; 0 ends the guest at
	// once.
	// +optional
	GracePeriodSeconds *int64 `json:"gracePeriodSeconds,omitempty"`
}

// StartFailure is the memory of instances that failed one after the other.
type StartFailure struct {
	// Count of consecutive failures.
	Count int32 `json:"consecutiveFailCount"`
	// LastFailedVMIUID is the last of them.
	// +optional
	LastFailedVMIUID types.UID `json:"lastFailedVMIUID,omitempty"`
	// RetryAfter is when the next instance is made.
	// +optional
	RetryAfter *metav1.Time `json:"retryAfterTimestamp,omitempty"`
}

// VirtualMachineList is a list of VirtualMachine.
//
// +kubebuilder:object:root=true
type VirtualMachineList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VirtualMachine `json:"items"`
}
