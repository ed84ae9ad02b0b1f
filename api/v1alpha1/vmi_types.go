package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// VirtualMachineInstance is one running guest and the pod that carries it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=kvmi
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="IP",type=string,JSONPath=`.status.interfaces[0].ipAddress`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.status.nodeName`
// +kubebuilder:printcolumn:name="Devices",type=string,JSONPath=`.status.deviceSummary.devices`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=='Ready')].status`
// +kubebuilder:printcolumn:name="Addresses",type=string,priority=1,JSONPath=`.status.deviceSummary.addresses`
// +kubebuilder:printcolumn:name="Alignment",type=string,priority=1,JSONPath=`.status.deviceSummary.alignment`
// +kubebuilder:printcolumn:name="Pod",type=string,priority=1,JSONPath=`.status.podName`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.reason`
type VirtualMachineInstance struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec cannot be changed: a guest's hardware is fixed when it starts.
	//
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec of a VirtualMachineInstance cannot be changed: change the VirtualMachine's template and restart it"
	Spec   VirtualMachineInstanceSpec   `json:"spec"`
	Status VirtualMachineInstanceStatus `json:"status,omitempty"`
}

// VirtualMachineInstancePhase is where an instance is on its way. The words are
// KubeVirt's.
//
// +kubebuilder:validation:Enum=Pending;Scheduling;Scheduled;Running;Succeeded;Failed
type VirtualMachineInstancePhase string

// The phases.
const (
	// VMIPending: no pod yet; the conditions say why.
	VMIPending VirtualMachineInstancePhase = "Pending"
	// VMIScheduling: the pod waits for a node.
	VMIScheduling VirtualMachineInstancePhase = "Scheduling"
	// VMIScheduled: the pod is on a node, the guest does not run yet.
	VMIScheduled VirtualMachineInstancePhase = "Scheduled"
	// VMIRunning: the guest runs.
	VMIRunning VirtualMachineInstancePhase = "Running"
	// VMISucceeded: the guest shut itself down, or was shut down.
	VMISucceeded VirtualMachineInstancePhase = "Succeeded"
	// VMIFailed: the guest did not start or did not end well; see the outcome.
	VMIFailed VirtualMachineInstancePhase = "Failed"
)

// Conditions of instances and virtual machines.
const (
	// ConditionReady: the guest runs.
	ConditionReady = "Ready"
	// ConditionPodCreated: the launcher pod could be made of the spec.
	ConditionPodCreated = "PodCreated"
	// ConditionDevicesReady: the pod holds every device that the spec asks for.
	ConditionDevicesReady = "DevicesReady"
	// ConditionAligned: the devices are as near to each other as the spec wishes.
	ConditionAligned = "Aligned"
	// ConditionPaused: the guest's vCPUs are stopped on request.
	ConditionPaused = "Paused"
	// ConditionEvictionRequested: the guest shall leave its node.
	ConditionEvictionRequested = "EvictionRequested"
	// ConditionRestartRequired: the template is not what the running instance
	// was made of.
	ConditionRestartRequired = "RestartRequired"
	// ConditionFailure: the virtual machine cannot be kept in the wanted state.
	ConditionFailure = "Failure"
)

// VirtualMachineInstanceStatus is what the controller saw.
type VirtualMachineInstanceStatus struct {
	// +optional
	Phase VirtualMachineInstancePhase `json:"phase,omitempty"`
	// PhaseSince is when the phase began.
	// +optional
	PhaseSince *metav1.Time `json:"phaseSince,omitempty"`
	// RunningSince is when the guest first ran.
	// +optional
	RunningSince *metav1.Time `json:"runningSince,omitempty"`
	// Reason is one word about the phase, Message a sentence for people.
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
	// +optional
	NodeName string `json:"nodeName,omitempty"`
	// EvacuationNodeName is the node that the guest shall leave: it is drained.
	// +optional
	EvacuationNodeName string `json:"evacuationNodeName,omitempty"`
	// Move is the cold move under way, or the last one.
	// +optional
	Move *MoveStatus `json:"move,omitempty"`
	// PodName and PodUID are the launcher pod of now.
	// +optional
	PodName string `json:"podName,omitempty"`
	// +optional
	PodUID types.UID `json:"podUID,omitempty"`
	// Attempt counts the pods that were made; above 1 when a node refused one.
	// +optional
	Attempt int32 `json:"attempt,omitempty"`
	// Refusals are nodes whose kubelet refused the pod; they are avoided until
	// the time is over.
	// +optional
	// +listType=map
	// +listMapKey=node
	Refusals []NodeRefusal `json:"refusals,omitempty"`
	// Devices that the pod holds.
	// +optional
	// +listType=map
	// +listMapKey=name
	Devices []DeviceStatus `json:"devices,omitempty"`
	// DeviceSummary is Devices for printer columns.
	// +optional
	DeviceSummary *DeviceSummary `json:"deviceSummary,omitempty"`
	// Interfaces of the guest whose address is known.
	// +optional
	// +listType=map
	// +listMapKey=name
	Interfaces []InterfaceStatus `json:"interfaces,omitempty"`
	// MemoryOverhead is what the pod requests beyond the guest's memory, such
	// as 240Mi.
	// +optional
	MemoryOverhead string `json:"memoryOverhead,omitempty"`
	// Outcome is how the launcher ended.
	// +optional
	Outcome *LauncherOutcome `json:"outcome,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// MoveStep is where a cold move is.
//
// +kubebuilder:validation:Enum=Preparing;Stopping;Starting;Done;Cancelled
type MoveStep string

// The steps of a cold move.
const (
	// MovePreparing: a standby pod is to take devices on another node; the guest
	// runs where it was.
	MovePreparing MoveStep = "Preparing"
	// MoveStopping: the standby pod holds its devices and the guest shuts down.
	MoveStopping MoveStep = "Stopping"
	// MoveStarting: the old pod is gone and the standby pod starts the guest.
	MoveStarting MoveStep = "Starting"
	// MoveDone: the guest runs on the new node.
	MoveDone MoveStep = "Done"
	// MoveCancelled: the node is in use again, or the guest ended before.
	MoveCancelled MoveStep = "Cancelled"
)

// MoveStatus is a cold move from node to node.
type MoveStatus struct {
	Step MoveStep `json:"step"`
	// From and To are nodes; To is empty until the standby pod has one.
	From string `json:"from"`
	// +optional
	To string `json:"to,omitempty"`
	// Attempt is the number of the standby pod.
	Attempt int32 `json:"attempt"`
	// PodName of the standby pod.
	// +optional
	PodName string `json:"podName,omitempty"`
	// Since when the move is under way.
	Since metav1.Time `json:"since"`
	// StoppedAt is when the guest was asked to shut down, RunningAt when it ran
	// on the new node.
	// +optional
	StoppedAt *metav1.Time `json:"stoppedAt,omitempty"`
	// +optional
	RunningAt *metav1.Time `json:"runningAt,omitempty"`
	// Message says what the move waits for.
	// +optional
	Message string `json:"message,omitempty"`
}

// NodeRefusal is the memory of one refusal.
type NodeRefusal struct {
	Node string `json:"node"`
	// Reason is kubelet's, such as TopologyAffinityError.
	Reason string `json:"reason"`
	// +optional
	Message string `json:"message,omitempty"`
	// Until when the node is avoided.
	Until metav1.Time `json:"until"`
	// Count of refusals by this node.
	Count int32 `json:"count"`
}

// DeviceStatus is one device of the guest.
type DeviceStatus struct {
	// Name in the spec: of the entry in gpus, hostDevices or interfaces.
	Name string `json:"name"`
	// Resource that it came from.
	Resource string `json:"resource"`
	// Address is the PCI address of the unit's leader on the node; empty while
	// kubelet has not said what it gave.
	// +optional
	Address string `json:"address,omitempty"`
	// Members are the unit's other functions.
	// +optional
	// +listType=atomic
	Members []string `json:"members,omitempty"`
	// Product by the node's inventory.
	// +optional
	Product string `json:"product,omitempty"`
	// NUMANode, absent where the host does not say.
	// +optional
	NUMANode *int32 `json:"numaNode,omitempty"`
	// Root is the root complex, such as pci0000:80.
	// +optional
	Root string `json:"root,omitempty"`
	// Node that the device belongs to.
	// +optional
	Node string `json:"node,omitempty"`
	// Since when the instance holds it.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// Problem says why the device is not as it should be.
	// +optional
	Problem string `json:"problem,omitempty"`
}

// DeviceSummary is for printer columns.
type DeviceSummary struct {
	// Devices as "held/wanted".
	Devices string `json:"devices"`
	// Addresses, comma separated.
	// +optional
	Addresses string `json:"addresses,omitempty"`
	// Alignment that was reached: switch, root, numa, socket or other.
	// +optional
	Alignment string `json:"alignment,omitempty"`
}

// InterfaceStatus is an interface of the guest.
type InterfaceStatus struct {
	Name string `json:"name"`
	// +optional
	IPAddress string `json:"ipAddress,omitempty"`
	// +optional
	MAC string `json:"mac,omitempty"`
}

// LauncherOutcome is the launcher's termination message, or what kubelet said in
// its place.
type LauncherOutcome struct {
	ExitCode int32 `json:"exitCode"`
	// Reason is one of the reasons of package launcherrpc, or kubelet's, such
	// as OOMKilled.
	Reason string `json:"reason"`
	// +optional
	Message string `json:"message,omitempty"`
	// Field of the spec that the reason is about.
	// +optional
	Field string `json:"field,omitempty"`
	// Address is the PCI address that the reason is about.
	// +optional
	Address string `json:"address,omitempty"`
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
}

// VirtualMachineInstanceList is a list of VirtualMachineInstance.
//
// +kubebuilder:object:root=true
type VirtualMachineInstanceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VirtualMachineInstance `json:"items"`
}
