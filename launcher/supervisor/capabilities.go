package supervisor

import (
	"context"
	"os"
	"os/exec"
	"time"

	"github.com/kubevfio/kubevfio/launcher/capcache"
	"github.com/kubevfio/kubevfio/launcher/virt"
)

// probeWait is the longest wait for a probe of QEMU that goes on on this node.
const probeWait = time.Minute

// fetchCapabilities takes over what libvirt found out about QEMU on this node
// before. Without it libvirt finds out itself: slower, not a failure.
func (s *Supervisor) fetchCapabilities(ctx context.Context) {
	if s.Capabilities == "" {
		return
	}
	into := virt.CapabilityDir(s.libvirtRoot(), s.Libvirt)
	if _, err := os.Stat(into); err == nil {
		return // of an earlier supervisor
	}
	start := time.Now()
	found, err := s.lookUpCapabilities(ctx, into)
	s.Log.Info("libvirt's knowledge of QEMU", "onThisNode", found, "waitedSeconds", time.Since(start).Seconds())
	if err != nil {
		s.Log.Warn("libvirt has to probe QEMU", "err", err)
	}
}

func (s *Supervisor) lookUpCapabilities(ctx context.Context, into string) (bool, error) {
	emulator := s.Emulator
	if emulator == "" {
		var err error
		if emulator, err = exec.LookPath(virt.DefaultEmulator()); err != nil {
			return false, err
		}
	}
	cpuinfo, err := s.Host.Open("proc/cpuinfo")
	if err != nil {
		return false, err
	}
	defer cpuinfo.Close() //nolint:errcheck // it was only read
	id, err := capcache.Identify(emulator, string(s.Libvirt), cpuinfo)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	go func() {
		// A stop must not wait for somebody else's probe.
		for ctx.Err() == nil {
			if s.stopWanted() {
				cancel()
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	return capcache.Cache{Dir: s.Capabilities}.Fetch(ctx, id.Key(), into)
}
