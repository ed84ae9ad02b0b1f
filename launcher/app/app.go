package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/kubevfio/kubevfio/api/agentrpc/client"
	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/launcher/capcache"
	"github.com/kubevfio/kubevfio/launcher/pid1"
	"github.com/kubevfio/kubevfio/launcher/supervisor"
	"github.com/kubevfio/kubevfio/launcher/trim"
	"github.com/kubevfio/kubevfio/launcher/virt"
)

// Environment variables beside those of the device contracts.
const (
	// EnvContainerName names this container in the pod, where the assignment
	// is for more than one.
	EnvContainerName = "KUBEVFIO_CONTAINER_NAME"
	// EnvDomainType set to "qemu" runs the guest without KVM. For tests only.
	EnvDomainType = "KUBEVFIO_DOMAIN_TYPE"
)

// logFile has the launcher's own log where stderr is the terminal on which
// somebody uses the guest's console.
const logFile = "launcher.log"

// ExitError carries an exit code to main.
type ExitError struct{ Code int }

// Error implements error.
func (e ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// flags are what run and supervise share.
type flags struct {
	runDir, podInfo, root, dev, agentSocket, terminationLog, emulator, libvirt, capabilities string

	standby, verbose bool
}

func (f *flags) register(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.runDir, "run-dir", v1alpha1.LauncherRunDir, "folder for sockets, logs and libvirt's state; an emptyDir")
	fs.StringVar(&f.podInfo, "podinfo", v1alpha1.PodInfoDir, "folder of the downward API volume")
	fs.StringVar(&f.root, "host-root", "/", "folder that holds sys/ and proc/")
	fs.StringVar(&f.dev, "dev", "/dev", "folder of device nodes")
	fs.StringVar(&f.agentSocket, "agent-socket", v1alpha1.AgentSocket, "socket of the node agent")
	fs.StringVar(&f.terminationLog, "termination-log", launcherrpcv1.TerminationLog, "file for the termination message; empty for none")
	fs.StringVar(&f.emulator, "emulator", "", "path of QEMU; libvirt's default when empty")
	fs.StringVar(&f.libvirt, "libvirt", string(virt.Embedded), "how libvirt runs: embedded, or daemon (a private session libvirtd, for virsh)")
	fs.StringVar(&f.capabilities, "capabilities", capcache.DefaultDir, "the node's folder of libvirt's knowledge about QEMU; empty lets libvirt probe QEMU for each pod")
	fs.BoolVar(&f.standby, "standby", os.Getenv(launcherrpcv1.EnvStandby) == "true", "hold the devices and wait for `proxy release` before QEMU starts (also $"+launcherrpcv1.EnvStandby+"=true)")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "log more")
}

// args are the flags for a supervisor.
func (f *flags) args() []string {
	return []string{
		"--run-dir=" + f.runDir, "--podinfo=" + f.podInfo, "--host-root=" + f.root, "--dev=" + f.dev,
		"--agent-socket=" + f.agentSocket, "--emulator=" + f.emulator, "--libvirt=" + f.libvirt, "--capabilities=" + f.capabilities,
		fmt.Sprintf("--standby=%t", f.standby), fmt.Sprintf("--verbose=%t", f.verbose),
	}
}

// New makes the command. version is of the build.
func New(version string, more ...*cobra.Command) *cobra.Command {
	var f flags
	root := &cobra.Command{
		Use:           "kubevfio-launcher",
		Short:         "Runs one virtual machine with passed-through devices in a pod",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(*cobra.Command, []string) error { return runInit(&f) },
	}
	f.register(root)
	root.AddCommand(runCommand(), superviseCommand(version), proxyCommand(), probeCommand(), capabilitiesCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s libvirt=%t\n", version, virt.Available)
			return err
		},
	})
	root.AddCommand(more...)
	return root
}

func runCommand() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the VM of this pod, as the container's first process (the default)",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return runInit(&f) },
	}
	f.register(c)
	return c
}

// runInit is PID 1.
func runInit(f *flags) error {
	log, err := f.logger("init")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	code, err := pid1.Run(pid1.Options{
		Command:        append([]string{self, "supervise"}, f.args()...),
		Env:            append(os.Environ(), virt.Environment(supervisor.LibvirtRoot(f.runDir))...),
		RunDir:         f.runDir,
		TerminationLog: f.terminationLog,
		Proc:           "/proc",
		Idle:           func() { idle(log) },
		Log:            log,
	})
	if err != nil {
		return err
	}
	if code != 0 {
		return ExitError{code}
	}
	return nil
}

func superviseCommand(version string) *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:    "supervise",
		Short:  "Drive libvirt; PID 1 starts this",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			// Before anything else: a signal must never end this process in
			// mid-start without its outcome.
			signals := make(chan os.Signal, 8)
			signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP)
			signal.Ignore(unix.SIGPIPE)
			if os.Getenv(pid1.EnvStopping) == "true" {
				signals <- unix.SIGTERM
			}
			return supervise(c.Context(), &f, version, signals)
		},
	}
	f.register(c)
	return c
}

func supervise(ctx context.Context, f *flags, version string, signals <-chan os.Signal) error {
	log, err := f.logger("supervisor")
	if err != nil {
		return err
	}
	o := supervisor.Options{
		Version: version,
		RunDir:  f.runDir, PodInfo: f.podInfo,
		Host: host.Dir(f.root), Dev: f.dev,
		Environ:       os.Environ(),
		ContainerName: os.Getenv(EnvContainerName),
		Emulator:      f.emulator,
		Capabilities:  f.capabilities,
		Emulate:       os.Getenv(EnvDomainType) == "qemu",
		Standby:       f.standby,
		Restarts:      restarts(),
		Libvirt:       virt.Mode(f.libvirt),
		Libvirtd:      "libvirtd",
		Open:          openLibvirt,
		Agent:         client.New(f.agentSocket),
		Stdout:        os.Stdout,
		Signals:       signals,
		Idle:          func() { idle(log) },
		Log:           log,
	}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		// Every key goes to the guest, ctrl-C too. PID 1 keeps the terminal.
		old, err := term.MakeRaw(int(os.Stdin.Fd()))
		if err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		defer func() {
			if err := term.Restore(int(os.Stdin.Fd()), old); err != nil {
				log.Debug("restore the terminal", "err", err)
			}
		}()
	}
	if st, err := os.Stdin.Stat(); err == nil && st.Mode()&os.ModeCharDevice == 0 || term.IsTerminal(int(os.Stdin.Fd())) {
		o.Stdin = os.Stdin // not /dev/null, which a pod without stdin has
	}
	outcome, err := supervisor.New(o).Run(ctx)
	if err != nil {
		return err
	}
	if err := pid1.WriteOutcome(f.runDir, outcome); err != nil {
		return err
	}
	if outcome.ExitCode != 0 {
		return ExitError{outcome.ExitCode}
	}
	return nil
}

// idle gives back memory that only the start needed.
func idle(log *slog.Logger) {
	dropped, err := trim.Idle()
	if err != nil {
		log.Debug("cannot give memory back", "err", err)
		return
	}
	log.Debug("gave memory back", "mappedKiB", dropped>>10)
}

// hypervisor gives virt's connection the supervisor's view of it.
type hypervisor struct{ *virt.Conn }

// Create starts a domain.
func (h hypervisor) Create(xml string) (supervisor.Guest, error) {
	g, err := h.Conn.Create(xml)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Lookup finds a domain.
func (h hypervisor) Lookup(name string) (supervisor.Guest, error) {
	g, err := h.Conn.Lookup(name)
	if err != nil {
		return nil, err
	}
	return g, nil
}

func openLibvirt(o virt.Options) (supervisor.Hypervisor, error) {
	c, err := virt.Open(o)
	if err != nil {
		return nil, err
	}
	return hypervisor{c}, nil
}

func restarts() int {
	var n int
	if _, err := fmt.Sscan(os.Getenv(pid1.EnvRestarts), &n); err != nil {
		return 0 // the first one, or run by hand
	}
	return n
}

// logger writes structured lines to stderr, marked as the launcher's own; or to
// a file where stderr is the terminal of the guest's console.
func (f *flags) logger(part string) (*slog.Logger, error) {
	var w io.Writer = os.Stderr
	if term.IsTerminal(int(os.Stdin.Fd())) {
		if err := os.MkdirAll(f.runDir, 0o700); err != nil {
			return nil, fmt.Errorf("make the run folder: %w", err)
		}
		// Never closed: it lives as long as the process.
		file, err := os.OpenFile(filepath.Join(f.runDir, logFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the log: %w", err)
		}
		w = file
	}
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(prefixed{w}, &slog.HandlerOptions{Level: level})).With("part", part), nil
}

// prefixed marks each write, which is one line, as the launcher's.
type prefixed struct{ w io.Writer }

func (p prefixed) Write(b []byte) (int, error) {
	if _, err := p.w.Write(append([]byte("kubevfio-launcher: "), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// ExitCode is what main exits with for an error of the command.
func ExitCode(err error, stderr io.Writer) int {
	var e ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	default:
		fmt.Fprintln(stderr, "kubevfio-launcher:", err)
		return v1alpha1.ExitLauncherInternal
	}
}
