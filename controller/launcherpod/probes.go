package launcherpod

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// addProbes wires kubelet's probes to the launcher's control socket.
//
// Ready means that the guest runs, or what the owner's own probe says. Live means
// that the launcher answers: its PID 1 starts again what died, so only one that
// has hung for ten minutes fails. With a probe of the owner's, a startup probe
// tells when the guest runs; it never ends a launcher, for a standby pod may wait
// as long as it has to.
func addProbes(c *corev1.Container, spec *v1alpha1.VirtualMachineInstanceSpec) {
	c.ReadinessProbe = &corev1.Probe{
		ProbeHandler:     ask("ready"),
		PeriodSeconds:    5,
		TimeoutSeconds:   10,
		FailureThreshold: 3,
	}
	c.LivenessProbe = &corev1.Probe{
		ProbeHandler:        ask("live"),
		InitialDelaySeconds: 30,
		PeriodSeconds:       30,
		TimeoutSeconds:      15,
		FailureThreshold:    20,
	}
	if spec.ReadinessProbe == nil && spec.LivenessProbe == nil {
		return
	}
	c.StartupProbe = &corev1.Probe{
		ProbeHandler:     ask("ready"),
		PeriodSeconds:    5,
		TimeoutSeconds:   10,
		FailureThreshold: math.MaxInt32,
	}
	if p := spec.ReadinessProbe; p != nil {
		c.ReadinessProbe = ofGuest(p)
	}
	if p := spec.LivenessProbe; p != nil {
		c.LivenessProbe = ofGuest(p)
	}
}

// ask is a question to the launcher.
func ask(what string) corev1.ProbeHandler {
	return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{LauncherPath, "probe", what}}}
}

// ofGuest asks a program in the guest, at the pod's address.
func ofGuest(p *v1alpha1.Probe) *corev1.Probe {
	probe := &corev1.Probe{
		InitialDelaySeconds: p.InitialDelaySeconds, TimeoutSeconds: p.TimeoutSeconds, PeriodSeconds: p.PeriodSeconds,
		SuccessThreshold: p.SuccessThreshold, FailureThreshold: p.FailureThreshold,
	}
	switch {
	case p.TCPSocket != nil:
		probe.TCPSocket = &corev1.TCPSocketAction{Port: intstr.FromInt32(p.TCPSocket.Port)}
	case p.HTTPGet != nil:
		probe.HTTPGet = &corev1.HTTPGetAction{
			Port: intstr.FromInt32(p.HTTPGet.Port), Path: p.HTTPGet.Path, Scheme: p.HTTPGet.Scheme, HTTPHeaders: p.HTTPGet.HTTPHeaders,
		}
	}
	return probe
}
