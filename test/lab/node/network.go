package main

import (
	"bytes"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kubevfio/kubevfio/test/lab/nodeapi"
)

// setupNetwork gives the node's own network card its address and routes. The other cards are the node's devices: they
// belong to whoever the test gives them to.
func setupNetwork(cfg nodeapi.Config) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	link, err := linkByMAC(cfg.MAC)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(cfg.Address)
	if err != nil {
		return fmt.Errorf("address %q: %w", cfg.Address, err)
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("address %s: %w", cfg.Address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("network card %s: %w", cfg.MAC, err)
	}
	routes := map[string]string{"0.0.0.0/0": cfg.Gateway}
	for dst, via := range cfg.Routes {
		routes[dst] = via
	}
	for dst, via := range routes {
		_, ipnet, err := net.ParseCIDR(dst)
		if err != nil {
			return fmt.Errorf("route to %q: %w", dst, err)
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipnet, Gw: net.ParseIP(via)}); err != nil {
			return fmt.Errorf("route to %s by %s: %w", dst, via, err)
		}
	}
	return nil
}

func linkByMAC(mac string) (netlink.Link, error) {
	want, err := net.ParseMAC(mac)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		links, err := netlink.LinkList()
		if err != nil {
			return nil, err
		}
		for _, l := range links {
			if bytes.Equal(l.Attrs().HardwareAddr, want) {
				return l, nil
			}
		}
	}
	return nil, fmt.Errorf("no network card with address %s", mac)
}
