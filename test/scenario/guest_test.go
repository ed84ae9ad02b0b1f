package scenario

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestGuestRead(t *testing.T) {
	console := []string{
		"[    4.1] igbvf: some kernel text",
		"KUBEVFIO-GUEST ready\r",
		"KUBEVFIO-GUEST lspci 41:00.0 Ethernet controller [0200]: Intel Corporation 82576 Virtual Function [8086:10ca] (rev 01)",
		"[    5.0] noise KUBEVFIO-GUEST pci 0000:41:00.0 8086:10ca class=020000 numa=1 driver=igbvf",
		"KUBEVFIO-GUEST pci 0000:00:01.0 1af4:1041 class=020000 numa=-1 driver=",
		"KUBEVFIO-GUEST net eth0 mac=02:00:00:00:00:01 driver=igbvf pci=0000:41:00.0",
		"KUBEVFIO-GUEST ping sent=3 received=2 avg_ms=7",
		"KUBEVFIO-GUEST ping sent=5 received=4 avg_ms=7",
		"KUBEVFIO-GUEST pci broken",
	}
	var g Guest
	for _, l := range console {
		g.Read(l)
	}
	want := Guest{
		Ready: true,
		LSPCI: []string{"41:00.0 Ethernet controller [0200]: Intel Corporation 82576 Virtual Function [8086:10ca] (rev 01)"},
		PCI: []GuestPCI{
			{Address: "0000:41:00.0", ID: "8086:10ca", Class: "020000", NUMA: 1, Driver: "igbvf"},
			{Address: "0000:00:01.0", ID: "1af4:1041", Class: "020000", NUMA: -1},
		},
		Net:      []GuestNet{{Name: "eth0", MAC: "02:00:00:00:00:01", Driver: "igbvf", PCI: "0000:41:00.0"}},
		PingSent: 5, PingReceived: 4,
	}
	if d := cmp.Diff(want, g, cmpopts.IgnoreUnexported(Guest{})); d != "" {
		t.Errorf("guest (-want +got):\n%s", d)
	}
	if got := g.MACOf("0000:41:00.0"); got != "02:00:00:00:00:01" {
		t.Errorf("MACOf = %q", got)
	}
	if got := len(g.WithID("8086:10ca")); got != 1 {
		t.Errorf("WithID found %d functions, want 1", got)
	}
}

// What a guest said before it restarted is not what it says of itself now.
func TestGuestRestarted(t *testing.T) {
	g := &Guest{}
	for _, line := range []string{
		"KUBEVFIO-GUEST ready", "KUBEVFIO-GUEST pci 0000:41:00.0 8086:10ca class=020000 numa=0 driver=igbvf", "Kernel panic",
		"firmware", "KUBEVFIO-GUEST ready", "KUBEVFIO-GUEST pci 0000:42:00.0 8086:10ca class=020000 numa=0 driver=igbvf",
	} {
		g.Read(line)
	}
	if g.Restarts != 1 || !g.Ready || len(g.PCI) != 1 || g.PCI[0].Address != "0000:42:00.0" {
		t.Errorf("restarts %d, ready %t, functions %v", g.Restarts, g.Ready, g.PCI)
	}
	if !strings.HasSuffix(g.LastWords, "Kernel panic\nfirmware") {
		t.Errorf("last words %q", g.LastWords)
	}
	if got := g.Tail(1); !strings.Contains(got, "42:00.0") {
		t.Errorf("tail %q", got)
	}
}

func TestVFMACs(t *testing.T) {
	out := `3: eth1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc mq state UP mode DEFAULT group default qlen 1000
    link/ether 52:54:00:12:34:57 brd ff:ff:ff:ff:ff:ff
    vf 0     link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff, spoof checking on, link-state auto, trust off
    vf 1     link/ether 02:00:00:00:00:02 brd ff:ff:ff:ff:ff:ff, spoof checking on, link-state auto, trust off
`
	want := map[int]string{0: "02:00:00:00:00:01", 1: "02:00:00:00:00:02"}
	if d := cmp.Diff(want, VFMACs(out)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzGuestRead(f *testing.F) {
	f.Add("KUBEVFIO-GUEST pci 0000:41:00.0 8086:10ca class=020000 numa=1 driver=igbvf")
	f.Add("KUBEVFIO-GUEST ping sent=x received=")
	f.Fuzz(func(t *testing.T, line string) {
		var g Guest
		g.Read(line)
		if len(g.lines) != 1 || len(g.PCI)+len(g.Net)+len(g.LSPCI) > 1 {
			t.Errorf("one line gave %d lines, %d functions, %d interfaces: %q", len(g.lines), len(g.PCI), len(g.Net), line)
		}
	})
}
