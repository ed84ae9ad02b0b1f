package launcherpod

import (
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// mounts collects a pod's volumes and their places in the launcher's container.
type mounts struct {
	pod     *corev1.PodSpec
	n       int
	secrets map[string]bool
}

func (m *mounts) add(name, at string, readOnly bool, source corev1.VolumeSource) {
	m.pod.Volumes = append(m.pod.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	c := &m.pod.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: at, ReadOnly: readOnly})
}

// guest adds a volume of the spec. Its name in the pod is a number: names of the
// spec need not be DNS labels, nor differ from ours.
func (m *mounts) guest(at string, readOnly bool, source corev1.VolumeSource) {
	m.add(m.next(), at, readOnly, source)
}

func (m *mounts) next() string {
	m.n++
	return fmt.Sprintf("guest-%d", m.n-1)
}

// secret adds a Secret that cloud-init data comes from, once.
func (m *mounts) secret(name string) {
	if !m.secrets[name] {
		m.secrets[name] = true
		m.guest(path.Join(v1alpha1.SecretsDir, name), true, corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}})
	}
}

// image adds an OCI image and the Secret to pull it with.
func (m *mounts) image(name, at, reference string, policy corev1.PullPolicy, secret string) {
	m.add(name, at, true, corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: reference, PullPolicy: policy}})
	ref := corev1.LocalObjectReference{Name: secret}
	if secret != "" && !slices.Contains(m.pod.ImagePullSecrets, ref) {
		m.pod.ImagePullSecrets = append(m.pod.ImagePullSecrets, ref)
	}
}

func addVolumes(p *corev1.PodSpec, spec *v1alpha1.VirtualMachineInstanceSpec, block map[string]bool) {
	m := &mounts{pod: p, secrets: map[string]bool{}}
	field := func(file, fieldPath string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path.Base(file), FieldRef: &corev1.ObjectFieldSelector{FieldPath: fieldPath}}
	}
	m.add("podinfo", v1alpha1.PodInfoDir, true, corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		Items: []corev1.DownwardAPIVolumeFile{
			field(v1alpha1.PodInfoAssignment, "metadata.annotations['"+v1alpha1.AssignmentAnnotation+"']"),
			field(v1alpha1.PodInfoVM, "metadata.annotations['"+v1alpha1.VMAnnotation+"']"),
			field(v1alpha1.PodInfoUID, "metadata.uid"),
			field(v1alpha1.PodInfoName, "metadata.name"),
			field(v1alpha1.PodInfoNamespace, "metadata.namespace"),
		},
	}})
	m.add("run", v1alpha1.LauncherRunDir, false, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	if spec.Domain.Devices.TPM.On() {
		m.add("tmp", v1alpha1.LauncherTempDir, false, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	}
	if c := kernelContainer(spec); c != nil {
		m.image("kernel", KernelDir, c.Image, c.ImagePullPolicy, c.ImagePullSecret)
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		at := path.Join(v1alpha1.VolumesDir, v.Name)
		claimName, readOnly := claim(v)
		switch {
		case v.ContainerDisk != nil:
			c := v.ContainerDisk
			m.image(m.next(), at, c.Image, c.ImagePullPolicy, c.ImagePullSecret)
		case claimName != "":
			source := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName, ReadOnly: readOnly}}
			if !block[claimName] {
				m.guest(at, readOnly, source)
				continue
			}
			name := m.next()
			p.Volumes = append(p.Volumes, corev1.Volume{Name: name, VolumeSource: source})
			c := &p.Containers[0]
			c.VolumeDevices = append(c.VolumeDevices, corev1.VolumeDevice{Name: name, DevicePath: path.Join(v1alpha1.BlockVolumesDir, v.Name)})
		case v.ConfigMap != nil:
			m.guest(at, true, corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: v.ConfigMap.LocalObjectReference, Optional: v.ConfigMap.Optional,
			}})
		case v.Secret != nil:
			m.guest(at, true, corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: v.Secret.SecretName, Optional: v.Secret.Optional}})
		case v.EmptyDir != nil:
			m.guest(at, false, corev1.VolumeSource{EmptyDir: v.EmptyDir})
		}
		for _, s := range cloudInitSecrets(v) {
			m.secret(s)
		}
	}
	for _, a := range spec.AccessCredentials {
		if k := a.SSHPublicKey; k != nil && k.Source.Secret != nil {
			m.secret(k.Source.Secret.SecretName)
		}
	}
}

// claim is the name of a volume's claim, empty when it has none.
func claim(v *v1alpha1.Volume) (name string, readOnly bool) {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName, v.PersistentVolumeClaim.ReadOnly
	case v.DataVolume != nil:
		return v.DataVolume.Name, false
	}
	return "", false
}

func cloudInitSecrets(v *v1alpha1.Volume) []string {
	var names []string
	for _, source := range []*v1alpha1.CloudInitSource{v.CloudInitNoCloud, v.CloudInitConfigDrive} {
		if source == nil {
			continue
		}
		for _, ref := range []*corev1.LocalObjectReference{source.UserDataSecretRef, source.NetworkDataSecretRef} {
			if ref != nil {
				names = append(names, ref.Name)
			}
		}
	}
	return names
}

func kernelContainer(spec *v1alpha1.VirtualMachineInstanceSpec) *v1alpha1.KernelBootContainer {
	if f := spec.Domain.Firmware; f != nil && f.KernelBoot != nil {
		return f.KernelBoot.Container
	}
	return nil
}

// launcherSpec is the spec as the launcher in this pod shall read it: without what
// only placed the pod, with paths in the container, and with the names by which
// the guest is known over restarts.
func launcherSpec(vmi *v1alpha1.VirtualMachineInstance, spec *v1alpha1.VirtualMachineInstanceSpec) *v1alpha1.VirtualMachineInstanceSpec {
	s := spec.DeepCopy()
	s.NodeSelector, s.Affinity, s.Tolerations, s.TopologySpreadConstraints = nil, nil, nil, nil
	s.SchedulerName, s.PriorityClassName = "", ""
	s.EvictionStrategy, s.ReadinessProbe, s.LivenessProbe = "", nil, nil
	if s.Hostname == "" {
		s.Hostname = vmi.Name
	}
	if s.Domain.Firmware == nil {
		s.Domain.Firmware = &v1alpha1.Firmware{}
	}
	if s.Domain.Firmware.UUID == "" {
		uid := vmi.UID
		if owner := metav1.GetControllerOf(vmi); owner != nil {
			uid = owner.UID
		}
		s.Domain.Firmware.UUID = string(uid)
	}
	if c := kernelContainer(s); c != nil {
		*c = v1alpha1.KernelBootContainer{KernelPath: path.Join(KernelDir, c.KernelPath), InitrdPath: c.InitrdPath}
		if c.InitrdPath != "" {
			c.InitrdPath = path.Join(KernelDir, c.InitrdPath)
		}
	}
	return s
}
