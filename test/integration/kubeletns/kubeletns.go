// Package kubeletns gives a test binary that runs kubelet's own managers a
// private /var/lib/kubelet.
//
// It is for the differential tests. Kubelet's device manager uses a fixed
// folder, /var/lib/kubelet/device-plugins, so the binary is executed again in a
// mount namespace of its own with a tmpfs over /var/lib.
//
// Trap: what TestMain did before [Main] is done twice, once in each process.
package kubeletns

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

// PluginDir is kubelet's folder of device plugins.
const PluginDir = "/var/lib/kubelet/device-plugins"

// childEnv marks the process that has a mount namespace of its own.
const childEnv = "KUBEVFIO_TEST_KUBELETNS"

// Main runs the tests of m where /var/lib is private and returns the exit code
// for TestMain. Kubelet's log is dropped: the tests speak for themselves.
func Main(m *testing.M) int {
	if os.Getenv(childEnv) == "" {
		return inNamespace()
	}
	flag.Parse()
	if err := privateFolder(); err != nil {
		fmt.Fprintln(os.Stderr, "private kubelet folder:", err)
		return 1
	}
	klog.LogToStderr(false)
	klog.SetOutput(discard{})
	return m.Run()
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
		fmt.Fprintln(os.Stderr, "a mount namespace of its own needs root or user namespaces:", err)
		return 1
	}
	return 0
}

func privateFolder() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/var/lib", "tmpfs", 0, "size=64m"); err != nil {
		return fmt.Errorf("cover /var/lib: %w", err)
	}
	return os.MkdirAll(PluginDir, 0o755)
}
