package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseOptions(t *testing.T) {
	got := parseOptions("console=ttyS0 kubevfio.ip=10.9.0.1/24  kubevfio.ping=10.9.0.2,10.9.0.3 kubevfio.passt panic=-1\n")
	want := map[string]string{"ip": "10.9.0.1/24", "ping": "10.9.0.2,10.9.0.3", "passt": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWantedModules(t *testing.T) {
	modules := parseManifest(`failover - 
net_failover failover 
virtio_net net_failover,failover virtio:d00000001v*
igbvf - pci:v00008086d000010CAsv*sd*bc*sc*i* pci:v00008086d00001520sv*sd*bc*sc*i*
broken
nvme nvme_core,nvme_auth pci:v*d*sv*sd*bc01sc08i02*
`)
	for name, c := range map[string]struct {
		devices []string
		want    []string
	}{
		"none":           {},
		"unknown device": {devices: []string{"pci:v00001234d000011E8sv00001AF4sd00001100bc00sc00i00"}},
		"vf":             {devices: []string{"pci:v00008086d000010CAsv00008086sd00000000bc02sc00i00"}, want: []string{"igbvf"}},
		"deps come first": {
			devices: []string{"virtio:d00000001v00001AF4"}, want: []string{"failover", "net_failover", "virtio_net"},
		},
		"by class": {
			devices: []string{"pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02"}, want: []string{"nvme_auth", "nvme_core", "nvme"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, wanted(modules, c.devices)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEcho(t *testing.T) {
	request := echoRequest(0x1234, 7, []byte("payload"))
	if got := checksum(request); got != 0 {
		t.Errorf("checksum over a packet with its checksum is %#x, want 0", got)
	}
	reply := append([]byte{}, request...)
	reply[0] = icmpEchoReply
	reply[2], reply[3] = 0, 0
	binary.BigEndian.PutUint16(reply[2:], checksum(reply))
	header := make([]byte, 24)
	header[0] = 0x46 // with one word of options
	packet := append(header, reply...)
	id, seq, ok := parseEchoReply(packet)
	if id != 0x1234 || seq != 7 || !ok {
		t.Errorf("parseEchoReply = %#x, %d, %t", id, seq, ok)
	}
	packet[len(packet)-1]++
	if _, _, ok := parseEchoReply(packet); ok {
		t.Error("a reply with a wrong checksum was taken")
	}
	header[0] = 0x45
	if _, _, ok := parseEchoReply(append(header[:20:20], request...)); ok {
		t.Error("a request was taken for a reply")
	}
}

func FuzzParseEchoReply(f *testing.F) {
	f.Add([]byte{0x45})
	f.Add(append(make([]byte, 20), echoRequest(1, 2, nil)...))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if _, _, ok := parseEchoReply(packet); ok && len(packet) < 28 {
			t.Errorf("a packet of %d bytes cannot be an echo reply", len(packet))
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add("a - x*\nb a y\n", "xyz")
	f.Fuzz(func(t *testing.T, manifest, device string) {
		seen := map[string]bool{}
		for _, name := range wanted(parseManifest(manifest), []string{device}) {
			if seen[name] {
				t.Errorf("%s comes twice", name)
			}
			seen[name] = true
		}
	})
}

func TestIsPowerPress(t *testing.T) {
	event := func(kind, code uint16, value uint32) []byte {
		b := make([]byte, inputEventSize)
		binary.LittleEndian.PutUint16(b[16:], kind)
		binary.LittleEndian.PutUint16(b[18:], code)
		binary.LittleEndian.PutUint32(b[20:], value)
		return b
	}
	for name, c := range map[string]struct {
		event []byte
		want  bool
	}{
		"press":       {event(evKey, keyPower, 1), true},
		"release":     {event(evKey, keyPower, 0), false},
		"other key":   {event(evKey, 28, 1), false},
		"synchronise": {event(0, 0, 0), false},
		"cut off":     {event(evKey, keyPower, 1)[:20], false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := isPowerPress(c.event); got != c.want {
				t.Errorf("isPowerPress = %t, want %t", got, c.want)
			}
		})
	}
}

func TestNodeMemory(t *testing.T) {
	if got := nodeMemory("Node 0 MemTotal:         386540 kB\nNode 0 MemFree:  1 kB\n"); got != 386540 {
		t.Errorf("nodeMemory = %d", got)
	}
	if got := nodeMemory("Node 0 MemTotal:"); got != 0 {
		t.Errorf("nodeMemory of a cut-off file = %d", got)
	}
}

// TestSysfs reads a machine with one VF and one virtio network card.
func TestSysfs(t *testing.T) {
	sys := t.TempDir()
	vf, nic := "devices/pci0000:40/0000:40:00.0/0000:41:00.0", "devices/pci0000:00/0000:00:01.0"
	for file, text := range map[string]string{
		vf + "/vendor": "0x8086\n", vf + "/device": "0x10ca\n", vf + "/class": "0x020000\n", vf + "/numa_node": "1\n",
		vf + "/net/eth0/address":  "02:00:00:00:00:01\n",
		nic + "/vendor":           "0x1af4\n",
		nic + "/device":           "0x1041\n",
		nic + "/class":            "0x020000\n",
		nic + "/numa_node":        "-1\n",
		nic + "/virtio0/modalias": "virtio:d00000001v00001AF4\n", nic + "/virtio0/net/eth1/address": "02:00:00:00:00:02\n",
		nic + "/modalias":          "pci:v00001AF4d00001041\n",
		"bus/virtio/drivers/x":     "",
		"class/net/lo/address":     "00:00:00:00:00:00\n",
		"devices/virtual/unused/a": "",
	} {
		path := filepath.Join(sys, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"bus/pci/devices/0000:41:00.0": vf,
		"bus/pci/devices/0000:00:01.0": nic,
		"bus/virtio/devices/virtio0":   nic + "/virtio0",
		vf + "/subsystem":              "bus/pci",
		nic + "/subsystem":             "bus/pci",
		nic + "/virtio0/subsystem":     "bus/virtio",
		vf + "/driver":                 "bus/pci/drivers/igbvf",
		nic + "/driver":                "bus/pci/drivers/virtio-pci",
		nic + "/virtio0/driver":        "bus/virtio/drivers/virtio_net",
		vf + "/net/eth0/device":        vf,
		nic + "/virtio0/net/eth1/device": nic +
			"/virtio0",
		"class/net/eth0": vf + "/net/eth0",
		"class/net/eth1": nic + "/virtio0/net/eth1",
	} {
		path := filepath.Join(sys, link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(sys, target), path); err != nil {
			t.Fatal(err)
		}
	}
	wantPCI := []pciFunction{
		{address: "0000:00:01.0", vendor: "1af4", device: "1041", class: "020000", driver: "virtio-pci", numa: -1},
		{address: "0000:41:00.0", vendor: "8086", device: "10ca", class: "020000", driver: "igbvf", numa: 1},
	}
	if diff := cmp.Diff(wantPCI, pciFunctions(sys), cmp.AllowUnexported(pciFunction{})); diff != "" {
		t.Error(diff)
	}
	wantNet := []netInterface{
		{name: "eth0", mac: "02:00:00:00:00:01", driver: "igbvf", pci: "0000:41:00.0"},
		{name: "eth1", mac: "02:00:00:00:00:02", driver: "virtio_net", pci: "0000:00:01.0"},
	}
	if diff := cmp.Diff(wantNet, netInterfaces(sys), cmp.AllowUnexported(netInterface{})); diff != "" {
		t.Error(diff)
	}
	wantAliases := []string{"pci:v00001AF4d00001041", "virtio:d00000001v00001AF4"}
	if diff := cmp.Diff(wantAliases, deviceAliases(sys)); diff != "" {
		t.Error(diff)
	}
}

func TestPick(t *testing.T) {
	links := []netInterface{{name: "eth0", driver: "virtio_net"}, {name: "eth1", driver: "e1000"}, {name: "eth2", driver: "igbvf"}}
	n, ok := pick(links, func(n netInterface) bool { return n.driver != "virtio_net" })
	if !ok || n.name != "eth2" {
		t.Errorf("pick = %v, %t; want the VF", n, ok)
	}
	if _, ok := pick(links[:1], func(n netInterface) bool { return n.driver != "virtio_net" }); ok {
		t.Error("pick found a device among virtio cards")
	}
}

func TestDHCPHookIgnoresOtherEvents(t *testing.T) {
	for _, args := range [][]string{nil, {"deconfig"}, {"leasefail"}, {"nak"}} {
		if err := dhcpHook(args, func(string) string { t.Fatal("the environment was read"); return "" }); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestAgent(t *testing.T) {
	var out bytes.Buffer
	answerAll(strings.NewReader("rubbish\xff{\"execute\":\"guest-sync\",\"arguments\":{\"id\":4711}}\n\n"+
		`{"execute":"guest-get-osinfo"}`+"\n"+`{"execute":"guest-shutdown"}`+"\n"+"{\n"), &out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d answers: %q", len(lines), lines)
	}
	for i, want := range []string{`{"return":4711}`, `"id":"lab-guest"`, `"class":"CommandNotFound"`, `"class":"GenericError"`} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("answer %d: %s; want %s in it", i, lines[i], want)
		}
	}
}

func FuzzAgentAnswer(f *testing.F) {
	f.Add([]byte(`{"execute":"guest-sync","arguments":{"id":1}}`))
	f.Add([]byte(`{"execute":"guest-network-get-interfaces"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var answer map[string]any
		if err := json.Unmarshal(bytes.TrimPrefix(agentAnswer(line), []byte{0xff}), &answer); err != nil || len(answer) != 1 {
			t.Errorf("answer %v, %v", answer, err)
		}
	})
}
