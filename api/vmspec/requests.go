package vmspec

import (
	"fmt"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// RequestKind is the list of the spec that a request comes from.
type RequestKind string

// The lists.
const (
	KindGPU        RequestKind = "gpus"
	KindHostDevice RequestKind = "hostDevices"
	KindInterface  RequestKind = "interfaces"
)

// Request is one entry of a spec that wants one isolation unit.
type Request struct {
	Kind RequestKind
	// Index in its list, and the entry's name.
	Index int
	Name  string
	// Resource is the resource name; empty for an interface that gets its
	// device by a Multus network.
	Resource string
}

// Field is the path of the entry.
func (r Request) Field() string {
	return fmt.Sprintf("spec.domain.devices.%s[%d]", r.Kind, r.Index)
}

// Requests are the units that a spec asks for, in the order in which the
// addresses of a resource are given to them: gpus, hostDevices, then interfaces
// with an sriov binding.
func Requests(spec *v1alpha1.VirtualMachineInstanceSpec) []Request {
	var rs []Request
	d := &spec.Domain.Devices
	for i := range d.GPUs {
		rs = append(rs, Request{KindGPU, i, d.GPUs[i].Name, d.GPUs[i].DeviceName})
	}
	for i := range d.HostDevices {
		rs = append(rs, Request{KindHostDevice, i, d.HostDevices[i].Name, d.HostDevices[i].DeviceName})
	}
	for i := range d.Interfaces {
		if s := d.Interfaces[i].SRIOV; s != nil {
			rs = append(rs, Request{KindInterface, i, d.Interfaces[i].Name, s.DeviceName})
		}
	}
	return rs
}
