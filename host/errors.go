package host

import (
	"errors"

	"github.com/kubevfio/kubevfio/topology"
)

// Classes of refusals and failures of changes to the host. Each comes as a
// [ChangeError] that names the address and the reason.
var (
	// ErrInUse: somebody on the host uses the device; it may be free later.
	ErrInUse = errors.New("in use")
	// ErrProtected: the host itself lives on the device (root file system,
	// node address); KubeVFIO never takes it.
	ErrProtected = errors.New("protected")
	// ErrStuck: a write to sysfs has not returned. The device stays quarantined
	// until it does.
	ErrStuck = errors.New("stuck in the kernel")
	// ErrUnsupported: the device or kernel cannot do it.
	ErrUnsupported = errors.New("not supported")
	// ErrRefused: the kernel answered with an error or did something else; the
	// former state is restored as far as the reason says.
	ErrRefused = errors.New("refused by the kernel")
)

// ChangeError is a change that was refused or failed.
type ChangeError struct {
	Address topology.Address
	// Class is one of the Err values above.
	Class  error
	Reason string
}

// Error implements error.
func (e *ChangeError) Error() string {
	return e.Address.String() + ": " + e.Class.Error() + ": " + e.Reason
}

// Unwrap gives the class.
func (e *ChangeError) Unwrap() error { return e.Class }

func refuse(a topology.Address, class error, reason string) error {
	return &ChangeError{Address: a, Class: class, Reason: reason}
}
