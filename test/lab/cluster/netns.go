package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bridges inside the lab's network namespace: the nodes' own network, and the wire that all SR-IOV cards hang on, so that
// VFs of different cards and nodes reach each other.
const (
	nodeBridge = "lab0"
	wireBridge = "wire0"
)

// setupNetwork makes the links of the lab. It runs in the lab's own network namespace, and with it they vanish.
func setupNetwork(machines []machine) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	for _, name := range []string{nodeBridge, wireBridge} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("bridge %s: %w", name, err)
		}
	}
	br, err := netlink.LinkByName(nodeBridge)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(gateway + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(br, addr); err != nil {
		return fmt.Errorf("address of %s: %w", nodeBridge, err)
	}
	for _, m := range machines {
		if err := addTap(m.tap(), nodeBridge); err != nil {
			return err
		}
		for pf := range PFsPerNode {
			if err := addTap(m.pfTap(pf), wireBridge); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{nodeBridge, wireBridge} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("bridge %s: %w", name, err)
		}
	}
	for _, m := range machines {
		_, dst, err := net.ParseCIDR(m.node.PodNet)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: br.Attrs().Index, Dst: dst, Gw: m.node.IP}); err != nil {
			return fmt.Errorf("route to %s: %w", m.node.PodNet, err)
		}
	}
	// Pods of one node may talk to the other nodes' by way of us when a test takes the direct route away.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil && !errors.Is(err, unix.EROFS) {
		return err
	}
	return nil
}

func addTap(name, bridge string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(tap); err != nil {
		return fmt.Errorf("tap %s: %w", name, err)
	}
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(link, br); err != nil {
		return fmt.Errorf("tap %s: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}
