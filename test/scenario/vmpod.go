package scenario

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// VMPod says what a VM's pod is to have. It runs as the restricted Pod Security
// Standard wants it.
type VMPod struct {
	Namespace, Name, Node string
	// Spec is the annotation kubevfio.io/vm.
	Spec string
	// Limits are the container's limits beside memory and CPU: devices, huge pages.
	Limits map[string]string
	// Memory is the limit, 640Mi when empty. CPU is request and limit; when empty
	// the pod is not Guaranteed.
	Memory, CPU string
	// Args are the launcher's arguments; Command replaces its entry point.
	Args, Command []string
	Env           map[string]string
	// Volumes are mounted at the map's paths, block devices where BlockAt says.
	Volumes map[string]corev1.VolumeSource
	BlockAt map[string]corev1.VolumeSource
	// TTY gives the container a terminal that can be attached to.
	TTY bool
}

// Build makes the pod.
func (v VMPod) Build() *corev1.Pod {
	yes, no, user, grace := true, false, int64(v1alpha1.LauncherUser), int64(60)
	profile := v1alpha1.SeccompProfile
	limits := corev1.ResourceList{
		v1alpha1.ResourceKVM:  resource.MustParse("1"),
		corev1.ResourceMemory: resource.MustParse(orElse(v.Memory, "640Mi")),
		corev1.ResourceCPU:    resource.MustParse(orElse(v.CPU, "1")),
	}
	requests := corev1.ResourceList{}
	for r, q := range v.Limits {
		limits[corev1.ResourceName(r)] = resource.MustParse(q)
	}
	if v.CPU == "" {
		requests[corev1.ResourceCPU] = resource.MustParse("100m")
	}
	c := corev1.Container{
		Name: Container, Image: "localhost/kubevfio/launcher:dev", ImagePullPolicy: corev1.PullIfNotPresent,
		Args: v.Args, Command: v.Command, Stdin: v.TTY, TTY: v.TTY,
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		Resources:                corev1.ResourceRequirements{Limits: limits, Requests: requests},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
	for k, val := range v.Env {
		c.Env = append(c.Env, corev1.EnvVar{Name: k, Value: val})
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v.Namespace, Name: v.Name,
			Annotations: map[string]string{v1alpha1.VMAnnotation: v.Spec},
		},
		Spec: corev1.PodSpec{
			SchedulerName: v1alpha1.SchedulerName, RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &grace,
			AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user, FSGroup: &user,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &profile},
			},
			Containers: []corev1.Container{c},
		},
	}
	if v.Node != "" {
		p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": v.Node}
	}
	v.mount(&p.Spec)
	return p
}

// mount adds the volumes that every VM's pod has, and those of v.
func (v VMPod) mount(p *corev1.PodSpec) {
	field := func(path, of string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path, FieldRef: &corev1.ObjectFieldSelector{FieldPath: of}}
	}
	at := map[string]corev1.VolumeSource{
		v1alpha1.PodInfoDir: {DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			field("assignment", "metadata.annotations['"+v1alpha1.AssignmentAnnotation+"']"),
			field("vm", "metadata.annotations['"+v1alpha1.VMAnnotation+"']"),
			field("uid", "metadata.uid"), field("name", "metadata.name"), field("namespace", "metadata.namespace"),
		}}},
		v1alpha1.LauncherRunDir: {EmptyDir: &corev1.EmptyDirVolumeSource{}},
		"/guest":                {Image: &corev1.ImageVolumeSource{Reference: "localhost/kubevfio/guest:dev", PullPolicy: corev1.PullIfNotPresent}},
	}
	maps.Copy(at, v.Volumes)
	c := &p.Containers[0]
	for path, source := range at {
		name := volumeName(path)
		p.Volumes = append(p.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path})
	}
	for path, source := range v.BlockAt {
		name := volumeName(path)
		p.Volumes = append(p.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		c.VolumeDevices = append(c.VolumeDevices, corev1.VolumeDevice{Name: name, DevicePath: path})
	}
}

// volumeName makes a DNS label of a path.
func volumeName(path string) string {
	b := []byte("v")
	for _, r := range []byte(path) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b = append(b, r)
		} else {
			b = append(b, '-')
		}
	}
	return string(b) + "x"
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
