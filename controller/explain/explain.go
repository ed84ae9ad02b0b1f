package explain

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/instance"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// Facts are the objects around one guest; any may be absent.
type Facts struct {
	VM  *v1alpha1.VirtualMachine
	VMI *v1alpha1.VirtualMachineInstance
	Pod *corev1.Pod
	// Events about the pod, oldest first.
	Events []Event
	// Nodes and Inventories of the cluster, by name.
	Nodes       map[string]*corev1.Node
	Inventories map[string]*v1alpha1.NodeInventory
	// Pods of the cluster, for who holds what.
	Pods []corev1.Pod
	// Usages say what pods hold that are not in Pods.
	Usages []v1alpha1.NodeUsage
}

// Event is what matters of an event.
type Event struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Report is the answer.
type Report struct {
	// OK: the guest runs and nothing is wrong.
	OK bool `json:"ok"`
	// Cause in one line.
	Cause string `json:"cause"`
	// Next is what to do; empty when there is nothing.
	Next string `json:"next,omitempty"`
	// Asked are the devices that the pod requests, by resource.
	Asked     map[string]int64 `json:"asked,omitempty"`
	Alignment string           `json:"alignment,omitempty"`
	// Nodes say what each has.
	Nodes []NodeFacts `json:"nodes,omitempty"`
	// Node is where the pod is; Assigned and Given by resource.
	Node     string              `json:"node,omitempty"`
	Assigned map[string][]string `json:"assigned,omitempty"`
	Given    map[string][]string `json:"given,omitempty"`
	// Launcher is how the launcher ended.
	Launcher *v1alpha1.LauncherOutcome `json:"launcher,omitempty"`
	// Events are the last warnings about the pod.
	Events []Event `json:"events,omitempty"`
}

// NodeFacts is one node as seen by the request.
type NodeFacts struct {
	Node string `json:"node"`
	// Units per resource that was asked for.
	Units map[string]Units `json:"units,omitempty"`
	// Lacks says why the node does not fit; empty when the counts are right.
	Lacks []string `json:"lacks,omitempty"`
	// Policy of kubelet's topology manager.
	Policy string `json:"policy,omitempty"`
}

// Units are counts of one resource on one node.
type Units struct {
	Total int `json:"total"`
	Ready int `json:"ready"`
	Free  int `json:"free"`
	// NotReady are the reasons, by address.
	NotReady map[string]string `json:"notReady,omitempty"`
}

// Explain looks at the facts.
func Explain(f Facts) Report {
	r := Report{}
	if f.Pod != nil {
		r.Asked, r.Alignment = asked(f.Pod), f.Pod.Annotations[v1alpha1.AlignmentAnnotation]
		r.Node = f.Pod.Spec.NodeName
		held, _ := instance.Held(f.Pod)
		if held.Assignment != nil {
			r.Assigned = map[string][]string{}
			for res, units := range held.Assignment.Containers[launcherpod.Container] {
				for _, u := range units {
					r.Assigned[res] = append(r.Assigned[res], u.String())
				}
			}
		}
		if held.Reported {
			r.Given = given(f.Pod)
		}
		r.Launcher = launcherSaid(f.Pod)
		r.Nodes = nodes(f, r.Asked)
		r.Events = f.Events[max(0, len(f.Events)-5):]
	}
	if r.Launcher == nil && f.VMI != nil {
		r.Launcher = f.VMI.Status.Outcome
	}
	r.Cause, r.Next, r.OK = cause(f, &r)
	return r
}

// cause walks the way of a VM and stops where it stands.
func cause(f Facts, r *Report) (why, next string, ok bool) {
	switch {
	case f.VM != nil && f.VMI == nil && f.Pod == nil:
		return withoutInstance(f.VM)
	case f.VMI != nil && f.Pod == nil && f.VMI.Status.Outcome != nil:
		return outcome(f.VMI.Status.Outcome)
	case f.Pod == nil && f.VMI != nil && len(f.VMI.Status.Refusals) > 0:
		return refusals(f.VMI) + "; another pod is made", refusedNext(f.VMI.Status.Refusals[0].Reason), false
	case f.Pod == nil && f.VMI != nil:
		if m := f.VMI.Status.Message; m != "" {
			return fmt.Sprintf("there is no pod: %s: %s", f.VMI.Status.Reason, m), "see the reason; the controller tries again", false
		}
		return "there is no pod yet", "is the controller running? kubectl -n " + v1alpha1.SystemNamespace + " get pods", false
	case f.Pod == nil:
		return "nothing was found", "check name and namespace", false
	}
	pod := f.Pod
	node := f.Nodes[pod.Spec.NodeName]
	switch {
	case pod.Status.Phase == corev1.PodFailed && r.Launcher == nil:
		return fmt.Sprintf("kubelet of node %s refused the pod: %s: %s", pod.Spec.NodeName, pod.Status.Reason, oneLine(pod.Status.Message)), refusedNext(pod.Status.Reason), false
	case r.Launcher != nil:
		return outcome(r.Launcher)
	case pod.Spec.NodeName == "" && f.VMI != nil && len(f.VMI.Status.Refusals) > 0:
		why, _, _ := unscheduled(f, r)
		return refusals(f.VMI) + "; elsewhere: " + why, refusedNext(f.VMI.Status.Refusals[0].Reason), false
	case pod.Spec.NodeName == "":
		return unscheduled(f, r)
	case node != nil && !nodeReady(node):
		return fmt.Sprintf("node %s is not ready", node.Name), "kubectl describe node " + node.Name, false
	}
	if why, next, found := container(f, pod); found {
		return why, next, false
	}
	if _, err := instance.Held(pod); err != nil {
		return err.Error(), "the pool's mode should be Strict; delete the pod to try again", false
	}
	for _, list := range r.Assigned {
		for _, address := range list {
			if why := notReady(f.Inventories[pod.Spec.NodeName], address); why != "" {
				return fmt.Sprintf("device %s on node %s is quarantined: %s", address, pod.Spec.NodeName, why),
					"move the guest: delete the pod, the scheduler leaves the device out", false
			}
		}
	}
	if m := moveOf(f.VMI); m != nil {
		return fmt.Sprintf("the guest is being moved away from node %s (%s): %s", m.From, m.Step, m.Message), "wait; kubectl uncordon " + m.From + " cancels a move that is being prepared", false
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == launcherpod.Container && c.State.Running != nil {
			if c.Ready || len(pod.Spec.Containers) > 0 && pod.Spec.Containers[0].ReadinessProbe == nil {
				return "the guest runs on node " + pod.Spec.NodeName, "", true
			}
			return "the launcher runs on node " + pod.Spec.NodeName + " but the guest does not yet, or it is paused", "kubectl logs " + pod.Name, false
		}
	}
	return "the pod is on node " + pod.Spec.NodeName + " and its container is being made", "wait; kubectl describe pod " + pod.Name, false
}

func withoutInstance(vm *v1alpha1.VirtualMachine) (why, next string, ok bool) {
	if f := vm.Status.StartFailure; f != nil && vm.Status.LastOutcome != nil {
		why, next, _ := outcome(vm.Status.LastOutcome)
		when := ""
		if f.RetryAfter != nil {
			when = ", next try at " + f.RetryAfter.UTC().Format("15:04:05Z")
		}
		return fmt.Sprintf("%s (%d failures in a row%s)", why, f.Count, when), next, false
	}
	for _, c := range vm.Status.Conditions {
		if c.Type == v1alpha1.ConditionFailure && c.Status == "True" {
			return c.Message, "see the message", false
		}
	}
	switch vm.Spec.RunStrategy {
	case v1alpha1.RunHalted:
		return "the machine is switched off (runStrategy Halted)", "kubectl vfio start " + vm.Name, false
	case v1alpha1.RunManual, v1alpha1.RunOnce:
		return fmt.Sprintf("the machine is not started (runStrategy %s)", vm.Spec.RunStrategy), "kubectl vfio start " + vm.Name, false
	}
	return "there is no instance yet", "is the controller running? kubectl -n " + v1alpha1.SystemNamespace + " get pods", false
}

// outcome says what an ended launcher means.
func outcome(o *v1alpha1.LauncherOutcome) (why, next string, ok bool) {
	where := ""
	if o.Field != "" {
		where = " (" + o.Field + ")"
	}
	if o.Address != "" {
		where += " (device " + o.Address + ")"
	}
	text := func(s string) string { return fmt.Sprintf("%s%s: %s", s, where, oneLine(o.Message)) }
	switch o.Reason {
	case launcherrpcv1.ReasonGuestShutdown, launcherrpcv1.ReasonStopped:
		return "the guest shut down by itself or on request: " + o.Message, "start it again if it should run", true
	case launcherrpcv1.ReasonForcedOff:
		return text("the guest did not shut down in its grace period and was switched off"), "give spec.terminationGracePeriodSeconds more time", false
	case launcherrpcv1.ReasonBadSpec, "InvalidSpec":
		return text("the VM's spec is wrong"), "correct the field; kubectl explain kvmi.spec", false
	case "NotSupported":
		return text("the VM's spec asks for something that is not supported"), "see docs/user/virtual-machines.md", false
	case launcherrpcv1.ReasonAssignment:
		return text("the devices in the container are not those that the scheduler chose"), "is schedulerName kubevfio-scheduler? are the policies installed? delete the pod to try again", false
	case launcherrpcv1.ReasonDeviceNotViable:
		return text("a device cannot be passed through"), "bind every member of its IOMMU group: see the node's inventory and the DevicePool", false
	case launcherrpcv1.ReasonMemoryLock:
		return text("the memory cannot be locked for the devices"), "is the agent running on the node? is the pod's memory limit at least the guest's memory?", false
	case launcherrpcv1.ReasonHostCannotHold:
		return text("the node cannot hold the guest"), "see huge pages per NUMA node: kubectl vfio topology node NAME", false
	case launcherrpcv1.ReasonQEMUOutOfMemory, "OOMKilled":
		return text("the pod used more memory than its limit"), "raise the memory limit of the pod or of spec.domain.resources", false
	case launcherrpcv1.ReasonQEMUDidNotStart:
		return text("QEMU did not start"), "kubectl logs the pod for QEMU's own words", false
	case launcherrpcv1.ReasonGuestPanicked:
		return text("the guest's kernel panicked"), "kubectl logs the pod: the guest's console", false
	case launcherrpcv1.ReasonQEMUDied:
		return text("QEMU died while the guest ran"), "kubectl logs the pod", false
	case "Evicted":
		return text("the pod was evicted"), "see why the node was emptied: kubectl describe node", false
	case "PodDeleted":
		return text("the pod was deleted under the guest"), "look for who deletes pods: drain, eviction, people", false
	}
	return fmt.Sprintf("the launcher ended with exit code %d, %s", o.ExitCode, text(o.Reason)), "kubectl logs the pod", false
}

func refusedNext(reason string) string {
	switch reason {
	case "TopologyAffinityError":
		return "kubelet's topology policy found no common NUMA node; use kubevfio-scheduler, which predicts it"
	case "UnexpectedAdmissionError":
		return "the device plugin refused or was not back after a restart; a VirtualMachine is retried, a plain pod must be made again"
	}
	return "a VirtualMachine is retried on another node, a plain pod must be made again"
}

// container finds why a scheduled pod's container does not run.
func container(f Facts, pod *corev1.Pod) (why, next string, found bool) {
	for _, c := range pod.Status.ContainerStatuses {
		w := c.State.Waiting
		if w == nil {
			continue
		}
		switch w.Reason {
		case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName":
			return fmt.Sprintf("image %s cannot be had on node %s: %s", imageOf(w.Message, c.Image), pod.Spec.NodeName, oneLine(w.Message)), "check the image's name and the node's access to its registry", true
		case "CreateContainerError", "CreateContainerConfigError", "RunContainerError":
			next := "kubectl describe pod " + pod.Name
			if strings.Contains(w.Message, "seccomp") {
				next = "the agent installs the seccomp profile: is it running on the node?"
			}
			return fmt.Sprintf("the container cannot be made on node %s: %s", pod.Spec.NodeName, oneLine(w.Message)), next, true
		}
	}
	for i := len(f.Events) - 1; i >= 0; i-- {
		switch e := f.Events[i]; e.Reason {
		case "FailedMount", "FailedPreStartHook", "FailedCreatePodSandBox":
			if pod.Status.Phase == corev1.PodPending {
				return fmt.Sprintf("node %s: %s: %s", pod.Spec.NodeName, e.Reason, oneLine(e.Message)), "kubectl describe pod " + pod.Name, true
			}
		}
	}
	return "", "", false
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func notReady(inv *v1alpha1.NodeInventory, address string) string {
	if inv == nil {
		return ""
	}
	for _, u := range inv.Spec.Units {
		if u.ID == address {
			return u.NotReady
		}
	}
	return ""
}

// launcherSaid is the end of the launcher's container, nil while it has none.
func launcherSaid(pod *corev1.Pod) *v1alpha1.LauncherOutcome {
	for i := range pod.Status.ContainerStatuses {
		if c := &pod.Status.ContainerStatuses[i]; c.Name == launcherpod.Container && c.State.Terminated != nil {
			o := instance.Outcome(pod)
			return &o
		}
	}
	return nil
}
