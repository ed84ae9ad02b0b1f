package domain

import (
	"errors"
	"fmt"

	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/topology"
)

// Classes of errors.
var (
	// ErrSpec: no host could give what the spec asks, or its fields contradict
	// each other. Such errors are *[vmspec.Error] and name the field.
	ErrSpec = vmspec.ErrInvalid
	// ErrDevice: a device is not what it should be: not on this host, not the
	// number that was asked, of the wrong kind. Such errors are *[DeviceError].
	ErrDevice = errors.New("device not usable")
	// ErrHost: this host (or this build of libvirt) cannot hold the guest: too
	// few CPUs in the cpuset, too few address bits, no huge pages. Such errors
	// are *[HostError].
	ErrHost = errors.New("host cannot hold the guest")
)

// DeviceError is an error about one device; of class [ErrDevice].
type DeviceError struct {
	// Field is the entry of the spec, Address the PCI address where there is one.
	Field, Address string
	Detail         string
}

// Error implements error.
func (e *DeviceError) Error() string {
	if e.Address == "" {
		return e.Field + ": " + e.Detail
	}
	return fmt.Sprintf("%s: %s: %s", e.Field, e.Address, e.Detail)
}

// Is makes the class match.
func (e *DeviceError) Is(target error) bool { return target == ErrDevice }

// HostError is an error about what the host lacks; of class [ErrHost].
type HostError struct {
	// Field of the spec that needs what is lacking.
	Field  string
	Detail string
}

// Error implements error.
func (e *HostError) Error() string { return e.Field + ": " + e.Detail }

// Is makes the class match.
func (e *HostError) Is(target error) bool { return target == ErrHost }

func deviceErrorf(field string, a topology.Address, format string, args ...any) error {
	return &DeviceError{Field: field, Address: a.String(), Detail: fmt.Sprintf(format, args...)}
}

func hostErrorf(field, format string, args ...any) error {
	return &HostError{Field: field, Detail: fmt.Sprintf(format, args...)}
}
