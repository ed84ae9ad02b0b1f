package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// VirtualMachineInstanceSpec describes a guest. The same text, as YAML, is the
// value of the kubevfio.io/vm annotation of a plain launcher pod. Field names
// are KubeVirt's wherever the thing is the same. The rules are those of package
// vmspec, so that the API server refuses what the launcher would refuse.
//
// +kubebuilder:validation:XValidation:rule="!has(self.domain.devices) || !has(self.domain.devices.disks) || self.domain.devices.disks.all(d, (has(self.volumes) && self.volumes.exists(v, v.name == d.name)))",message="domain.devices.disks: each disk needs an entry of the same name in volumes"
// +kubebuilder:validation:XValidation:rule="!has(self.volumes) || !has(self.domain.devices) || !has(self.domain.devices.disks) || self.domain.devices.disks.all(d, !self.volumes.exists(v, v.name == d.name && (has(v.configMap) || has(v.secret) || has(v.emptyDir))))",message="domain.devices.disks: a volume of kind configMap, secret or emptyDir is a folder; name it in domain.devices.filesystems instead"
// +kubebuilder:validation:XValidation:rule="!has(self.domain.devices) || !has(self.domain.devices.disks) || self.domain.devices.disks.all(d, !(has(d.lun) || (has(d.shareable) && d.shareable)) || (has(self.volumes) && self.volumes.exists(v, v.name == d.name && (has(v.persistentVolumeClaim) || has(v.dataVolume)))))",message="domain.devices.disks: lun and shareable need a volume that is a persistentVolumeClaim or dataVolume"
// +kubebuilder:validation:XValidation:rule="!has(self.domain.devices) || !has(self.domain.devices.filesystems) || self.domain.devices.filesystems.all(f, (has(self.volumes) && self.volumes.exists(v, v.name == f.name && ((has(v.persistentVolumeClaim) || has(v.dataVolume)) || (has(v.configMap) || has(v.secret) || has(v.emptyDir))))))",message="domain.devices.filesystems: each needs a volume of the same name that is a persistentVolumeClaim, dataVolume, configMap, secret or emptyDir"
// +kubebuilder:validation:XValidation:rule="!has(self.volumes) || self.volumes.all(v, v.name == 'persistent-state' || (has(self.domain.devices) && has(self.domain.devices.disks) && self.domain.devices.disks.exists(d, d.name == v.name)) || (has(self.domain.devices) && has(self.domain.devices.filesystems) && self.domain.devices.filesystems.exists(f, f.name == v.name)))",message="volumes: each volume needs a disk or filesystem of the same name in domain.devices"
// +kubebuilder:validation:XValidation:rule="!has(self.networks) || self.networks.all(n, has(self.domain.devices) && has(self.domain.devices.interfaces) && self.domain.devices.interfaces.exists(i, i.name == n.name))",message="networks: each network needs an interface of the same name in domain.devices.interfaces"
// +kubebuilder:validation:XValidation:rule="!has(self.networks) || !has(self.domain.devices) || !has(self.domain.devices.interfaces) || self.domain.devices.interfaces.all(i, !has(i.sriov) || !self.networks.exists(n, n.name == i.name))",message="domain.devices.interfaces: a virtual function (sriov) cannot be on the pod network; leave its network out and name the resource in sriov.deviceName"
// +kubebuilder:validation:XValidation:rule="!(has(self.domain.firmware) && has(self.domain.firmware.bootloader) && has(self.domain.firmware.bootloader.efi) && has(self.domain.firmware.bootloader.efi.persistent) && self.domain.firmware.bootloader.efi.persistent) || (has(self.volumes) && self.volumes.exists(v, v.name == 'persistent-state'))",message="domain.firmware.bootloader.efi.persistent needs a volume named persistent-state"
// +kubebuilder:validation:XValidation:rule="!(has(self.domain.devices) && has(self.domain.devices.tpm) && has(self.domain.devices.tpm.persistent) && self.domain.devices.tpm.persistent && (!has(self.domain.devices.tpm.enabled) || self.domain.devices.tpm.enabled)) || (has(self.volumes) && self.volumes.exists(v, v.name == 'persistent-state'))",message="domain.devices.tpm.persistent needs a volume named persistent-state"
// +kubebuilder:validation:XValidation:rule="!has(self.readinessProbe) || (has(self.domain.devices) && has(self.domain.devices.interfaces) && self.domain.devices.interfaces.exists(i, has(i.ports) && i.ports.exists(q, q.protocol == 'TCP' && q.port == (has(self.readinessProbe.tcpSocket) ? self.readinessProbe.tcpSocket.port : has(self.readinessProbe.httpGet) ? self.readinessProbe.httpGet.port : 0))))",message="readinessProbe: its port must be among the TCP ports of the interface on the pod network: domain.devices.interfaces[].ports"
// +kubebuilder:validation:XValidation:rule="!has(self.livenessProbe) || (has(self.domain.devices) && has(self.domain.devices.interfaces) && self.domain.devices.interfaces.exists(i, has(i.ports) && i.ports.exists(q, q.protocol == 'TCP' && q.port == (has(self.livenessProbe.tcpSocket) ? self.livenessProbe.tcpSocket.port : has(self.livenessProbe.httpGet) ? self.livenessProbe.httpGet.port : 0))))",message="livenessProbe: its port must be among the TCP ports of the interface on the pod network: domain.devices.interfaces[].ports"
// +kubebuilder:validation:XValidation:rule="!has(self.accessCredentials) || self.accessCredentials.all(a, !has(a.sshPublicKey) || (has(self.volumes) && self.volumes.exists(v, has(a.sshPublicKey.propagationMethod.noCloud) ? has(v.cloudInitNoCloud) : has(v.cloudInitConfigDrive))))",message="accessCredentials: the propagation method needs a volume of that kind: noCloud a cloudInitNoCloud, configDrive a cloudInitConfigDrive"
// +kubebuilder:validation:XValidation:rule="!has(self.livenessProbe) || !has(self.livenessProbe.successThreshold) || self.livenessProbe.successThreshold == 1",message="livenessProbe.successThreshold must be 1"
type VirtualMachineInstanceSpec struct {
	Domain DomainSpec `json:"domain"`
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	Volumes []Volume `json:"volumes,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	Networks []Network `json:"networks,omitempty"`
	// TerminationGracePeriodSeconds is how long a guest may take to shut down.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:default=30
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`
	// EvictionStrategy is what happens when the node is drained. "ColdMove": a
	// pod on another node takes its devices first, then the guest is shut down
	// here and started there. "None": the guest is shut down with its pod.
	// +optional
	// +kubebuilder:default=ColdMove
	EvictionStrategy EvictionStrategy `json:"evictionStrategy,omitempty"`
	// AccessCredentials let people into the guest.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	AccessCredentials []AccessCredential `json:"accessCredentials,omitempty"`
	// ReadinessProbe of the guest, through the interface on the pod network.
	// Without one, the instance is ready while the guest runs.
	// +optional
	ReadinessProbe *Probe `json:"readinessProbe,omitempty"`
	// LivenessProbe of the guest, through the interface on the pod network: a
	// guest that fails it is ended, and its machine's strategy decides.
	// +optional
	LivenessProbe *Probe `json:"livenessProbe,omitempty"`

	// StartStrategy "Paused" starts the guest with its vCPUs stopped.
	// +optional
	// +kubebuilder:validation:Enum=Paused
	StartStrategy string `json:"startStrategy,omitempty"`

	// The following fields place the pod; the launcher does not read them.

	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// +optional
	// +listType=atomic
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// +optional
	// +listType=atomic
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// +optional
	SchedulerName string `json:"schedulerName,omitempty"`
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// Hostname of the guest, for cloud-init and DHCP; the instance's name when
	// empty.
	// +optional
	Hostname string `json:"hostname,omitempty"`
	// +optional
	Subdomain string `json:"subdomain,omitempty"`
}

// DomainSpec is the guest's machine.
//
// +kubebuilder:validation:XValidation:rule="(has(self.memory) && has(self.memory.guest)) || (has(self.resources) && has(self.resources.requests) && 'memory' in self.resources.requests) || (has(self.resources) && has(self.resources.limits) && 'memory' in self.resources.limits)",message="memory.guest is not set: say how much memory the guest sees, such as 4Gi",fieldPath=".memory.guest"
// +kubebuilder:validation:XValidation:rule="(has(self.memory) && has(self.memory.guest)) ? true : (has(self.resources) && has(self.resources.requests) && 'memory' in self.resources.requests) ? (quantity(string(self.resources.requests['memory'])).compareTo(quantity('16Mi')) >= 0 && quantity(string(self.resources.requests['memory'])).compareTo(quantity('128Ti')) <= 0) : (has(self.resources) && has(self.resources.limits) && 'memory' in self.resources.limits) ? (quantity(string(self.resources.limits['memory'])).compareTo(quantity('16Mi')) >= 0 && quantity(string(self.resources.limits['memory'])).compareTo(quantity('128Ti')) <= 0) : true",message="resources: the guest's memory must be 16Mi to 128Ti"
// +kubebuilder:validation:XValidation:rule="(has(self.cpu) && (has(self.cpu.cores) || has(self.cpu.sockets) || has(self.cpu.threads))) ? true : (has(self.resources) && has(self.resources.requests) && 'cpu' in self.resources.requests) ? (quantity(string(self.resources.requests['cpu'])).compareTo(quantity('0')) > 0 && quantity(string(self.resources.requests['cpu'])).compareTo(quantity('4096')) <= 0) : (has(self.resources) && has(self.resources.limits) && 'cpu' in self.resources.limits) ? (quantity(string(self.resources.limits['cpu'])).compareTo(quantity('0')) > 0 && quantity(string(self.resources.limits['cpu'])).compareTo(quantity('4096')) <= 0) : true",message="resources: the guest's CPUs must be more than 0 and at most 4096"
// +kubebuilder:validation:XValidation:rule="!(has(self.features) && has(self.features.smm) && has(self.features.smm.enabled) && !self.features.smm.enabled && has(self.firmware) && has(self.firmware.bootloader) && has(self.firmware.bootloader.efi) && (!has(self.firmware.bootloader.efi.secureBoot) || self.firmware.bootloader.efi.secureBoot))",message="features.smm is off, but secure boot needs it: set firmware.bootloader.efi.secureBoot: false, or smm on"
// +kubebuilder:validation:XValidation:rule="!(has(self.features) && has(self.features.acpi) && has(self.features.acpi.enabled) && !self.features.acpi.enabled && (has(self.firmware) && has(self.firmware.bootloader) && has(self.firmware.bootloader.efi) || has(self.devices) && (has(self.devices.gpus) && self.devices.gpus.size() > 0 || has(self.devices.hostDevices) && self.devices.hostDevices.size() > 0 || has(self.devices.interfaces) && self.devices.interfaces.exists(i, has(i.sriov)))))",message="features.acpi is off, but UEFI and the guest's PCIe root complexes need it"
type DomainSpec struct {
	// +optional
	CPU *CPU `json:"cpu,omitempty"`
	// +optional
	Memory *Memory `json:"memory,omitempty"`
	// Resources of the pod. Where memory.guest is absent, the guest gets the
	// memory of requests, else of limits, as KubeVirt has it.
	// +optional
	Resources ResourceRequirements `json:"resources,omitempty"`
	// +optional
	Machine *Machine `json:"machine,omitempty"`
	// +optional
	Firmware *Firmware `json:"firmware,omitempty"`
	// +optional
	Features *Features `json:"features,omitempty"`
	// +optional
	Clock *Clock `json:"clock,omitempty"`
	// IOThreadsPolicy "shared" gives all virtio disks one I/O thread, "auto"
	// one thread per disk. Absent: QEMU's main loop does the I/O.
	// +optional
	// +kubebuilder:validation:Enum=shared;auto
	IOThreadsPolicy string `json:"ioThreadsPolicy,omitempty"`
	// +optional
	Devices Devices `json:"devices,omitempty"`
}

// ResourceRequirements are the pod's resources beside the devices.
type ResourceRequirements struct {
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`
	// +optional
	Limits corev1.ResourceList `json:"limits,omitempty"`
}

// Machine is the kind of mainboard.
type Machine struct {
	// Type is "q35" or a versioned name such as "pc-q35-10.0".
	// +optional
	// +kubebuilder:validation:Pattern=`^(q35|pc-q35-[0-9]+\.[0-9]+)$`
	Type string `json:"type,omitempty"`
}

// CPU is the guest's processor.
//
// +kubebuilder:validation:XValidation:rule="(has(self.sockets) ? self.sockets : 1) * (has(self.cores) ? self.cores : 1) * (has(self.threads) ? self.threads : 1) <= 4096",message="sockets x cores x threads must be at most 4096"
// +kubebuilder:validation:XValidation:rule="!(has(self.isolateEmulatorThread) && self.isolateEmulatorThread) || (has(self.dedicatedCpuPlacement) && self.dedicatedCpuPlacement)",message="isolateEmulatorThread needs dedicatedCpuPlacement: true"
// +kubebuilder:validation:XValidation:rule="!(has(self.numa) && has(self.numa.guestMappingPassthrough)) || (has(self.dedicatedCpuPlacement) && self.dedicatedCpuPlacement)",message="numa.guestMappingPassthrough needs dedicatedCpuPlacement: true; without it the vCPUs have no place on the host"
type CPU struct {
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	Cores uint32 `json:"cores,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	Sockets uint32 `json:"sockets,omitempty"`
	// Threads per core. Absent: 2 where the pod was given whole cores with two
	// hardware threads each and the number of vCPUs allows it, else 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	Threads uint32 `json:"threads,omitempty"`
	// Model is "host-passthrough" (default), "host-model" or a libvirt model
	// name.
	// +optional
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9][-_.A-Za-z0-9]{0,63})?$`
	Model string `json:"model,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	Features []CPUFeature `json:"features,omitempty"`
	// DedicatedCPUPlacement pins vCPUs to the CPUs that kubelet gave the pod.
	// +optional
	DedicatedCPUPlacement bool `json:"dedicatedCpuPlacement,omitempty"`
	// IsolateEmulatorThread keeps QEMU's own threads on a CPU that runs no
	// vCPU; the pod needs one CPU more. Needs dedicatedCpuPlacement.
	// +optional
	IsolateEmulatorThread bool `json:"isolateEmulatorThread,omitempty"`
	// +optional
	NUMA *NUMA `json:"numa,omitempty"`
}

// CPUFeature switches one CPU feature.
type CPUFeature struct {
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][-_.A-Za-z0-9]{0,63}$`
	Name string `json:"name"`
	// Policy, "require" when empty.
	// +optional
	// +kubebuilder:validation:Enum=force;require;optional;disable;forbid
	Policy string `json:"policy,omitempty"`
}

// NUMA is how the guest's NUMA cells come about.
type NUMA struct {
	// GuestMappingPassthrough asks for guest cells that are the NUMA nodes of
	// the CPUs that kubelet gave. It is what dedicatedCpuPlacement does here
	// anyway; without that it is refused.
	// +optional
	GuestMappingPassthrough *NUMAGuestMappingPassthrough `json:"guestMappingPassthrough,omitempty"`
}

// NUMAGuestMappingPassthrough has no settings.
type NUMAGuestMappingPassthrough struct{}

// Memory is the guest's memory.
//
// +kubebuilder:validation:XValidation:rule="!has(self.hugepages) || !has(self.guest) || (quantity(string(self.guest)).isInteger() && quantity(string(self.guest)).asInteger() % (self.hugepages.pageSize == '1Gi' ? 1073741824 : 2097152) == 0)",message="guest must be a whole number of hugepages.pageSize"
type Memory struct {
	// Guest is what the guest sees.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('16Mi')) >= 0 && quantity(string(self)).compareTo(quantity('128Ti')) <= 0",message="must be 16Mi to 128Ti"
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

// Features of the hypervisor that the guest sees.
type Features struct {
	// +optional
	ACPI *FeatureState `json:"acpi,omitempty"`
	// SMM is system management mode; secure boot needs it and switches it on.
	// +optional
	SMM *FeatureState `json:"smm,omitempty"`
	// +optional
	KVM *FeatureKVM `json:"kvm,omitempty"`
	// +optional
	Hyperv *FeatureHyperv `json:"hyperv,omitempty"`
}

// FeatureState switches a feature; absent "enabled" means on.
type FeatureState struct {
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
}

// FeatureKVM are KVM's own features.
type FeatureKVM struct {
	// Hidden hides the KVM signature from the guest (old GPU drivers).
	// +optional
	Hidden bool `json:"hidden,omitempty"`
}

// FeatureHyperv are enlightenments for Windows guests.
//
// +kubebuilder:validation:XValidation:rule="!has(self.synic) || (has(self.synic.enabled) && !self.synic.enabled) || (has(self.vpindex) && (!has(self.vpindex.enabled) || self.vpindex.enabled))",message="synic needs vpindex"
type FeatureHyperv struct {
	// +optional
	Relaxed *FeatureState `json:"relaxed,omitempty"`
	// +optional
	VAPIC *FeatureState `json:"vapic,omitempty"`
	// +optional
	Spinlocks *FeatureSpinlocks `json:"spinlocks,omitempty"`
	// +optional
	VPIndex *FeatureState `json:"vpindex,omitempty"`
	// +optional
	Runtime *FeatureState `json:"runtime,omitempty"`
	// +optional
	SyNIC *FeatureState `json:"synic,omitempty"`
	// +optional
	Reset *FeatureState `json:"reset,omitempty"`
	// +optional
	Frequencies *FeatureState `json:"frequencies,omitempty"`
	// +optional
	TLBFlush *FeatureState `json:"tlbflush,omitempty"`
	// +optional
	IPI *FeatureState `json:"ipi,omitempty"`
	// VendorID is the CPUID vendor text of the hypervisor, at most 12
	// characters (a way around driver checks for virtual machines).
	// +optional
	VendorID *FeatureVendorID `json:"vendorid,omitempty"`
}

// FeatureSpinlocks is a feature with a count.
type FeatureSpinlocks struct {
	FeatureState `json:",inline"`
	// Retries before the guest tells the hypervisor; at least 4095, 8191 when
	// absent.
	// +optional
	// +kubebuilder:validation:Minimum=4095
	Retries *uint32 `json:"spinlocks,omitempty"`
}

// FeatureVendorID is a feature with a text.
//
// +kubebuilder:validation:XValidation:rule="(has(self.enabled) && !self.enabled) || has(self.vendorid)",message="vendorid wants 1 to 12 printable characters without a comma"
type FeatureVendorID struct {
	FeatureState `json:",inline"`
	// +optional
	// +kubebuilder:validation:Pattern=`^[ -+\--~]{1,12}$`
	VendorID string `json:"vendorid,omitempty"`
}

// Clock of the guest: UTC unless a timezone is given.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.utc) && has(self.timezone) && self.timezone.size() > 0)",message="has both utc and timezone"
type Clock struct {
	// +optional
	UTC *ClockUTC `json:"utc,omitempty"`
	// Timezone is a name of the tz database, "Europe/Berlin". Not together with
	// utc.
	// +optional
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	// +kubebuilder:validation:MaxLength=64
	Timezone string `json:"timezone,omitempty"`
}

// ClockUTC is a clock in UTC.
type ClockUTC struct {
	// +optional
	OffsetSeconds *int64 `json:"offsetSeconds,omitempty"`
}

// Firmware is how the guest boots.
type Firmware struct {
	// UUID of the SMBIOS tables; derived from the instance's UID when empty.
	// +optional
	// +kubebuilder:validation:Pattern=`^([0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})?$`
	UUID string `json:"uuid,omitempty"`
	// Serial number of the SMBIOS tables.
	// +optional
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	// +kubebuilder:validation:MaxLength=256
	Serial string `json:"serial,omitempty"`
	// Bootloader is the firmware, BIOS when absent.
	// +optional
	Bootloader *Bootloader `json:"bootloader,omitempty"`
	// KernelBoot boots a kernel directly.
	// +optional
	KernelBoot *KernelBoot `json:"kernelBoot,omitempty"`
}

// Bootloader is the firmware. At most one is set.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.bios) && has(self.efi))",message="has both bios and efi"
type Bootloader struct {
	// +optional
	BIOS *BIOS `json:"bios,omitempty"`
	// +optional
	EFI *EFI `json:"efi,omitempty"`
}

// BIOS is SeaBIOS.
type BIOS struct {
	// UseSerial copies the firmware's text screen to the serial console.
	// +optional
	UseSerial *bool `json:"useSerial,omitempty"`
}

// EFI is OVMF.
type EFI struct {
	// SecureBoot is on unless false, as in KubeVirt.
	// +optional
	SecureBoot *bool `json:"secureBoot,omitempty"`
	// Persistent keeps the variables on the volume named "persistent-state"
	// over restarts.
	// +optional
	Persistent *bool `json:"persistent,omitempty"`
}

// KernelBoot is a direct kernel boot.
//
// +kubebuilder:validation:XValidation:rule="has(self.container)",message="container is not set: there is no kernel to boot"
type KernelBoot struct {
	// +optional
	// +kubebuilder:validation:Pattern=`^[ -~]*$`
	// +kubebuilder:validation:MaxLength=4096
	KernelArgs string `json:"kernelArgs,omitempty"`
	// +optional
	Container *KernelBootContainer `json:"container,omitempty"`
}

// KernelBootContainer names kernel and initrd within an OCI image, which is
// mounted as an image volume.
//
// +kubebuilder:validation:XValidation:rule="has(self.image) && self.image.size() > 0",message="image is empty: it may be so in a plain pod only"
type KernelBootContainer struct {
	// Image reference. In a plain pod the image volume is the pod's own and
	// this field may be empty.
	// +optional
	Image string `json:"image,omitempty"`
	// +optional
	// +kubebuilder:validation:Enum=Always;Never;IfNotPresent
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	// +optional
	ImagePullSecret string `json:"imagePullSecret,omitempty"`
	// KernelPath within the image; in a plain pod a path in the container.
	// +kubebuilder:validation:Pattern=`^(/[ -.0-~]+)+$`
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.matches('(^|/)[.][.]?(/|$)')",message="must be a plain absolute path, without . and .."
	KernelPath string `json:"kernelPath"`
	// +optional
	// +kubebuilder:validation:Pattern=`^((/[ -.0-~]+)+)?$`
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.matches('(^|/)[.][.]?(/|$)')",message="must be a plain absolute path, without . and .."
	InitrdPath string `json:"initrdPath,omitempty"`
}
