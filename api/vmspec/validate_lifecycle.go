package vmspec

import (
	"slices"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// lifecycle checks what the controller does with the guest.
func (c *checker) lifecycle() {
	c.oneOf("spec.evictionStrategy", string(c.spec.EvictionStrategy), string(v1alpha1.EvictionColdMove), string(v1alpha1.EvictionNone))
	for i, a := range c.spec.AccessCredentials {
		c.access(at("spec.accessCredentials", i), a.SSHPublicKey)
	}
	c.probe("spec.readinessProbe", c.spec.ReadinessProbe)
	c.probe("spec.livenessProbe", c.spec.LivenessProbe)
	if p := c.spec.LivenessProbe; p != nil && p.SuccessThreshold > 1 {
		c.failf("spec.livenessProbe.successThreshold", "is %d, must be 1", p.SuccessThreshold)
	}
}

func (c *checker) access(field string, k *v1alpha1.SSHPublicKeyAccessCredential) {
	if field += ".sshPublicKey"; k == nil {
		c.failf(field, "is not set; it is the only kind of access credential")
		return
	}
	if k.Source.Secret == nil || !secretForm.MatchString(k.Source.Secret.SecretName) {
		c.failf(field+".source.secret.secretName", "is not the name of a Secret")
	}
	m := k.PropagationMethod
	if (m.NoCloud == nil) == (m.ConfigDrive == nil) {
		c.failf(field+".propagationMethod", "wants exactly one of noCloud and configDrive")
		return
	}
	if !slices.ContainsFunc(c.spec.Volumes, func(v v1alpha1.Volume) bool {
		return m.NoCloud != nil && v.CloudInitNoCloud != nil || m.ConfigDrive != nil && v.CloudInitConfigDrive != nil
	}) {
		c.failf(field+".propagationMethod", "needs a volume of that kind: noCloud a cloudInitNoCloud, configDrive a cloudInitConfigDrive")
	}
}

func (c *checker) probe(field string, p *v1alpha1.Probe) {
	if p == nil {
		return
	}
	for _, n := range []struct {
		name  string
		value int32
	}{
		{"initialDelaySeconds", p.InitialDelaySeconds},
		{"timeoutSeconds", p.TimeoutSeconds},
		{"periodSeconds", p.PeriodSeconds},
		{"successThreshold", p.SuccessThreshold},
		{"failureThreshold", p.FailureThreshold},
	} {
		if n.value < 0 {
			c.failf(field+"."+n.name, "is negative")
		}
	}
	if (p.TCPSocket == nil) == (p.HTTPGet == nil) {
		c.failf(field, "wants exactly one of tcpSocket and httpGet")
		return
	}
	var port int32
	if p.TCPSocket != nil {
		port, field = p.TCPSocket.Port, field+".tcpSocket.port"
	} else {
		c.oneOf(field+".httpGet.scheme", string(p.HTTPGet.Scheme), "HTTP", "HTTPS")
		port, field = p.HTTPGet.Port, field+".httpGet.port"
	}
	for _, i := range c.spec.Domain.Devices.Interfaces {
		if slices.ContainsFunc(i.Ports, func(open v1alpha1.Port) bool {
			return open.Port == port && (open.Protocol == "" || open.Protocol == "TCP")
		}) {
			return
		}
	}
	c.failf(field, "%d is not among the TCP ports of an interface: only listed ports lead to the guest", port)
}
