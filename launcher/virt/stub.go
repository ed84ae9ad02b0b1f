//go:build !libvirt_dlopen || !cgo

package virt

import (
	"fmt"
	"io"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// Available says whether this build can drive libvirt.
const Available = false

// Conn is a connection to libvirt.
type Conn struct{}

// Guest is a domain.
type Guest struct{}

// Open always fails in a build without libvirt.
func Open(o Options) (*Conn, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: this binary was built without libvirt; build with CGO_ENABLED=1 -tags=libvirt_dlopen", ErrNotSupported)
}

// Versions fails.
func (*Conn) Versions() (Versions, error) { return Versions{}, ErrNotSupported }

// Create fails.
func (*Conn) Create(string) (*Guest, error) { return nil, ErrNotSupported }

// Lookup fails.
func (*Conn) Lookup(string) (*Guest, error) { return nil, ErrNotSupported }

// Close does nothing.
func (*Conn) Close() error { return nil }

// State fails.
func (*Guest) State() (State, error) { return "", ErrNotSupported }

// Do fails.
func (*Guest) Do(Action) error { return ErrNotSupported }

// XML fails.
func (*Guest) XML() (string, error) { return "", ErrNotSupported }

// Info fails.
func (*Guest) Info() (launcherrpcv1.GuestInfo, error) {
	return launcherrpcv1.GuestInfo{}, ErrNotSupported
}

// Screenshot fails.
func (*Guest) Screenshot(io.Writer) (string, error) { return "", ErrNotSupported }
