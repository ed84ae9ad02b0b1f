// Package netdev sets what a virtual function is allowed to do, through its
// physical function's network device on the host.
//
// It is for package agent. The agent's pod has a network of its own; the calls
// here go to the host's network namespace.
package netdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
	"github.com/kubevfio/kubevfio/deviceplugin/agentsocket"
)

// ErrNetlink is the class of errors of the kernel's network side.
var ErrNetlink = errors.New("host network device")

// Host speaks to the network namespace that a file stands for.
type Host struct {
	nsFile string
}

// NewHost makes a Host of a namespace file, normally /proc/1/ns/net.
func NewHost(nsFile string) *Host { return &Host{nsFile: nsFile} }

// with runs f with a handle on the host's namespace. Handles are not kept: calls
// are rare.
func (h *Host) with(f func(*netlink.Handle) error) error {
	ns, err := netns.GetFromPath(h.nsFile)
	if err != nil {
		return fmt.Errorf("%w: namespace %s: %w", ErrNetlink, h.nsFile, err)
	}
	defer ns.Close() //nolint:errcheck // only a descriptor
	nl, err := netlink.NewHandleAt(ns, syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNetlink, err)
	}
	defer nl.Close()
	return f(nl)
}

// Up brings a network device up; one that is up already is left alone.
func (h *Host) Up(name string) error {
	return h.with(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(name)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrNetlink, name, err)
		}
		if link.Attrs().Flags&net.FlagUp != 0 {
			return nil
		}
		if err := nl.LinkSetUp(link); err != nil {
			return fmt.Errorf("%w: bring %s up: %w", ErrNetlink, name, err)
		}
		return nil
	})
}

// SetVF applies the fields of r that are set; the first that fails ends it.
func (h *Host) SetVF(_ context.Context, vf agentsocket.VF, r *agentrpc.ConfigureVFRequest) error {
	return h.with(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(vf.PF)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrNetlink, vf.PF, err)
		}
		set := func(what string, f func() error) error {
			err := f()
			if errors.Is(err, syscall.EOPNOTSUPP) {
				return fmt.Errorf("%w: the driver of %s cannot set %s", agentsocket.ErrNotSupported, vf.PF, what)
			}
			if err != nil {
				return fmt.Errorf("%w: set %s: %w", ErrNetlink, what, err)
			}
			return nil
		}
		var steps []func() error
		if r.Trust != nil {
			steps = append(steps, func() error {
				return set("trust", func() error { return nl.LinkSetVfTrust(link, vf.Index, r.GetTrust()) })
			})
		}
		if r.Mac != nil {
			hw, err := net.ParseMAC(r.GetMac())
			if err != nil {
				return fmt.Errorf("%w: %w", ErrNetlink, err)
			}
			steps = append(steps, func() error {
				return set("MAC address", func() error { return nl.LinkSetVfHardwareAddr(link, vf.Index, hw) })
			})
		}
		if r.Vlan != nil {
			steps = append(steps, func() error {
				return set("VLAN", func() error { return nl.LinkSetVfVlanQos(link, vf.Index, int(r.GetVlan()), int(r.GetQos())) })
			})
		}
		if r.SpoofCheck != nil {
			steps = append(steps, func() error {
				return set("spoof check", func() error { return nl.LinkSetVfSpoofchk(link, vf.Index, r.GetSpoofCheck()) })
			})
		}
		if r.LinkState != nil {
			// The contract's values are the kernel's: auto, enable, disable.
			steps = append(steps, func() error {
				return set("link state", func() error { return nl.LinkSetVfState(link, vf.Index, uint32(r.GetLinkState())) })
			})
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
}
