package v1alpha1

// Devices of the guest.
//
// +kubebuilder:validation:XValidation:rule="!has(self.gpus) || !has(self.hostDevices) || self.gpus.all(x, !self.hostDevices.exists(y, y.name == x.name))",message="gpus, hostDevices and sriov interfaces share one space of names: a name is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.gpus) || !has(self.interfaces) || self.gpus.all(x, !self.interfaces.exists(y, has(y.sriov) && y.name == x.name))",message="gpus, hostDevices and sriov interfaces share one space of names: a name is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.hostDevices) || !has(self.interfaces) || self.hostDevices.all(x, !self.interfaces.exists(y, has(y.sriov) && y.name == x.name))",message="gpus, hostDevices and sriov interfaces share one space of names: a name is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.interfaces) || self.interfaces.filter(i, !has(i.sriov)).size() <= 1",message="interfaces: there can be one interface on the pod network"
// +kubebuilder:validation:XValidation:rule="!has(self.interfaces) || self.interfaces.all(i, !has(i.acpiIndex) || self.interfaces.exists_one(j, has(j.acpiIndex) && j.acpiIndex == i.acpiIndex))",message="interfaces: an acpiIndex is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.gpus) || self.gpus.all(x, !has(x.bootOrder) || self.gpus.exists_one(y, has(y.bootOrder) && y.bootOrder == x.bootOrder))",message="gpus: a bootOrder is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.gpus) || !has(self.hostDevices) || self.gpus.all(x, !has(x.bootOrder) || !self.hostDevices.exists(y, has(y.bootOrder) && y.bootOrder == x.bootOrder))",message="gpus and hostDevices: a bootOrder is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.gpus) || !has(self.interfaces) || self.gpus.all(x, !has(x.bootOrder) || !self.interfaces.exists(y, has(y.bootOrder) && y.bootOrder == x.bootOrder))",message="gpus and interfaces: a bootOrder is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.gpus) || !has(self.disks) || self.gpus.all(x, !has(x.bootOrder) || !self.disks.exists(y, has(y.bootOrder) && y.bootOrder == x.bootOrder))",message="gpus and disks: a bootOrder is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.hostDevices) || self.hostDevices.all(x, !has(x.bootOrder) || self.hostDevices.exists_one(y, has(y.bootOrder) && y.bootOrder == x.bootOrder))",message="hostDevices: a bootOrder is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.hostDevices) || !has(self.interfaces) || self.hostDevices.all(x, !has(x.bootOrder) || !self.interfaces.exists(y, has(y.bootOrder) && y.bootOrder == x.bootOrder))",message="hostDevices and interfaces: a bootOrder is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.hostDevices) || !has(self.disks) || self.hostDevices.all(x, !has(x.bootOrder) || !self.disks.exists(y, has(y.bootOrder) && y.bootOrder == x.bootOrder))",message="hostDevices and disks: a bootOrder is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.interfaces) || self.interfaces.all(x, !has(x.bootOrder) || self.interfaces.exists_one(y, has(y.bootOrder) && y.bootOrder == x.bootOrder))",message="interfaces: a bootOrder is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.interfaces) || !has(self.disks) || self.interfaces.all(x, !has(x.bootOrder) || !self.disks.exists(y, has(y.bootOrder) && y.bootOrder == x.bootOrder))",message="interfaces and disks: a bootOrder is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.disks) || self.disks.all(x, !has(x.bootOrder) || self.disks.exists_one(y, has(y.bootOrder) && y.bootOrder == x.bootOrder))",message="disks: a bootOrder is there twice"
// +kubebuilder:validation:XValidation:rule="!(has(self.networkInterfaceMultiqueue) && self.networkInterfaceMultiqueue) || !has(self.interfaces) || self.interfaces.all(i, has(i.sriov))",message="networkInterfaceMultiqueue is not possible: passt has one queue"
// +kubebuilder:validation:XValidation:rule="!has(self.disks) || self.disks.all(x, x.name != 'persistent-state')",message="disks: persistent-state holds firmware variables and TPM state and cannot be a disk"
// +kubebuilder:validation:XValidation:rule="!has(self.filesystems) || self.filesystems.all(x, x.name != 'persistent-state')",message="filesystems: persistent-state holds firmware variables and TPM state and cannot be a filesystem"
// +kubebuilder:validation:XValidation:rule="!has(self.disks) || !has(self.filesystems) || self.disks.all(x, !self.filesystems.exists(y, y.name == x.name))",message="disks and filesystems: a volume is there twice"
// +kubebuilder:validation:XValidation:rule="!has(self.autoattachMemBalloon) || !self.autoattachMemBalloon",message="autoattachMemBalloon cannot be true: passed-through devices pin all memory"
// +kubebuilder:validation:XValidation:rule="!has(self.panicDevices) || self.panicDevices.all(p, self.panicDevices.exists_one(q, (has(q.model) ? q.model : 'isa') == (has(p.model) ? p.model : 'isa')))",message="panicDevices: a model is there twice"
type Devices struct {
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	GPUs []GPU `json:"gpus,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	HostDevices []HostDevice `json:"hostDevices,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	Interfaces []Interface `json:"interfaces,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	Disks []Disk `json:"disks,omitempty"`
	// Filesystems are volumes that the guest mounts by virtiofs; the tag is the
	// name.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Filesystems []Filesystem `json:"filesystems,omitempty"`
	// Alignment is the wish of how near the devices must be, as in the
	// kubevfio.io/alignment annotation.
	// +optional
	// +kubebuilder:validation:Pattern=`^(required|preferred):(switch|root|numa|socket)$`
	Alignment string `json:"alignment,omitempty"`
	// PCITopology is how the guest's PCIe tree follows the host's. "RootComplex"
	// (default): one expander bus per host root complex, one root port per
	// unit. "Mirror": the host's PCIe switches too; QEMU's switch ports report
	// 2.5 GT/s x1, see ncclTopology.
	// +optional
	// +kubebuilder:validation:Enum=RootComplex;Mirror
	// +kubebuilder:default=RootComplex
	PCITopology string `json:"pciTopology,omitempty"`
	// NCCLTopology hands the guest an NCCL topology file (fw_cfg
	// opt/kubevfio/nccl-topology.xml) with the host's link speeds and distances.
	// +optional
	NCCLTopology bool `json:"ncclTopology,omitempty"`
	// IOMMU is a virtual IOMMU: device assignment inside the guest, more than
	// 255 vCPUs. Costs locked memory per device.
	// +optional
	IOMMU *IOMMU `json:"iommu,omitempty"`
	// AutoattachGraphicsDevice gives the guest a VGA screen, reachable by VNC.
	// Absent or false: no screen.
	// +optional
	AutoattachGraphicsDevice *bool `json:"autoattachGraphicsDevice,omitempty"`
	// AutoattachSerialConsole is on unless false.
	// +optional
	AutoattachSerialConsole *bool `json:"autoattachSerialConsole,omitempty"`
	// AutoattachPodInterface: a guest without interfaces gets one passt
	// interface named "default" on the pod network, unless this is false.
	// +optional
	AutoattachPodInterface *bool `json:"autoattachPodInterface,omitempty"`
	// AutoattachMemBalloon must be false or absent: there is no balloon.
	// +optional
	AutoattachMemBalloon *bool `json:"autoattachMemBalloon,omitempty"`
	// NetworkInterfaceMultiqueue gives virtio interfaces a queue per vCPU; passt
	// has one queue, so that it is refused there.
	// +optional
	NetworkInterfaceMultiqueue *bool `json:"networkInterfaceMultiqueue,omitempty"`
	// BlockMultiQueue gives virtio disks a queue per vCPU.
	// +optional
	BlockMultiQueue *bool `json:"blockMultiQueue,omitempty"`
	// GuestAgent opens the channel of qemu-guest-agent. Off unless set: its
	// answers are hostile input.
	// +optional
	GuestAgent *GuestAgent `json:"guestAgent,omitempty"`
	// +optional
	Rng *Rng `json:"rng,omitempty"`
	// +optional
	Watchdog *Watchdog `json:"watchdog,omitempty"`
	// +optional
	TPM *TPMDevice `json:"tpm,omitempty"`
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=3
	PanicDevices []PanicDevice `json:"panicDevices,omitempty"`
}

// HostDeviceOptions are settings of one passed-through PCI unit.
type HostDeviceOptions struct {
	// Tag is an address that the guest can find the device by (cloud-init
	// metadata).
	// +optional
	Tag string `json:"tag,omitempty"`
	// BootOrder puts the device into the firmware's boot list; 1 is first.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	BootOrder *uint `json:"bootOrder,omitempty"`
	// ROM is the option ROM of the leader function.
	// +optional
	ROM *ROM `json:"rom,omitempty"`
	// NoMmap makes QEMU trap accesses to the BARs instead of mapping them:
	// faster boot with very large BARs, no peer-to-peer.
	// +optional
	NoMmap bool `json:"noMmap,omitempty"`
	// IOMMUFD gives the device to QEMU by iommufd instead of the VFIO group.
	// The host's kernel and libvirt 12.1 must have it.
	// +optional
	IOMMUFD bool `json:"iommufd,omitempty"`
	// QEMUOptions are further properties of QEMU's vfio-pci device, by name:
	// only those starting with "x-" and "enable-migration" are accepted.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, (k.startsWith('x-') || k == 'enable-migration') && k != 'x-no-mmap')",message="only options that start with x- and enable-migration are passed on; x-no-mmap is the field noMmap"
	QEMUOptions map[string]string `json:"qemuOptions,omitempty"`
}

// ROM is an option ROM.
//
// +kubebuilder:validation:XValidation:rule="has(self.bar) || (has(self.file) && self.file.size() > 0)",message="is empty: set bar or file"
// +kubebuilder:validation:XValidation:rule="!(has(self.file) && self.file.size() > 0 && has(self.bar) && !self.bar)",message="has a file and bar: false; the file would not be seen"
type ROM struct {
	// Bar false hides the device's own ROM from the guest.
	// +optional
	Bar *bool `json:"bar,omitempty"`
	// File is a ROM image in the container that replaces the device's own. Not
	// together with bar false.
	// +optional
	// +kubebuilder:validation:Pattern=`^((/[ -.0-~]+)+)?$`
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.matches('(^|/)[.][.]?(/|$)')",message="must be a plain absolute path, without . and .."
	File string `json:"file,omitempty"`
}

// GPU is a passed-through graphics or compute device.
//
// +kubebuilder:validation:XValidation:rule="has(self.deviceName)",message="deviceName is not set: name the resource",fieldPath=".deviceName"
type GPU struct {
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// DeviceName is the resource. It must be set.
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$`
	// +kubebuilder:validation:MaxLength=253
	DeviceName string `json:"deviceName"`
	// +optional
	VirtualGPUOptions *VGPUOptions `json:"virtualGPUOptions,omitempty"`
	HostDeviceOptions `json:",inline"`
}

// VGPUOptions are settings of a virtual GPU (a mediated device or a virtual
// function on the vendor's VFIO driver).
type VGPUOptions struct {
	// +optional
	Display *VGPUDisplayOptions `json:"display,omitempty"`
}

// VGPUDisplayOptions is whether the vGPU is the guest's screen.
//
// +kubebuilder:validation:XValidation:rule="!has(self.ramFB) || (has(self.ramFB.enabled) && !self.ramFB.enabled) || (has(self.enabled) && self.enabled)",message="ramFB needs enabled: true"
type VGPUDisplayOptions struct {
	// Enabled, false when absent: a screen needs a graphics server in QEMU.
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
	// RamFB shows the boot screen before the driver loads.
	// +optional
	RamFB *FeatureState `json:"ramFB,omitempty"`
}

// HostDevice is any other passed-through device.
//
// +kubebuilder:validation:XValidation:rule="has(self.deviceName)",message="deviceName is not set: name the resource",fieldPath=".deviceName"
type HostDevice struct {
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// DeviceName is the resource. It must be set.
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$`
	// +kubebuilder:validation:MaxLength=253
	DeviceName string `json:"deviceName"`
	// Use "Device" (default) passes the function through; "Disk" gives an NVMe
	// controller's namespace 1 to QEMU's own NVMe driver and the guest a virtio
	// disk.
	// +optional
	// +kubebuilder:validation:Enum=Device;Disk
	// +kubebuilder:default=Device
	Use               string `json:"use,omitempty"`
	HostDeviceOptions `json:",inline"`
}

// Interface is a network card of the guest. Exactly one binding is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.sriov), has(self.passt), has(self.passtBinding), has(self.binding)].filter(x, x).size() == 1",message="wants exactly one of sriov and passt"
// +kubebuilder:validation:XValidation:rule="!has(self.sriov) || (has(self.sriov.deviceName) && self.sriov.deviceName.size() > 0)",message="sriov.deviceName is empty: name the resource that the virtual function comes from"
// +kubebuilder:validation:XValidation:rule="!has(self.sriov) || !has(self.model)",message="model is not possible for a virtual function"
// +kubebuilder:validation:XValidation:rule="!has(self.sriov) || !has(self.ports) || self.ports.size() == 0",message="ports are not possible for a virtual function: all its ports reach the guest"
type Interface struct {
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// SRIOV passes a virtual function through.
	// +optional
	SRIOV *InterfaceSRIOV `json:"sriov,omitempty"`
	// Passt connects the guest to the pod network in user space.
	// +optional
	Passt *InterfacePasst `json:"passt,omitempty"`
	// PasstBinding is KubeVirt's name of passt.
	// +optional
	PasstBinding *InterfacePasst `json:"passtBinding,omitempty"`
	// Binding by plugin name; only "passt" is known.
	// +optional
	Binding *PluginBinding `json:"binding,omitempty"`
	// Masquerade is refused by name: use passt.
	// +optional
	// +kubebuilder:validation:XValidation:rule="false",message="masquerade is KubeVirt's and not supported here: it needs privileges in the pod's network; use passt: {}"
	Masquerade *InterfaceUnsupported `json:"masquerade,omitempty"`
	// Bridge is refused by name: use passt.
	// +optional
	// +kubebuilder:validation:XValidation:rule="false",message="bridge is KubeVirt's and not supported here: it needs privileges in the pod's network; use passt: {}"
	Bridge *InterfaceUnsupported `json:"bridge,omitempty"`
	// Tap is refused by name: use passt.
	// +optional
	// +kubebuilder:validation:XValidation:rule="false",message="tap is KubeVirt's and not supported here: it needs privileges in the pod's network; use passt: {}"
	Tap *InterfaceUnsupported `json:"tap,omitempty"`
	// Model is "virtio" (default), "e1000e" or "rtl8139"; not for sriov.
	// +optional
	// +kubebuilder:validation:Enum=virtio;e1000e;rtl8139
	Model string `json:"model,omitempty"`
	// MacAddress of the guest's card.
	// +optional
	// +kubebuilder:validation:MaxLength=17
	// +kubebuilder:validation:Pattern=`^([0-9a-fA-F][02468aceACE]((:[0-9a-fA-F]{2}){5}|(-[0-9a-fA-F]{2}){5}))?$`
	// +kubebuilder:validation:XValidation:rule="!self.matches('^0[-0:]*$')",message="must not be zero"
	MacAddress string `json:"macAddress,omitempty"`
	// Ports of the pod that lead to the guest's same port; none when empty.
	// +optional
	// +listType=map
	// +listMapKey=port
	// +listMapKey=protocol
	// +kubebuilder:validation:MaxItems=64
	Ports []Port `json:"ports,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	BootOrder *uint `json:"bootOrder,omitempty"`
	// +optional
	Tag string `json:"tag,omitempty"`
	// ACPIIndex gives the guest's card a stable name (eno<index>).
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16383
	ACPIIndex int `json:"acpiIndex,omitempty"`
}

// Port is a port of the pod network that reaches the guest.
type Port struct {
	// +optional
	Name string `json:"name,omitempty"`
	// Protocol is TCP (default) or UDP.
	// +optional
	// +kubebuilder:validation:Enum=TCP;UDP
	// +kubebuilder:default=TCP
	Protocol string `json:"protocol,omitempty"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
}

// InterfaceSRIOV is a virtual function.
//
// +kubebuilder:validation:XValidation:rule="!has(self.vlanQoS) || (has(self.vlan) && self.vlan != 0)",message="vlanQoS needs a vlan"
type InterfaceSRIOV struct {
	// DeviceName is the resource that the virtual function comes from. KubeVirt
	// finds it by the Multus network; here it is named directly.
	// +optional
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?)?$`
	// +kubebuilder:validation:MaxLength=253
	DeviceName string `json:"deviceName,omitempty"`
	// VLAN that the physical function tags the guest's frames with; 0 means
	// untagged and is set explicitly.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	VLAN *int32 `json:"vlan,omitempty"`
	// VLANQoS is the 802.1p priority.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=7
	VLANQoS *int32 `json:"vlanQoS,omitempty"`
	// +optional
	Trust *bool `json:"trust,omitempty"`
	// +optional
	SpoofCheck *bool `json:"spoofCheck,omitempty"`
	// +optional
	// +kubebuilder:validation:Enum=auto;enable;disable
	LinkState string `json:"linkState,omitempty"`
}

// InterfacePasst has no settings yet.
type InterfacePasst struct{}

// InterfaceUnsupported is a binding that is known and refused.
type InterfaceUnsupported struct{}

// PluginBinding names a network binding.
type PluginBinding struct {
	// +kubebuilder:validation:Enum=passt
	Name string `json:"name"`
}

// Network is what an interface of the same name connects to.
//
// +kubebuilder:validation:XValidation:rule="has(self.pod) || has(self.multus)",message="wants pod"
type Network struct {
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// +optional
	Pod *PodNetwork `json:"pod,omitempty"`
	// Multus is for plain pods: there the pod's own annotation asks for it.
	// +optional
	// +kubebuilder:validation:XValidation:rule="false",message="multus is not supported: only the pod network is; a virtual function needs no network, name its resource in sriov.deviceName"
	Multus *MultusNetwork `json:"multus,omitempty"`
}

// PodNetwork is the pod's own network.
type PodNetwork struct{}

// MultusNetwork is a network of a NetworkAttachmentDefinition.
type MultusNetwork struct {
	// NetworkName is [namespace/]name of the definition.
	NetworkName string `json:"networkName"`
	// +optional
	Default bool `json:"default,omitempty"`
}

// IOMMU is a virtual IOMMU.
type IOMMU struct {
	// Model is "intel" (default) or "virtio".
	// +optional
	// +kubebuilder:validation:Enum=intel;virtio
	Model string `json:"model,omitempty"`
}

// GuestAgent is the channel of qemu-guest-agent.
type GuestAgent struct{}

// Rng is a virtio random number generator fed from the host.
type Rng struct{}

// Watchdog resets or stops a hung guest. Exactly one model is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.i6300esb) != has(self.itco)",message="wants exactly one of i6300esb and itco"
type Watchdog struct {
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// +optional
	I6300ESB *WatchdogAction `json:"i6300esb,omitempty"`
	// ITCO is the chipset's own watchdog.
	// +optional
	ITCO *WatchdogAction `json:"itco,omitempty"`
}

// WatchdogAction is what happens when the watchdog fires.
type WatchdogAction struct {
	// Action, "reset" when empty.
	// +optional
	// +kubebuilder:validation:Enum=poweroff;reset;shutdown
	Action string `json:"action,omitempty"`
}

// TPMDevice is a TPM 2.0 by swtpm.
type TPMDevice struct {
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
	// Persistent keeps the state on the volume named "persistent-state".
	// +optional
	Persistent *bool `json:"persistent,omitempty"`
}

// On reports whether the guest has a TPM.
func (t *TPMDevice) On() bool { return t != nil && (t.Enabled == nil || *t.Enabled) }

// PanicDevice tells the launcher that the guest's kernel panicked. A guest
// without any in its list has one of model isa.
type PanicDevice struct {
	// Model is "isa" (default), "pvpanic" or "hyperv".
	// +optional
	// +kubebuilder:validation:Enum=pvpanic;isa;hyperv
	Model string `json:"model,omitempty"`
}
