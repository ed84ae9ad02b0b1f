package scenario

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// guestPrefix starts every line of the guest's own report.
const guestPrefix = "KUBEVFIO-GUEST "

// Guest is what a guest said of itself on its console so far.
type Guest struct {
	// Ready: the guest's userspace came up.
	Ready bool
	// LSPCI are the guest's own lspci lines.
	LSPCI []string
	// PCI are the guest's PCI functions.
	PCI []GuestPCI
	// Net are its network interfaces.
	Net []GuestNet
	// PingSent and PingReceived are the last ping statistics.
	PingSent, PingReceived int
	// Passt is the guest's last word on its pod network card.
	Passt string
	// Ended says that the guest reported its own shutdown.
	Ended bool
	// Restarts counts how often it came up anew in the same pod; all above is of the
	// last time. LastWords is the end of the console before the last one.
	Restarts  int
	LastWords string

	lines []string
}

// GuestPCI is a PCI function in the guest.
type GuestPCI struct {
	Address string `json:"address"`
	// ID is vendor:device in hex.
	ID     string `json:"id"`
	Class  string `json:"class"`
	NUMA   int    `json:"numaNode"`
	Driver string `json:"driver"`
}

// GuestNet is a network interface in the guest.
type GuestNet struct {
	Name, MAC, Driver, PCI string
}

// Read takes one console line in; lines that are not of the report are only
// kept for [Guest.Tail].
func (g *Guest) Read(line string) {
	line = strings.TrimRight(line, "\r\n")
	defer func() { g.lines = append(g.lines, line) }()
	// Kernel messages may have been printed before the report on one line.
	_, rest, ok := strings.Cut(line, guestPrefix)
	if !ok {
		return
	}
	word, args, _ := strings.Cut(rest, " ")
	switch word {
	case "ready":
		if g.Ready {
			*g = Guest{Restarts: g.Restarts + 1, LastWords: g.Tail(20), lines: g.lines}
		}
		g.Ready = true
	case "lspci":
		g.LSPCI = append(g.LSPCI, args)
	case "pci":
		f := strings.Fields(args)
		if len(f) < 2 {
			return
		}
		kv := keyValues(f[2:])
		numa, err := strconv.Atoi(kv["numa"])
		if err != nil {
			numa = -1
		}
		g.PCI = append(g.PCI, GuestPCI{Address: f[0], ID: f[1], Class: kv["class"], NUMA: numa, Driver: kv["driver"]})
	case "net":
		f := strings.Fields(args)
		if len(f) < 1 {
			return
		}
		kv := keyValues(f[1:])
		g.Net = append(g.Net, GuestNet{Name: f[0], MAC: kv["mac"], Driver: kv["driver"], PCI: kv["pci"]})
	case "ping":
		kv := keyValues(strings.Fields(args))
		if n, err := strconv.Atoi(kv["received"]); err == nil {
			g.PingReceived = n
		}
		if n, err := strconv.Atoi(kv["sent"]); err == nil {
			g.PingSent = n
		}
	case "passt":
		g.Passt = args
	case "shutdown", "poweroff":
		g.Ended = true
	}
}

// WithID returns the guest's functions of the given vendor:device.
func (g *Guest) WithID(id string) []GuestPCI {
	return slices.DeleteFunc(slices.Clone(g.PCI), func(p GuestPCI) bool { return p.ID != id })
}

// MACOf returns the MAC address of the interface on a PCI function of the guest.
func (g *Guest) MACOf(address string) string {
	for _, n := range g.Net {
		if n.PCI == address {
			return n.MAC
		}
	}
	return ""
}

// Tail returns the last n console lines.
func (g *Guest) Tail(n int) string {
	return strings.Join(g.lines[max(0, len(g.lines)-n):], "\n")
}

// Contains says whether any console line so far contains the text.
func (g *Guest) Contains(text string) bool {
	return slices.ContainsFunc(g.lines, func(l string) bool { return strings.Contains(l, text) })
}

func keyValues(fields []string) map[string]string {
	kv := make(map[string]string, len(fields))
	for _, f := range fields {
		if k, v, ok := strings.Cut(f, "="); ok {
			kv[k] = v
		}
	}
	return kv
}

// vfLine matches a virtual function in the output of `ip link show PF`:
//
//	vf 0     link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff, spoof checking on …
var vfLine = regexp.MustCompile(`(?m)^\s*vf (\d+)\s+(?:link/ether|MAC)\s+([0-9a-f:]{17})`)

// VFMACs reads the output of `ip link show PF`: MAC address by VF index. This is
// what the physical function's driver holds, so it proves which virtual
// function a guest with that MAC really drives.
func VFMACs(ipLink string) map[int]string {
	macs := map[int]string{}
	for _, m := range vfLine.FindAllStringSubmatch(ipLink, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil {
			macs[n] = m[2]
		}
	}
	return macs
}

// HostVFMAC returns the MAC address that the physical function's driver on the
// node holds for the virtual function at a PCI address.
func HostVFMAC(ctx context.Context, nodes NodeExecer, node, address string) (string, error) {
	// physfn/virtfnN -> the VF; physfn/net/<name> is the PF's interface.
	script := `d=/sys/bus/pci/devices/` + address + `/physfn
for v in $d/virtfn*; do [ "$(basename "$(readlink "$v")")" = ` + address + ` ] && echo "index ${v##*virtfn}"; done
ip link show "$(ls $d/net | head -1)"`
	out, err := NodeOutput(ctx, nodes, node, "sh", "-c", script)
	if err != nil {
		return "", fmt.Errorf("VF %s on %s: %w", address, node, err)
	}
	first, _, _ := strings.Cut(out, "\n")
	index, err := strconv.Atoi(strings.TrimPrefix(first, "index "))
	if err != nil {
		return "", fmt.Errorf("VF %s on %s: no virtual function index in %q", address, node, out)
	}
	mac, ok := VFMACs(out)[index]
	if !ok {
		return "", fmt.Errorf("VF %s on %s: no MAC of VF %d in %q", address, node, index, out)
	}
	return mac, nil
}
