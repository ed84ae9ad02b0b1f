package netdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
	"github.com/kubevfio/kubevfio/deviceplugin/agentsocket"
)

// device is the one that every network namespace has: up in ours, down in a new one.
const device = "lo"

// otherNetwork makes a network namespace and returns its file. Settings of virtual
// functions that a driver accepts are met in the lab; this device has none.
func otherNetwork(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	file, end := make(chan string), make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		// The thread is in the namespace for good: it ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			failed <- err
			return
		}
		file <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		<-end
	}()
	t.Cleanup(func() { close(end) })
	select {
	case err := <-failed:
		t.Fatal(err)
		return ""
	case f := <-file:
		return f
	}
}

func up(t *testing.T, h *Host) bool {
	t.Helper()
	var flags net.Flags
	if err := h.with(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(device)
		if err == nil {
			flags = link.Attrs().Flags
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return flags&net.FlagUp != 0
}

func TestUp(t *testing.T) {
	h := NewHost(otherNetwork(t))
	if up(t, h) {
		t.Fatal("a new namespace's device is up")
	}
	for range 2 { // the second time there is nothing to do
		if err := h.Up(device); err != nil {
			t.Fatal(err)
		}
		if !up(t, h) {
			t.Fatal("it is down")
		}
	}
	if err := h.Up("no-such"); !errors.Is(err, ErrNetlink) {
		t.Errorf("a device that is not there: %v", err)
	}
	gone := NewHost(filepath.Join(t.TempDir(), "net"))
	if err := gone.Up(device); !errors.Is(err, ErrNetlink) {
		t.Errorf("a namespace that is not there: %v", err)
	}
}

// Each setting that a driver does not know is refused by name.
func TestSetVFNotSupported(t *testing.T) {
	h := NewHost(otherNetwork(t))
	yes, mac, vlan, state := true, "02:00:00:00:00:01", uint32(7), agentrpc.LinkState_LINK_STATE_ENABLE
	for what, r := range map[string]*agentrpc.ConfigureVFRequest{
		"trust":       {Trust: &yes},
		"MAC address": {Mac: &mac},
		"VLAN":        {Vlan: &vlan},
		"spoof check": {SpoofCheck: &yes},
		"link state":  {LinkState: &state},
	} {
		err := h.SetVF(context.Background(), agentsocket.VF{PF: device, Index: 1}, r)
		want := fmt.Sprintf("the driver of %s cannot set %s", device, what)
		if !errors.Is(err, agentsocket.ErrNotSupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	if err := h.SetVF(context.Background(), agentsocket.VF{PF: device}, &agentrpc.ConfigureVFRequest{}); err != nil {
		t.Errorf("nothing to set: %v", err)
	}
	if err := h.SetVF(context.Background(), agentsocket.VF{PF: "no-such"}, &agentrpc.ConfigureVFRequest{Trust: &yes}); !errors.Is(err, ErrNetlink) {
		t.Errorf("a device that is not there: %v", err)
	}
}
