package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

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
type CPU struct {
	// +optional
	// +kubebuilder:validation:Minimum=1
	Cores uint32 `json:"cores,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=1
	Sockets uint32 `json:"sockets,omitempty"`
	// Threads per core. Absent: 2 where the pod was given whole cores with two
	// hardware threads each and the number of vCPUs allows it, else 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Threads uint32 `json:"threads,omitempty"`
	// Model is "host-passthrough" (default), "host-model" or a libvirt model
	// name.
	// +optional
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
type Memory struct {
	// Guest is what the guest sees.
	// +optional
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
type FeatureVendorID struct {
	FeatureState `json:",inline"`
	// +optional
	// +kubebuilder:validation:MaxLength=12
	VendorID string `json:"vendorid,omitempty"`
}

// Clock of the guest: UTC unless a timezone is given.
type Clock struct {
	// +optional
	UTC *ClockUTC `json:"utc,omitempty"`
	// Timezone is a name of the tz database, "Europe/Berlin". Not together with
	// utc.
	// +optional
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
	UUID string `json:"uuid,omitempty"`
	// Serial number of the SMBIOS tables.
	// +optional
	Serial string `json:"serial,omitempty"`
	// Bootloader is the firmware, BIOS when absent.
	// +optional
	Bootloader *Bootloader `json:"bootloader,omitempty"`
	// KernelBoot boots a kernel directly.
	// +optional
	KernelBoot *KernelBoot `json:"kernelBoot,omitempty"`
}

// Bootloader is the firmware. At most one is set.
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
	// +optional
	// +kubebuilder:validation:Enum=Always;Never;IfNotPresent
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	// +optional
	ImagePullSecret string `json:"imagePullSecret,omitempty"`
	// KernelPath within the image; in a plain pod a path in the container.
	KernelPath string `json:"kernelPath"`
	// +optional
	InitrdPath string `json:"initrdPath,omitempty"`
}
