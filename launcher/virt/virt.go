package virt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Classes of errors.
var (
	// ErrNotSupported: this build or this libvirt cannot do it.
	ErrNotSupported = errors.New("not supported")
	// ErrNoDomain: libvirt knows no such domain.
	ErrNoDomain = errors.New("no such domain")
	// ErrAgent: the guest's agent does not answer.
	ErrAgent = errors.New("the guest's agent does not answer")
	// ErrConfig: the options make no sense.
	ErrConfig = errors.New("libvirt options")
)

// MaxRoot is the longest root folder of the embedded driver, in bytes.
const MaxRoot = 40

// Mode is how libvirt runs.
type Mode string

// The modes.
const (
	// Embedded runs the QEMU driver inside this process.
	Embedded Mode = "embedded"
	// Daemon uses a private session libvirtd, for people who want virsh.
	Daemon Mode = "daemon"
)

// Options say how to open libvirt.
type Options struct {
	Mode Mode
	// Root is the folder of libvirt's files, at most [MaxRoot] bytes.
	Root string
	// Events receives what happens to domains, in order, from one goroutine. It
	// may call the connection.
	Events func(Event)
}

// Event is something that happened to a domain.
type Event struct {
	Domain string
	Kind   EventKind
	// Device is the alias of the device of an [EventDeviceGone].
	Device string
}

// EventKind is what happened.
type EventKind string

// What can happen to a domain.
const (
	EventStarted   EventKind = "started"
	EventPaused    EventKind = "paused"
	EventResumed   EventKind = "resumed"
	EventReboot    EventKind = "reboot"    // the guest reset itself
	EventShutdown  EventKind = "shutdown"  // the guest has powered off; QEMU is about to end
	EventPanicked  EventKind = "panicked"  // the guest's kernel says that it crashed
	EventEnded     EventKind = "ended"     // QEMU ended after a shutdown
	EventDestroyed EventKind = "destroyed" // QEMU ended because we said so
	EventFailed    EventKind = "failed"    // QEMU ended by itself
	EventLost      EventKind = "lost"      // the connection to libvirt is gone

	EventDeviceGone EventKind = "device-gone" // the host took a device away and the guest gave it back
)

// State is what libvirt says about a domain.
type State string

// States of a domain.
const (
	StateRunning  State = "running"
	StatePaused   State = "paused"
	StateStarting State = "starting" // paused by libvirt in mid-start
	StateShutdown State = "shutdown" // powered off, QEMU not yet ended
	StateCrashed  State = "crashed"
	StateOff      State = "off"
)

// Action is something to do to a domain.
type Action string

// Actions. Shutdown presses the power button (ACPI) and never asks a guest
// agent, whose answers would be hostile input to libvirt.
const (
	Resume   Action = "resume"
	Pause    Action = "pause"
	Shutdown Action = "shutdown"
	Reboot   Action = "reboot"  // presses ctrl-alt-del's ACPI equal: a request
	Reset    Action = "reset"   // the reset button
	Destroy  Action = "destroy" // ends QEMU
)

// Versions of the parts, such as "11.3.0".
type Versions struct {
	Libvirt, QEMU string
}

// Validate says whether the options make sense.
func (o Options) Validate() error {
	switch {
	case o.Mode != Embedded && o.Mode != Daemon:
		return fmt.Errorf("%w: mode %q is neither %q nor %q", ErrConfig, o.Mode, Embedded, Daemon)
	case !filepath.IsAbs(o.Root) || strings.ContainsAny(o.Root, "?&=#% "):
		return fmt.Errorf("%w: root %q is no absolute path that fits in a URI", ErrConfig, o.Root)
	case len(o.Root) > MaxRoot:
		return fmt.Errorf("%w: root %q has %d bytes, %d are possible: libvirt makes unix sockets below it", ErrConfig, o.Root, len(o.Root), MaxRoot)
	}
	return nil
}

// Environment is what libvirt's session and embedded drivers want to find in
// the environment of their process: writable folders, below root, and a log
// file of its own.
func Environment(root string) []string {
	return []string{
		"HOME=" + filepath.Join(root, "home"),
		"XDG_RUNTIME_DIR=" + filepath.Join(root, "xdg"),
		"XDG_CONFIG_HOME=" + filepath.Join(root, "config"),
		"XDG_CACHE_HOME=" + filepath.Join(root, "cachehome"),
		"XDG_DATA_HOME=" + filepath.Join(root, "data"),
		"TMPDIR=" + filepath.Join(root, "tmp"),
		"LIBVIRT_LOG_OUTPUTS=3:file:" + LogFile(root),
	}
}

// LogFile is where libvirt writes its own log, warnings and errors.
func LogFile(root string) string { return filepath.Join(root, "libvirt.log") }

// qemuConf is the driver's configuration. Nothing in it gives QEMU more than
// the container has: no namespaces, no cgroups, no security driver (they need
// privileges), no core dump with the guest's memory.
const qemuConf = `# made by kubevfio-launcher at every start
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
stdio_handler = "file"
remember_owner = 0
max_core = 0
dump_guest_core = 0
`

// Prepare makes the folders of [Environment] below root and writes the driver's
// configuration.
func Prepare(root string, mode Mode) error {
	for _, kv := range Environment(root) {
		if _, path, _ := strings.Cut(kv, "="); filepath.IsAbs(path) {
			if err := os.MkdirAll(path, 0o700); err != nil {
				return fmt.Errorf("prepare libvirt's folders: %w", err)
			}
		}
	}
	if err := prepareTPM(root); err != nil {
		return err
	}
	// Embedded: ROOT/etc/qemu.conf. Session daemon: $XDG_CONFIG_HOME/libvirt/qemu.conf.
	conf := filepath.Join(root, "etc", "qemu.conf")
	if mode == Daemon {
		conf = filepath.Join(root, "config", "libvirt", "qemu.conf")
	}
	if err := os.MkdirAll(filepath.Dir(conf), 0o700); err != nil {
		return fmt.Errorf("prepare libvirt's folders: %w", err)
	}
	if err := os.WriteFile(conf, []byte(qemuConf), 0o600); err != nil {
		return fmt.Errorf("prepare libvirt's configuration: %w", err)
	}
	return nil
}

// QEMULog is the file that holds QEMU's command line and its stderr.
func QEMULog(root string, mode Mode, domain string) string {
	if mode == Daemon {
		return filepath.Join(root, "cachehome", "libvirt", "qemu", "log", domain+".log")
	}
	return filepath.Join(root, "log", "qemu", domain+".log")
}

// CapabilityDir is where libvirt keeps what it found out about QEMU.
func CapabilityDir(root string, mode Mode) string {
	if mode == Daemon {
		return filepath.Join(root, "cachehome", "libvirt", "qemu", "cache", "capabilities")
	}
	return filepath.Join(root, "cache", "qemu", "capabilities")
}

// DefaultEmulator is QEMU's program for guests of this machine's kind.
func DefaultEmulator() string {
	if runtime.GOARCH == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// queue hands events to one goroutine in order, however long it takes for one:
// libvirt's own thread must never wait.
type queue struct {
	in chan Event
}

func newQueue(handle func(Event)) *queue {
	q := &queue{in: make(chan Event)}
	out := make(chan Event)
	go func() {
		var pending []Event
		for {
			if len(pending) == 0 {
				pending = append(pending, <-q.in)
				continue
			}
			select {
			case e := <-q.in:
				pending = append(pending, e)
			case out <- pending[0]:
				pending = pending[1:]
			}
		}
	}()
	go func() {
		for e := range out {
			handle(e)
		}
	}()
	return q
}
