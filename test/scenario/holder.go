package scenario

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Holder is a pod that takes devices and waits, without a guest: what a test of the
// hand-off needs, in seconds and not minutes.
type Holder struct {
	Namespace, Name string
	// Image waits for a signal, such as the lab's pause image.
	Image string
	// Resources are the devices by resource name.
	Resources map[string]string
	// CPU is what it asks for and may use at most, such as "900m". It bounds how many
	// start at a time: the container runtime of an emulated node does not start a
	// dozen. When empty it asks for 10m without a limit: within one of 10m the start
	// of the container itself takes minutes there.
	CPU string
	// Node binds it there past every scheduler, as a scheduler that knows nothing of
	// assignments would; else our scheduler places it.
	Node string
	// Alignment is the wish; preferred:numa when empty.
	Alignment string
}

// Build makes the pod.
func (h Holder) Build() *corev1.Pod {
	no, yes, grace := false, true, int64(1)
	list := corev1.ResourceList{
		// Less, and the start of the container itself runs out of memory.
		corev1.ResourceMemory: resource.MustParse("64Mi"),
	}
	for name, n := range h.Resources {
		list[corev1.ResourceName(name)] = resource.MustParse(n)
	}
	limits := maps.Clone(list)
	if h.CPU != "" {
		limits[corev1.ResourceCPU] = resource.MustParse(h.CPU)
		list[corev1.ResourceCPU] = resource.MustParse(h.CPU)
	} else {
		list[corev1.ResourceCPU] = resource.MustParse("10m")
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: h.Name, Namespace: h.Namespace},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, NodeName: h.Node,
			TerminationGracePeriodSeconds: &grace, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: Container, Image: h.Image, ImagePullPolicy: corev1.PullIfNotPresent,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				Resources: corev1.ResourceRequirements{Requests: list, Limits: limits},
			}},
		},
	}
	if h.Node == "" {
		if h.Alignment == "" {
			h.Alignment = "preferred:numa"
		}
		p.Spec.SchedulerName = v1alpha1.SchedulerName
		p.Annotations = map[string]string{v1alpha1.AlignmentAnnotation: h.Alignment}
	}
	return p
}

// Refused tells whether kubelet, or the agent through it, refused a pod because of
// its devices.
func Refused(p *corev1.Pod) bool {
	if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "UnexpectedAdmissionError" {
		return false
	}
	for i := range p.Status.ContainerStatuses {
		if s := &p.Status.ContainerStatuses[i].State; s.Running != nil || s.Terminated != nil && !s.Terminated.StartedAt.IsZero() {
			return false
		}
	}
	return true
}
