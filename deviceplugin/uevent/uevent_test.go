package uevent

import (
	"strings"
	"testing"
)

func message(head string, fields ...string) []byte {
	return []byte(head + "\x00" + strings.Join(fields, "\x00") + "\x00")
}

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		msg     []byte
		ok      bool
		address string
		action  string
	}{
		"bind": {msg: message("bind@/devices/pci0000:20/0000:20:00.0/0000:21:10.0", "ACTION=bind",
			"DEVPATH=/devices/pci0000:20/0000:20:00.0/0000:21:10.0", "SUBSYSTEM=pci"), ok: true, address: "0000:21:10.0", action: "bind"},
		"network device of a function": {msg: message("add@/devices/pci0000:20/0000:21:00.0/net/eth1", "ACTION=add",
			"DEVPATH=/devices/pci0000:20/0000:21:00.0/net/eth1", "SUBSYSTEM=net"), ok: true, address: "0000:21:00.0", action: "add"},
		"virtual network device": {msg: message("add@/devices/virtual/net/veth0", "ACTION=add", "DEVPATH=/devices/virtual/net/veth0", "SUBSYSTEM=net")},
		"group":                  {msg: message("add@/devices/virtual/vfio/12", "ACTION=add", "DEVPATH=/devices/virtual/vfio/12", "SUBSYSTEM=vfio"), ok: true, action: "add"},
		"something else":         {msg: message("change@/devices/virtual/block/loop0", "ACTION=change", "SUBSYSTEM=block")},
		"udev's own":             {msg: message("libudev", "ACTION=add", "SUBSYSTEM=pci")},
		"cut":                    {msg: []byte("add@/devices/pci0000:20")},
		"empty":                  {},
	} {
		t.Run(name, func(t *testing.T) {
			e, ok := Parse(tc.msg)
			var address string
			if e.Address != nil {
				address = e.Address.String()
			}
			if ok != tc.ok || ok && (address != tc.address || e.Action != tc.action) {
				t.Errorf("got %v %q %q, want %v %q %q", ok, address, e.Action, tc.ok, tc.address, tc.action)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message("bind@/devices/pci0000:20/0000:21:10.0", "ACTION=bind", "DEVPATH=/devices/pci0000:20/0000:21:10.0", "SUBSYSTEM=pci"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := Parse(b); ok && e.Address != nil && !strings.Contains(strings.ToLower(string(b)), e.Address.String()) {
			t.Fatalf("address %s is not in %q", e.Address, b)
		}
	})
}
