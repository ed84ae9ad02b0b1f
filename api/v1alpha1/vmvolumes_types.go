package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Disk is a disk of the guest; its volume has the same name. At most one of
// disk, cdrom and lun is set, disk when none.
//
// +kubebuilder:validation:XValidation:rule="[has(self.disk), has(self.cdrom), has(self.lun)].filter(x, x).size() <= 1",message="wants at most one of disk, cdrom and lun"
// +kubebuilder:validation:XValidation:rule="!has(self.io) || self.io != 'native' || (has(self.cache) && self.cache == 'none')",message="io native needs cache: none"
// +kubebuilder:validation:XValidation:rule="!(has(self.dedicatedIOThread) && self.dedicatedIOThread) || !(has(self.cdrom) || has(self.lun) || (has(self.disk) && has(self.disk.bus) && self.disk.bus != 'virtio'))",message="dedicatedIOThread is for disks on the virtio bus"
type Disk struct {
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
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
	// +kubebuilder:validation:Maximum=255
	BootOrder *uint `json:"bootOrder,omitempty"`
	// Serial number that the guest sees.
	// +optional
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9][-_.A-Za-z0-9]{0,35})?$`
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
	// Bus is virtio (default), sata or scsi; there is no USB.
	// +optional
	// +kubebuilder:validation:Enum=virtio;sata;scsi
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
	// ReadOnly is on; false is refused.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self",message="cannot be false"
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
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$`
	// +kubebuilder:validation:MaxLength=36
	Name string `json:"name"`
	// Virtiofs is the only kind.
	Virtiofs *FilesystemVirtiofs `json:"virtiofs"`
}

// FilesystemVirtiofs has no settings.
type FilesystemVirtiofs struct{}

// Volume is where a disk's data lives. Exactly one source is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.containerDisk), has(self.persistentVolumeClaim), has(self.dataVolume), has(self.emptyDisk), has(self.cloudInitNoCloud), has(self.cloudInitConfigDrive), has(self.configMap), has(self.secret), has(self.emptyDir)].filter(x, x).size() == 1",message="wants exactly one source of containerDisk, persistentVolumeClaim, dataVolume, emptyDisk, cloudInitNoCloud, cloudInitConfigDrive, configMap, secret, emptyDir"
// +kubebuilder:validation:XValidation:rule="self.name != 'persistent-state' || has(self.persistentVolumeClaim) || has(self.dataVolume)",message="persistent-state holds firmware variables and TPM state and must be a persistentVolumeClaim"
type Volume struct {
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
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
//
// +kubebuilder:validation:XValidation:rule="has(self.image) && self.image.size() > 0",message="image is empty: it may be so in a plain pod only"
type ContainerDiskSource struct {
	// Image reference; in a plain pod the volume is the pod's own and this may
	// be empty.
	// +optional
	Image string `json:"image,omitempty"`
	// Path of the disk within the image; the only file under /disk when empty.
	// +optional
	// +kubebuilder:validation:Pattern=`^(/?[ -.0-~]+(/[ -.0-~]+)*)?$`
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.matches('(^|/)[.][.]?(/|$)')",message="must be a plain path within the image, without . and .."
	Path string `json:"path,omitempty"`
	// +optional
	ImagePullSecret string `json:"imagePullSecret,omitempty"`
	// +optional
	// +kubebuilder:validation:Enum=Always;Never;IfNotPresent
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
}

// PersistentVolumeClaimVolumeSource is a claim in the same namespace.
type PersistentVolumeClaimVolumeSource struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ClaimName string `json:"claimName"`
	// +optional
	ReadOnly bool `json:"readOnly,omitempty"`
}

// DataVolumeSource is a claim that CDI fills.
type DataVolumeSource struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// EmptyDiskSource is an empty disk.
type EmptyDiskSource struct {
	// Capacity is 1Mi to 1Pi; an admission policy says so, because quantities in
	// lists are too costly for the rules of a schema.
	Capacity resource.Quantity `json:"capacity"`
}

// CloudInitSource is cloud-init data. Of each kind of data at most one form is
// set; at least one kind is.
//
// +kubebuilder:validation:XValidation:rule="[has(self.userData) && self.userData.size() > 0, has(self.userDataBase64) && self.userDataBase64.size() > 0, has(self.secretRef)].filter(x, x).size() <= 1",message="wants at most one of userData, userDataBase64 and secretRef"
// +kubebuilder:validation:XValidation:rule="[has(self.networkData) && self.networkData.size() > 0, has(self.networkDataBase64) && self.networkDataBase64.size() > 0, has(self.networkDataSecretRef)].filter(x, x).size() <= 1",message="wants at most one of networkData, networkDataBase64 and networkDataSecretRef"
// +kubebuilder:validation:XValidation:rule="has(self.secretRef) || has(self.networkDataSecretRef) || (has(self.userData) && self.userData.size() > 0) || (has(self.userDataBase64) && self.userDataBase64.size() > 0) || (has(self.networkData) && self.networkData.size() > 0) || (has(self.networkDataBase64) && self.networkDataBase64.size() > 0)",message="has no data"
type CloudInitSource struct {
	// +optional
	UserData string `json:"userData,omitempty"`
	// +optional
	// +kubebuilder:validation:Format=byte
	UserDataBase64 string `json:"userDataBase64,omitempty"`
	// UserDataSecretRef is a Secret with the key userdata.
	// +optional
	UserDataSecretRef *corev1.LocalObjectReference `json:"secretRef,omitempty"`
	// +optional
	NetworkData string `json:"networkData,omitempty"`
	// +optional
	// +kubebuilder:validation:Format=byte
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
