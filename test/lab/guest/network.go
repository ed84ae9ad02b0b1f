package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// network configures the interfaces as the kernel command line says, and reports what can be reached.
func (g *guest) network() {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo)
	}
	links := netInterfaces(g.sys)
	if vf, ok := pick(links, func(n netInterface) bool { return n.driver != "virtio_net" }); ok && g.options["ip"] != "" {
		g.virtualFunction(vf)
	} else if g.options["ip"] != "" {
		g.say("error ip: no network interface other than virtio ones")
	}
	if card, ok := pick(links, func(n netInterface) bool { return n.driver == "virtio_net" }); ok && g.options["passt"] != "off" {
		start := time.Now()
		if err := g.passt(card, start); err != nil {
			g.say("passt error=%q", err.Error())
		}
	}
	if target := g.options["tcp"]; target != "" {
		g.tcp(target)
	}
}

// pick answers the first interface that fits, one of driver igbvf before others.
func pick(links []netInterface, fits func(netInterface) bool) (netInterface, bool) {
	var found netInterface
	for _, n := range links {
		if fits(n) && (found.name == "" || (n.driver == "igbvf" && found.driver != "igbvf")) {
			found = n
		}
	}
	return found, found.name != ""
}

// virtualFunction gives the VF its address and starts to ping its peers.
func (g *guest) virtualFunction(n netInterface) {
	if err := setAddress(n.name, g.options["ip"]); err != nil {
		g.say("error ip: %v", err)
		return
	}
	g.say("ip %s %s", n.name, g.options["ip"])
	count := 0
	if c, err := strconv.Atoi(g.options["count"]); err == nil && c > 0 {
		count = c
	}
	for _, peer := range strings.Split(g.options["ping"], ",") {
		if peer == "" {
			continue
		}
		addr, err := netip.ParseAddr(peer)
		if err != nil {
			g.say("error ping: %v", err)
			continue
		}
		go g.pingPeer(addr, count)
	}
}

// setAddress gives an interface an address and brings it up.
func setAddress(name, cidr string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return fmt.Errorf("address %q: %w", cidr, err)
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, cidr, err)
	}
	return nil
}

// setGateway makes gateway the default route through an interface; it may lie outside of the interface's network.
func setGateway(name, gateway string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	gw := net.ParseIP(gateway)
	if gw == nil {
		return fmt.Errorf("gateway %q is no address", gateway)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw, Flags: int(netlink.FLAG_ONLINK)}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route to %s: %w", gateway, err)
	}
	return nil
}

// leaseFile is where the hook of the DHCP client leaves the gateway for us.
const leaseFile = "/run/lease"

// passt configures the virtio network card, by DHCP unless the command line has an address, and finds its gateway.
func (g *guest) passt(n netInterface, start time.Time) error {
	var address, gateway string
	if value := g.options["passt"]; value != "" && value != "dhcp" {
		var ok bool
		if address, gateway, ok = strings.Cut(value, ","); !ok {
			return fmt.Errorf("kubevfio.passt=%s: want ADDRESS/LENGTH,GATEWAY", value)
		}
		if err := setAddress(n.name, address); err != nil {
			return err
		}
		if err := setGateway(n.name, gateway); err != nil {
			return err
		}
	} else {
		link, err := netlink.LinkByName(n.name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", n.name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring %s up: %w", n.name, err)
		}
		dhcp := exec.Command("/bin/busybox", "udhcpc", "-i", n.name, "-n", "-q", "-f", "-t", "10", "-T", "1", "-s", "/bin/udhcpc-hook")
		if out, err := dhcp.CombinedOutput(); err != nil {
			return fmt.Errorf("no address by DHCP: %w: %s", err, lastLine(string(out)))
		}
		lease, err := os.ReadFile(leaseFile)
		if err != nil {
			return fmt.Errorf("no address by DHCP: %w", err)
		}
		f := strings.Fields(string(lease))
		if len(f) != 2 {
			return fmt.Errorf("DHCP gave no gateway: %q", lease)
		}
		address, gateway = f[0], f[1]
	}
	mac, err := neighbour(n.name, gateway, 5*time.Second)
	if err != nil {
		return err
	}
	g.say("passt ip=%s gateway=%s gateway_mac=%s ms=%d", address, gateway, mac, time.Since(start).Milliseconds())
	return nil
}

// dhcpHook is what the DHCP client calls: it configures the interface.
func dhcpHook(args []string, env func(string) string) error {
	if len(args) == 0 || (args[0] != "bound" && args[0] != "renew") {
		return nil
	}
	length := env("mask")
	if length == "" {
		length = "24"
	}
	address := env("ip") + "/" + length
	if err := setAddress(env("interface"), address); err != nil {
		return err
	}
	gateway, _, _ := strings.Cut(env("router"), " ")
	if gateway != "" {
		if err := setGateway(env("interface"), gateway); err != nil {
			return err
		}
	}
	return os.WriteFile(leaseFile, []byte(address+" "+gateway+"\n"), 0o644)
}

// neighbour makes the kernel look for the hardware address of a neighbour and answers it.
func neighbour(name, address string, limit time.Duration) (string, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return "", fmt.Errorf("interface %s: %w", name, err)
	}
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if c, err := net.Dial("udp", net.JoinHostPort(address, "9")); err == nil {
			_, _ = c.Write([]byte{0}) // the discard port: only the question for the hardware address matters
			_ = c.Close()
		}
		neighbours, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
		if err != nil {
			return "", fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range neighbours {
			if n.IP.String() == address && len(n.HardwareAddr) > 0 {
				return n.HardwareAddr.String(), nil
			}
		}
	}
	return "", fmt.Errorf("gateway %s does not answer", address)
}

// tcp reports whether a TCP connection comes about.
func (g *guest) tcp(target string) {
	start := time.Now()
	c, err := net.DialTimeout("tcp", target, 10*time.Second)
	if err != nil {
		g.say("tcp %s error=%q", target, err.Error())
		return
	}
	_ = c.Close()
	g.say("tcp %s ok ms=%d", target, time.Since(start).Milliseconds())
}

// pingPeer pings once a second until count replies came, for ever when count is 0, and reports after each.
func (g *guest) pingPeer(peer netip.Addr, count int) {
	p, err := newPinger(peer)
	if err != nil {
		g.say("error ping: %v", err)
		return
	}
	defer p.close()
	var sum time.Duration
	sent, received := 0, 0
	for count == 0 || received < count {
		sent++
		switch rtt, err := p.ping(time.Second); {
		case err == nil:
			received++
			sum += rtt
			g.say("ping sent=%d received=%d avg_ms=%.3f peer=%s", sent, received, float64(sum.Microseconds())/1000/float64(received), peer)
			time.Sleep(time.Second - min(rtt, time.Second))
		case errors.Is(err, errNoReply):
			g.say("ping sent=%d received=%d avg_ms=0 peer=%s", sent, received, peer)
		default:
			g.say("ping sent=%d received=%d avg_ms=0 peer=%s error=%q", sent, received, peer, err.Error())
			time.Sleep(time.Second)
		}
	}
	g.say("ping-done sent=%d received=%d avg_ms=%.3f peer=%s", sent, received, float64(sum.Microseconds())/1000/float64(received), peer)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndex(text, "\n")+1:]
}
