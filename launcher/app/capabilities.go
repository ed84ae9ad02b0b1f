package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kubevfio/kubevfio/launcher/capcache"
	"github.com/kubevfio/kubevfio/launcher/virt"
)

// probeLimit is how long libvirt's probe of QEMU may take.
const probeLimit = 5 * time.Minute

// capabilitiesCommand publishes libvirt's knowledge about QEMU on this node.
func capabilitiesCommand() *cobra.Command {
	var (
		dir, workDir, emulator string
		once, probeOnly        bool
	)
	c := &cobra.Command{
		Use:   "capabilities",
		Short: "Let libvirt probe QEMU and publish the result for the VMs of this node, then wait (for a DaemonSet)",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if probeOnly {
				return probeCapabilities(workDir)
			}
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGTERM, unix.SIGINT)
			defer stop()
			if err := publishCapabilities(ctx, dir, workDir, emulator); err != nil || once {
				return err
			}
			log, err := (&flags{runDir: workDir}).logger("capabilities")
			if err != nil {
				return err
			}
			idle(log)
			<-ctx.Done()
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", capcache.DefaultDir, "the node's folder; writable")
	f.StringVar(&workDir, "work-dir", "/run/kubevfio-launcher/lv", fmt.Sprintf("libvirt's folder, at most %d bytes long", virt.MaxRoot))
	f.StringVar(&emulator, "emulator", "", "path of QEMU; libvirt's default when empty")
	f.BoolVar(&once, "once", false, "end when it is published")
	f.BoolVar(&probeOnly, "probe-only", false, "only open libvirt, in this process")
	if err := f.MarkHidden("probe-only"); err != nil {
		panic(err) // the flag is defined two lines above
	}
	return c
}

// publishCapabilities probes in a process of its own: libvirt wants its
// environment from the start, and its memory is given back with the process.
func publishCapabilities(ctx context.Context, dir, workDir, emulator string) error {
	log, err := (&flags{runDir: workDir}).logger("capabilities")
	if err != nil {
		return err
	}
	if emulator == "" {
		if emulator, err = exec.LookPath(virt.DefaultEmulator()); err != nil {
			return fmt.Errorf("find QEMU: %w", err)
		}
	}
	cpuinfo, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return fmt.Errorf("read the CPU's model: %w", err)
	}
	id, err := capcache.Identify(emulator, string(virt.Embedded), cpuinfo)
	if err := errors.Join(err, cpuinfo.Close()); err != nil {
		return err
	}
	key, cache := id.Key(), capcache.Cache{Dir: dir}
	// What is there already: libvirt says by keeping it whether it still holds.
	into := virt.CapabilityDir(workDir, virt.Embedded)
	if _, err := cache.Fetch(ctx, key, into); err != nil {
		log.Warn("what the node has is of no use", "err", err)
	}
	done, err := cache.Mark(key)
	if err != nil {
		return err
	}
	defer done()
	start := time.Now()
	if err := probeInChild(ctx, workDir); err != nil {
		return err
	}
	changed, err := cache.Publish(key, into)
	if err != nil {
		return err
	}
	log.Info("published", "key", key, "qemu", id.Emulator, "kernel", id.Kernel, "changed", changed, "seconds", time.Since(start).Seconds())
	return nil
}

// probeInChild runs the probe in a process of its own and reaps whatever else
// ends meanwhile: libvirt's QEMU processes are daemons, whose parent the
// container's first process is, and libvirt waits 40 s for one that it killed
// and that nobody has reaped.
func probeInChild(ctx context.Context, workDir string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a child subreaper: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	child, err := os.StartProcess(self, []string{self, "capabilities", "--probe-only", "--work-dir=" + workDir}, &os.ProcAttr{
		Env:   append(os.Environ(), virt.Environment(workDir)...),
		Files: []*os.File{nil, os.Stderr, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("probe QEMU: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = child.Kill() // it may have ended already
	})
	defer stop()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("probe QEMU: %w", err)
		case pid == child.Pid && ws.ExitStatus() != 0:
			return fmt.Errorf("probe QEMU: %w: the probe ended with exit code %d, signal %d", errors.Join(ctx.Err(), errProbe), ws.ExitStatus(), ws.Signal())
		case pid == child.Pid:
			return nil
		}
	}
}

// errProbe: libvirt could not find out about QEMU.
var errProbe = errors.New("failed")

func probeCapabilities(workDir string) error {
	if err := virt.Prepare(workDir, virt.Embedded); err != nil {
		return err
	}
	conn, err := virt.Open(virt.Options{Mode: virt.Embedded, Root: workDir, Events: func(virt.Event) {}})
	if err != nil {
		return err
	}
	if _, err := conn.Versions(); err != nil {
		return errors.Join(err, conn.Close())
	}
	return conn.Close()
}
