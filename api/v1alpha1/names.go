package v1alpha1

// API group and version.
const (
	Group   = "kubevfio.io"
	Version = "v1alpha1"
)

// Kubernetes-wide names.
const (
	// SystemNamespace is where KubeVFIO's own pods live.
	SystemNamespace = "kubevfio-system"
	// SchedulerName is the profile (and deployment) of our scheduler.
	SchedulerName = "kubevfio-scheduler"
	// PluginName is the scheduler framework plugin's name in profiles.
	PluginName = "DeviceTopology"
)

// Annotations on pods and nodes.
const (
	// AssignmentAnnotation holds an [Assignment] as JSON. Only the scheduler
	// writes it, in the Binding; admission policies refuse everybody else.
	AssignmentAnnotation = "kubevfio.io/assignment"
	// AlignmentAnnotation is the owner's wish, "required:root" or
	// "preferred:numa"; see [ParseAlignment].
	AlignmentAnnotation = "kubevfio.io/alignment"
	// VMAnnotation holds a VirtualMachineInstance spec as YAML on a plain pod
	// that runs the launcher image.
	VMAnnotation = "kubevfio.io/vm"
	// PauseAnnotation on a Node, set to "true", stops the agent from changing
	// drivers, VFs or anything else of that host.
	PauseAnnotation = "kubevfio.io/pause"
)

// Virtual resources: slots without an identity.
const (
	SlotPrefix       = "devices.kubevfio.io/"
	ResourceKVM      = SlotPrefix + "kvm"
	ResourceTun      = SlotPrefix + "tun"
	ResourceVhostNet = SlotPrefix + "vhost-net"
)

// CDI: one kind whatever the pool. A device's CDI name is
// CDIKind + "=" + address, a slot's CDIKind + "=" + "kvm".
const (
	CDIVendor = "kubevfio.io"
	CDIClass  = "device"
	CDIKind   = CDIVendor + "/" + CDIClass
)

// Host paths that agent and launcher share. The agent mounts the folder
// AgentRunDir read-only into containers by CDI: a mounted socket file would die
// with the agent's restart.
const (
	AgentRunDir     = "/run/kubevfio"
	AgentSocketName = "agent.sock"
	AgentSocket     = AgentRunDir + "/" + AgentSocketName
	// IOMMUFDSocket is where the agent hands out /dev/iommu, opened and set up: a
	// file cannot be passed by gRPC.
	IOMMUFDSocketName = "iommufd.sock"
	IOMMUFDSocket     = AgentRunDir + "/" + IOMMUFDSocketName
	// CapabilityCacheDir holds what libvirt found out about QEMU on this node.
	// The agent makes it, a DaemonSet of the launcher's image fills it.
	CapabilityCacheDir = AgentRunDir + "/capabilities"
	// LauncherUser is user and group of the launcher's image, as KubeVirt's.
	LauncherUser = 107
	// SeccompProfile is the Localhost profile for launcher pods, relative to
	// kubelet's seccomp root (normally /var/lib/kubelet/seccomp).
	SeccompProfile = "kubevfio/launcher.json"
)

// Paths inside a launcher container. PodInfoDir is a downward API volume.
const (
	PodInfoDir        = "/etc/kubevfio/podinfo"
	PodInfoAssignment = PodInfoDir + "/assignment" // metadata.annotations['kubevfio.io/assignment']
	PodInfoVM         = PodInfoDir + "/vm"         // metadata.annotations['kubevfio.io/vm']
	PodInfoUID        = PodInfoDir + "/uid"        // metadata.uid
	PodInfoName       = PodInfoDir + "/name"       // metadata.name
	PodInfoNamespace  = PodInfoDir + "/namespace"  // metadata.namespace
	// VolumesDir + "/" + name is the mount of the spec's volume of that name when
	// it is a folder (a file system claim, an OCI image, a ConfigMap),
	// BlockVolumesDir + "/" + name the device of a block claim.
	VolumesDir      = "/volumes"
	BlockVolumesDir = "/dev/volumes"
	// SecretsDir + "/" + name is the mount of a Secret that cloud-init data
	// comes from.
	SecretsDir = "/secrets"
	// LauncherRunDir is an emptyDir that the launcher can write: sockets, logs,
	// libvirt's state.
	LauncherRunDir = "/run/kubevfio-launcher"
	// LauncherTempDir is an emptyDir too, for guests with a TPM: swtpm_setup(8) has
	// this place for its temporary files built in.
	LauncherTempDir = "/tmp"
)

// Environment of a container that was given devices. <NAME> is the resource
// name in upper case with everything but letters and digits turned into '_'.
const (
	// EnvKubeVirtPrefix + <NAME> is KubeVirt's contract: addresses, comma separated.
	EnvKubeVirtPrefix = "PCI_RESOURCE_"
	// EnvSRIOVPrefix + <NAME> is the SR-IOV network device plugin's contract;
	// with the suffix EnvSRIOVInfoSuffix a JSON object of details per address.
	EnvSRIOVPrefix     = "PCIDEVICE_"
	EnvSRIOVInfoSuffix = "_INFO"
)

// Launcher exit codes. The termination message carries the same as JSON.
// An out-of-memory kill is kubelet's own 137/OOMKilled.
const (
	ExitGuestShutdown    = 0
	ExitBadSpec          = 64
	ExitDeviceNotViable  = 65
	ExitMemoryLock       = 66
	ExitQEMUDidNotStart  = 67
	ExitGuestPanicked    = 68
	ExitQEMUDied         = 69 // QEMU ended by itself while the guest ran
	ExitLauncherInternal = 70
)

// Values of spec.domain.devices.pciTopology.
const (
	PCITopologyRootComplex = "RootComplex"
	PCITopologyMirror      = "Mirror"
)

// Values of spec.domain.devices.hostDevices[].use.
const (
	UseDevice = "Device"
	UseDisk   = "Disk"
)
