package launcherpod

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/overhead"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
)

// ErrUnsupported is the class of errors about parts of a valid spec that the
// controller cannot put into a pod yet.
var ErrUnsupported = errors.New("not supported yet")

// Names in the pod.
const (
	// Container is the name of the launcher's container, KubeVirt's.
	Container = "compute"
	// LabelInstance is the label with the instance's name.
	LabelInstance = v1alpha1.Group + "/instance"
	// LabelInstanceUID is the label with the instance's UID.
	LabelInstanceUID = v1alpha1.Group + "/instance-uid"

	// LauncherPath is the launcher in its image.
	LauncherPath = "/usr/bin/kubevfio-launcher"
	// KernelDir is where the kernel boot image is mounted.
	KernelDir = "/run/kubevfio-kernel"

	// user is libvirt-qemu's conventional number, that of the launcher image.
	user = int64(107)
	// defaultGrace is how long a guest may take to shut down, in seconds.
	defaultGrace = int64(30)
	// graceMargin is what the launcher may need after the guest's grace period
	// to end QEMU and write its last word, in seconds.
	graceMargin = int64(15)
)

// Options are what the installation decides.
type Options struct {
	// Image of the launcher.
	Image string
	// PullPolicy of the launcher image; the API server's default when empty.
	PullPolicy corev1.PullPolicy
	// CPUMillisPerVCPU is requested for each vCPU that has no CPU of its own.
	// 100 (KubeVirt's ratio) when 0.
	CPUMillisPerVCPU int64
}

// Name of the pod of an instance's n-th attempt: the same for equal arguments.
func Name(vmi *v1alpha1.VirtualMachineInstance, attempt int32) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", vmi.UID, attempt))
	name := vmi.Name
	// Room for the hash within a label's 63 characters: the host name is made
	// of the pod's.
	if len(name) > 52 {
		name = strings.TrimRight(name[:52], "-.")
	}
	return name + "-" + hex.EncodeToString(sum[:5])
}

// GracePeriod is how long kubelet shall wait for the launcher when the guest may
// take guest seconds; nil is the spec's own period.
func GracePeriod(spec *v1alpha1.VirtualMachineInstanceSpec, guest *int64) int64 {
	g := defaultGrace
	switch {
	case guest != nil:
		g = *guest
	case spec.TerminationGracePeriodSeconds != nil:
		g = *spec.TerminationGracePeriodSeconds
	}
	if g <= 0 {
		// 0 would let the API server drop the pod at once, while its guest still
		// holds the devices.
		return 1
	}
	return g + graceMargin
}

// Situation is what a pod depends on beside its instance.
type Situation struct {
	// Attempt counts the instance's pods from 1.
	Attempt int32
	// Avoid are nodes that refused earlier pods.
	Avoid []string
	// BlockClaims are the claims of [Claims] whose volume mode is Block.
	BlockClaims map[string]bool
	// Standby makes the launcher hold its devices and wait for a release before
	// it starts the guest.
	Standby bool
}

// Claims are the names of the claims that a spec's volumes use.
func Claims(spec *v1alpha1.VirtualMachineInstanceSpec) []string {
	var names []string
	for i := range spec.Volumes {
		if name, _ := claim(&spec.Volumes[i]); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Build makes the pod of an instance. Errors are of class [vmspec.ErrInvalid] or
// [ErrUnsupported] and name the field.
func Build(vmi *v1alpha1.VirtualMachineInstance, now Situation, o Options) (*corev1.Pod, error) {
	spec := vmi.Spec.DeepCopy()
	if err := vmspec.Validate(spec); err != nil {
		return nil, err
	}
	if err := supported(spec); err != nil {
		return nil, err
	}
	resources, err := resourcesOf(spec, o)
	if err != nil {
		return nil, err
	}
	yes, no, uid := true, false, user
	grace := GracePeriod(spec, nil)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        Name(vmi, now.Attempt),
			Namespace:   vmi.Namespace,
			Labels:      maps.Clone(vmi.Labels),
			Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(vmi, v1alpha1.GroupVersion.WithKind("VirtualMachineInstance")),
			},
		},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: &grace,
			AutomountServiceAccountToken:  &no,
			EnableServiceLinks:            &no,
			Hostname:                      spec.Hostname,
			Subdomain:                     spec.Subdomain,
			SchedulerName:                 spec.SchedulerName,
			PriorityClassName:             spec.PriorityClassName,
			NodeSelector:                  spec.NodeSelector,
			Affinity:                      avoidNodes(spec.Affinity, now.Avoid),
			Tolerations:                   spec.Tolerations,
			TopologySpreadConstraints:     spec.TopologySpreadConstraints,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes,
				RunAsUser:    &uid,
				RunAsGroup:   &uid,
				FSGroup:      &uid,
				SeccompProfile: &corev1.SeccompProfile{
					Type:             corev1.SeccompProfileTypeLocalhost,
					LocalhostProfile: new(v1alpha1.SeccompProfile),
				},
			},
			Containers: []corev1.Container{{
				Name:                     Container,
				Image:                    o.Image,
				ImagePullPolicy:          o.PullPolicy,
				TerminationMessagePolicy: corev1.TerminationMessageReadFile,
				Resources:                resources,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no,
					ReadOnlyRootFilesystem:   &yes,
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
	addProbes(&pod.Spec.Containers[0], spec)
	if now.Standby {
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: launcherrpcv1.EnvStandby, Value: "true"}}
	}
	if pod.Spec.SchedulerName == "" {
		pod.Spec.SchedulerName = v1alpha1.SchedulerName
	}
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[LabelInstance], pod.Labels[LabelInstanceUID] = labelValue(vmi.Name), string(vmi.UID)
	copyAnnotations(pod.Annotations, vmi.Annotations)
	if a := spec.Domain.Devices.Alignment; a != "" {
		pod.Annotations[v1alpha1.AlignmentAnnotation] = a
	}
	addVolumes(&pod.Spec, spec, now.BlockClaims)
	text, err := yaml.Marshal(launcherSpec(vmi, spec))
	if err != nil {
		return nil, fmt.Errorf("encode the spec: %w", err)
	}
	pod.Annotations[v1alpha1.VMAnnotation] = string(text)
	return pod, nil
}

// supported refuses what cannot be put into a pod yet.
func supported(spec *v1alpha1.VirtualMachineInstanceSpec) error {
	for i := range spec.Volumes {
		if c := spec.Volumes[i].ContainerDisk; c != nil && c.Image == "" {
			return vmspec.Errorf(fmt.Sprintf("spec.volumes[%d].containerDisk.image", i), "is empty: it may be so in a plain pod only")
		}
	}
	for _, r := range vmspec.Requests(spec) {
		if r.Resource == "" {
			return fmt.Errorf("%w: %s: name the resource in sriov.deviceName; finding it by a Multus network", ErrUnsupported, r.Field())
		}
	}
	for i, n := range spec.Networks {
		if n.Multus != nil {
			return fmt.Errorf("%w: spec.networks[%d].multus: only the pod network", ErrUnsupported, i)
		}
	}
	if kb := spec.Domain.Firmware; kb != nil && kb.KernelBoot != nil && kb.KernelBoot.Container != nil && kb.KernelBoot.Container.Image == "" {
		return vmspec.Errorf("spec.domain.firmware.kernelBoot.container.image", "is empty: it may be so in a plain pod only")
	}
	return nil
}

// Overhead is the memory in bytes that the pod needs beyond the guest's own, as
// far as the spec tells. Errors are of class [vmspec.ErrInvalid].
func Overhead(spec *v1alpha1.VirtualMachineInstanceSpec) (int64, error) {
	in, err := overhead.FromSpec(spec)
	if err != nil {
		return 0, err
	}
	return int64(overhead.Total(overhead.Items(in))), nil
}

// resourcesOf are the container's requests and limits.
func resourcesOf(spec *v1alpha1.VirtualMachineInstanceSpec, o Options) (corev1.ResourceRequirements, error) {
	var none corev1.ResourceRequirements
	vcpus, err := vmspec.VCPUs(spec)
	if err != nil {
		return none, err
	}
	guest, err := vmspec.MemoryBytes(spec)
	if err != nil {
		return none, err
	}
	huge, err := vmspec.HugepageBytes(spec)
	if err != nil {
		return none, err
	}
	extra, err := Overhead(spec)
	if err != nil {
		return none, err
	}

	limits := corev1.ResourceList{v1alpha1.ResourceKVM: resource.MustParse("1")}
	for _, r := range vmspec.Requests(spec) {
		n := limits[corev1.ResourceName(r.Resource)]
		n.Add(resource.MustParse("1"))
		limits[corev1.ResourceName(r.Resource)] = n
	}
	memory := extra
	if huge > 0 {
		limits[corev1.ResourceName(corev1.ResourceHugePagesPrefix+spec.Domain.Memory.Hugepages.PageSize)] =
			*resource.NewQuantity(int64(guest), resource.BinarySI)
	} else {
		memory += int64(guest)
	}
	// The owner may ask for more room, never for less than the guest needs.
	for _, list := range []corev1.ResourceList{spec.Domain.Resources.Requests, spec.Domain.Resources.Limits} {
		if q, ok := list[corev1.ResourceMemory]; ok && spec.Domain.Memory != nil && spec.Domain.Memory.Guest != nil {
			memory = max(memory, q.Value())
		}
	}
	// Passed-through devices pin all memory and the lock limit follows the memory
	// limit: request and limit are the same. Whole MiB read better.
	const mib = int64(vmspec.MiB)
	limits[corev1.ResourceMemory] = *resource.NewQuantity((memory+mib-1)/mib*mib, resource.BinarySI)

	requests := corev1.ResourceList{}
	dedicated := spec.Domain.CPU != nil && spec.Domain.CPU.DedicatedCPUPlacement
	switch cpu, asked := spec.Domain.Resources.Requests[corev1.ResourceCPU]; {
	case dedicated:
		n := int64(vcpus)
		if spec.Domain.CPU.IsolateEmulatorThread {
			n++
		}
		limits[corev1.ResourceCPU] = *resource.NewQuantity(n, resource.DecimalSI)
	case asked:
		requests[corev1.ResourceCPU] = cpu
	default:
		per := o.CPUMillisPerVCPU
		if per == 0 {
			per = 100
		}
		requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(per*int64(vcpus), resource.DecimalSI)
	}
	if cpu, ok := spec.Domain.Resources.Limits[corev1.ResourceCPU]; ok && !dedicated {
		limits[corev1.ResourceCPU] = cpu
	}
	// Explicit, for people: the API server would add them anyway.
	for name, q := range limits {
		if _, ok := requests[name]; !ok {
			requests[name] = q.DeepCopy()
		}
	}
	return corev1.ResourceRequirements{Requests: requests, Limits: limits}, nil
}

// copyAnnotations copies the owner's annotations except those that mean something
// on a pod of ours, and kubectl's.
func copyAnnotations(to, from map[string]string) {
	for k, v := range from {
		switch {
		case strings.HasPrefix(k, v1alpha1.Group+"/"), strings.HasPrefix(k, "kubectl.kubernetes.io/"):
		default:
			to[k] = v
		}
	}
}

func labelValue(s string) string {
	if len(s) > 63 {
		s = strings.TrimRight(s[:63], "-.")
	}
	return s
}

// avoidNodes adds "not on these nodes" to an affinity.
func avoidNodes(a *corev1.Affinity, nodes []string) *corev1.Affinity {
	if len(nodes) == 0 {
		return a
	}
	a = a.DeepCopy()
	if a == nil {
		a = &corev1.Affinity{}
	}
	if a.NodeAffinity == nil {
		a.NodeAffinity = &corev1.NodeAffinity{}
	}
	na := a.NodeAffinity
	if na.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		na.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{}
	}
	terms := &na.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(*terms) == 0 {
		*terms = []corev1.NodeSelectorTerm{{}}
	}
	// Terms are alternatives: each gets the condition.
	for i := range *terms {
		(*terms)[i].MatchFields = append((*terms)[i].MatchFields, notThese(nodes)...)
	}
	return a
}

// notThese is one requirement per node: matchFields takes one value each.
func notThese(nodes []string) []corev1.NodeSelectorRequirement {
	var rs []corev1.NodeSelectorRequirement
	for _, n := range nodes {
		rs = append(rs, corev1.NodeSelectorRequirement{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpNotIn, Values: []string{n}})
	}
	return rs
}
