package supervisor

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	agentrpcv1 "github.com/kubevfio/kubevfio/api/agentrpc/v1"
	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/launcher/virt"
)

// Hypervisor is libvirt, or a test's stand-in.
type Hypervisor interface {
	// Create starts a domain with its CPUs stopped.
	Create(xml string) (Guest, error)
	// Lookup finds a running domain; virt.ErrNoDomain when there is none.
	Lookup(name string) (Guest, error)
	Versions() (virt.Versions, error)
}

// Guest is a domain.
type Guest interface {
	State() (virt.State, error)
	Do(a virt.Action) error
	XML() (string, error)
	Screenshot(w io.Writer) (mime string, err error)
	// Info is what the guest's agent says: virt.ErrNotSupported without a channel
	// for one, virt.ErrAgent when it does not answer.
	Info() (launcherrpcv1.GuestInfo, error)
}

// Agent is the node agent's socket.
type Agent interface {
	RaiseMemoryLock(ctx context.Context, bytes uint64, viommuDevices uint32) (uint64, error)
	ConfigureVF(ctx context.Context, req *agentrpcv1.ConfigureVFRequest) (*agentrpcv1.ConfigureVFResponse, error)
}

// Options of a supervisor. All are set unless said otherwise.
type Options struct {
	// Version of the build.
	Version string
	// RunDir is the launcher's run folder, PodInfo the downward API volume.
	RunDir, PodInfo string
	// Host is the tree with sys/ and proc/ as the container sees them, Dev the
	// folder of device nodes.
	Host host.FS
	Dev  string
	// Environ is the environment, in the form of os.Environ.
	Environ []string
	// ContainerName is this container's name in the pod; may be empty.
	ContainerName string
	// Emulator is QEMU's program; libvirt's default when empty.
	Emulator string
	// Capabilities is the node's folder of libvirt's knowledge about QEMU; empty
	// for none.
	Capabilities string
	// Emulate runs the guest without KVM, by QEMU's own emulation. For tests:
	// the guest is many times slower and gets no device.
	Emulate bool
	// Standby waits for a release before QEMU starts.
	Standby bool
	// Restarts is how often PID 1 had to start a supervisor again.
	Restarts int
	// Libvirt says how libvirt runs; Open opens it. Libvirtd is the daemon's
	// program for virt.Daemon.
	Libvirt  virt.Mode
	Libvirtd string
	Open     func(virt.Options) (Hypervisor, error)
	Agent    Agent
	// Stdout gets the guest's console. Stdin, when not nil, is what somebody
	// types to it.
	Stdout io.Writer
	Stdin  io.Reader
	// Idle is called when the start is over and there is nothing to do but wait.
	Idle func()
	// Signals are wishes to stop.
	Signals <-chan os.Signal
	Log     *slog.Logger
}

// Places in the run folder.
func (o *Options) libvirtRoot() string   { return filepath.Join(o.RunDir, "lv") }
func (o *Options) consoleSocket() string { return filepath.Join(o.RunDir, "console.sock") }
func (o *Options) vncSocket() string     { return filepath.Join(o.RunDir, "vnc.sock") }
func (o *Options) agentSocket() string   { return filepath.Join(o.RunDir, "agent.sock") }
func (o *Options) rpcSocket() string     { return filepath.Join(o.RunDir, launcherrpcv1.SocketName) }
func (o *Options) stateDir() string      { return filepath.Join(o.RunDir, "state") }
func (o *Options) recordFile() string    { return filepath.Join(o.RunDir, "record.json") }

// LibvirtRoot is the folder of libvirt's files below a run folder.
func LibvirtRoot(runDir string) string { return (&Options{RunDir: runDir}).libvirtRoot() }
