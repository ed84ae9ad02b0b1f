package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// refusedFor is how long after its start a refused pod is still news.
const refusedFor = 10 * time.Minute

// tellRefused says in an event why kubelet refused pods by itself, without
// asking us: after the node's or its own start it admits pods before the device
// plugins are back, and such a pod stays Failed.
func (a *Agent) tellRefused(told map[types.UID]bool) {
	var resources []string
	a.mu.Lock()
	for _, p := range a.served {
		resources = append(resources, p.Resource())
	}
	a.mu.Unlock()
	present := map[types.UID]bool{}
	for _, p := range a.pods.Objects() {
		present[p.UID] = true
		if told[p.UID] || p.Status.StartTime == nil || time.Since(p.Status.StartTime.Time) > refusedFor {
			continue
		}
		why := refusedAlone(p, resources)
		if why == "" {
			continue
		}
		told[p.UID] = true
		a.cfg.Log.Warn("kubelet refused a pod before the device plugins were there", "pod", p.Namespace+"/"+p.Name, "message", p.Status.Message)
		a.events.Event(&corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID,
		}, corev1.EventTypeWarning, "DeviceRefused", why)
	}
	for uid := range told {
		if !present[uid] {
			delete(told, uid)
		}
	}
}

// kubeletAlone are parts of what kubelet's device manager says when it refuses a
// pod without a call to the plugin (pkg/kubelet/cm/devicemanager/manager.go).
var kubeletAlone = [...]string{
	"no healthy devices present",
	"previously allocated devices are no longer healthy",
	"requested number of devices unavailable",
	"not registered",
}

// refusedAlone is the event's text, empty for a pod that kubelet did not refuse
// by itself for one of the resources.
func refusedAlone(p *corev1.Pod, resources []string) string {
	if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "UnexpectedAdmissionError" {
		return ""
	}
	if !slices.ContainsFunc(kubeletAlone[:], func(s string) bool { return strings.Contains(p.Status.Message, s) }) {
		return ""
	}
	for i := range p.Spec.Containers {
		for name := range p.Spec.Containers[i].Resources.Limits {
			if slices.Contains(resources, string(name)) && strings.Contains(p.Status.Message, string(name)) {
				return fmt.Sprintf("%s: kubelet refused the pod before the node's device plugins had registered, as after a start of the node or of kubelet; "+
					"it stays Failed: delete it and create it again (a VirtualMachine does this by itself). Kubelet said: %s", name, p.Status.Message)
			}
		}
	}
	return ""
}
