package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Disk is a disk of the guest; its volume has the same name. At most one of
// disk, cdrom and lun is set, disk when none.
type Disk struct {
	Name string `json:"name"`
	// +optional
	Disk *DiskTarget `json:"disk,omitempty"`
	// +optional
	CDRom *CDRomTarget `json:"cdrom,omitempty"`
	// LUN passes SCSI commands of a block volume through.
	// +optional
	LUN *LunTarget `json:"lun,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=1
	BootOrder *uint `json:"bootOrder,omitempty"`
	// Serial number that the guest sees.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	Serial string `json:"serial,omitempty"`
	// DedicatedIOThread gives the disk an I/O thread of its own.
	// +optional
	DedicatedIOThread *bool `json:"dedicatedIOThread,omitempty"`
	// Cache of the host's pages; "none" where the storage allows direct I/O.
	// +optional
	// +kubebuilder:validation:Enum=none;writethrough;writeback
	Cache string `json:"cache,omitempty"`
	// IO is how QEMU submits.
	// +optional
	// +kubebuilder:validation:Enum=native;threads;io_uring
	IO string `json:"io,omitempty"`
	// +optional
	Tag string `json:"tag,omitempty"`
	// Shareable lets several guests write the disk.
	// +optional
	Shareable *bool `json:"shareable,omitempty"`
	// +optional
	// +kubebuilder:validation:Enum=stop;ignore;report;enospace
	ErrorPolicy string `json:"errorPolicy,omitempty"`
}

// DiskTarget is a hard disk.
type DiskTarget struct {
	// Bus is virtio (default), sata, scsi or usb (refused: there is no USB).
	// +optional
	// +kubebuilder:validation:Enum=virtio;sata;scsi;usb
	Bus string `json:"bus,omitempty"`
	// +optional
	ReadOnly bool `json:"readonly,omitempty"`
}

// CDRomTarget is a CD drive.
type CDRomTarget struct {
	// Bus is sata (default) or scsi.
	// +optional
	// +kubebuilder:validation:Enum=sata;scsi
	Bus string `json:"bus,omitempty"`
	// ReadOnly is on unless false; false is refused.
	// +optional
	ReadOnly *bool `json:"readonly,omitempty"`
}

// LunTarget is a SCSI logical unit.
type LunTarget struct {
	// Bus is scsi (default).
	// +optional
	// +kubebuilder:validation:Enum=scsi
	Bus string `json:"bus,omitempty"`
	// +optional
	ReadOnly bool `json:"readonly,omitempty"`
}

// Filesystem is a volume of the same name that the guest mounts.
type Filesystem struct {
	Name string `json:"name"`
	// Virtiofs is the only kind.
	Virtiofs *FilesystemVirtiofs `json:"virtiofs"`
}

// FilesystemVirtiofs has no settings.
type FilesystemVirtiofs struct{}

// Volume is where a disk's data lives. Exactly one source is set.
type Volume struct {
	Name         string `json:"name"`
	VolumeSource `json:",inline"`
}

// VolumeSource is one of these.
type VolumeSource struct {
	// ContainerDisk is a disk image in the folder /disk of an OCI image.
	// Writes go to an overlay and are lost with the pod.
	// +optional
	ContainerDisk *ContainerDiskSource `json:"containerDisk,omitempty"`
	// PersistentVolumeClaim with the file disk.img, or a block device.
	// +optional
	PersistentVolumeClaim *PersistentVolumeClaimVolumeSource `json:"persistentVolumeClaim,omitempty"`
	// DataVolume is the claim of that name; nothing waits for its import.
	// +optional
	DataVolume *DataVolumeSource `json:"dataVolume,omitempty"`
	// EmptyDisk is an empty sparse disk that lives as long as the pod.
	// +optional
	EmptyDisk *EmptyDiskSource `json:"emptyDisk,omitempty"`
	// +optional
	CloudInitNoCloud *CloudInitSource `json:"cloudInitNoCloud,omitempty"`
	// +optional
	CloudInitConfigDrive *CloudInitSource `json:"cloudInitConfigDrive,omitempty"`
	// ConfigMap, for filesystems.
	// +optional
	ConfigMap *ConfigMapVolumeSource `json:"configMap,omitempty"`
	// Secret, for filesystems.
	// +optional
	Secret *SecretVolumeSource `json:"secret,omitempty"`
	// EmptyDir, for filesystems.
	// +optional
	EmptyDir *corev1.EmptyDirVolumeSource `json:"emptyDir,omitempty"`
}

// ContainerDiskSource is a disk image in an OCI image.
type ContainerDiskSource struct {
	// Image reference; in a plain pod the volume is the pod's own and this may
	// be empty.
	// +optional
	Image string `json:"image,omitempty"`
	// Path of the disk within the image; the only file under /disk when empty.
	// +optional
	Path string `json:"path,omitempty"`
	// +optional
	ImagePullSecret string `json:"imagePullSecret,omitempty"`
	// +optional
	// +kubebuilder:validation:Enum=Always;Never;IfNotPresent
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
}

// PersistentVolumeClaimVolumeSource is a claim in the same namespace.
type PersistentVolumeClaimVolumeSource struct {
	ClaimName string `json:"claimName"`
	// +optional
	ReadOnly bool `json:"readOnly,omitempty"`
}

// DataVolumeSource is a claim that CDI fills.
type DataVolumeSource struct {
	Name string `json:"name"`
}

// EmptyDiskSource is an empty disk.
type EmptyDiskSource struct {
	Capacity resource.Quantity `json:"capacity"`
}

// CloudInitSource is cloud-init data. Of each kind of data at most one form is
// set; at least one kind is.
type CloudInitSource struct {
	// +optional
	UserData string `json:"userData,omitempty"`
	// +optional
	UserDataBase64 string `json:"userDataBase64,omitempty"`
	// UserDataSecretRef is a Secret with the key userdata.
	// +optional
	UserDataSecretRef *corev1.LocalObjectReference `json:"secretRef,omitempty"`
	// +optional
	NetworkData string `json:"networkData,omitempty"`
	// +optional
	NetworkDataBase64 string `json:"networkDataBase64,omitempty"`
	// NetworkDataSecretRef is a Secret with the key networkdata.
	// +optional
	NetworkDataSecretRef *corev1.LocalObjectReference `json:"networkDataSecretRef,omitempty"`
}

// ConfigMapVolumeSource is a ConfigMap.
type ConfigMapVolumeSource struct {
	corev1.LocalObjectReference `json:",inline"`
	// +optional
	Optional *bool `json:"optional,omitempty"`
}

// SecretVolumeSource is a Secret.
type SecretVolumeSource struct {
	SecretName string `json:"secretName"`
	// +optional
	Optional *bool `json:"optional,omitempty"`
}
