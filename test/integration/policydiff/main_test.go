package policydiff

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"k8s.io/klog/v2"
)

// childEnv marks the process that has a mount namespace of its own.
const childEnv = "POLICYDIFF_CHILD"

var (
	podsFlag = flag.Int("pods", 400, "placements to compare, over all policies")
	seedFlag = flag.Uint64("seed", 0, "seed to replay; 0 takes a new one")
)

const pluginDir = "/var/lib/kubelet/device-plugins"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(inNamespace())
	}
	flag.Parse()
	if err := privateKubeletFolder(); err != nil {
		fmt.Fprintln(os.Stderr, "policydiff:", err)
		os.Exit(1)
	}
	klog.LogToStderr(false)
	klog.SetOutput(discard{})
	os.Exit(m.Run())
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// inNamespace runs this test binary again where /var/lib may be covered.
func inNamespace() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "policydiff: needs root or user namespaces for a mount namespace of its own:", err)
		return 1
	}
	return 0
}

func privateKubeletFolder() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/var/lib", "tmpfs", 0, "size=64m"); err != nil {
		return fmt.Errorf("cover /var/lib: %w", err)
	}
	return os.MkdirAll(pluginDir, 0o755)
}
