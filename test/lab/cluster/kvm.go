package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubevfio/kubevfio/test/lab/nodeapi"
)

// trialLimit is how long a trial boot may take. A machine on which KVM works prints the word in about a second; emulation
// takes six.
const trialLimit = 6 * time.Second

// verdict is the remembered result of a trial boot.
type verdict struct {
	Key    string `json:"key"`
	KVM    bool   `json:"kvm"`
	Reason string `json:"reason"`
}

// chooseAccel decides how the nodes' CPUs run. KVM is chosen only when a node's kernel has booted with it on this machine and
// saw that it can run guests of its own; the verdict is kept in file for as long as kernels and CPU are the same.
func chooseAccel(ctx context.Context, want, file string, boot func(ctx context.Context, out *lockedBuffer) error, key string) (verdict, error) {
	if want == AccelTCG {
		return verdict{Reason: "asked for"}, nil
	}
	v := verdict{Key: key}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		v.Reason = "no usable /dev/kvm: " + err.Error()
	} else {
		f.Close()
		if b, err := os.ReadFile(file); err == nil {
			var old verdict
			if json.Unmarshal(b, &old) == nil && old.Key == key {
				v = old
				v.Reason += " (remembered)"
			}
		}
		if v.Reason == "" {
			v.KVM, v.Reason = tryKVM(ctx, boot)
			if ctx.Err() != nil {
				return v, ctx.Err()
			}
			b, err := json.Marshal(v)
			if err == nil {
				err = os.WriteFile(file, b, 0o600)
			}
			if err != nil {
				return v, fmt.Errorf("remember the KVM trial: %w", err)
			}
		}
	}
	if want == AccelKVM && !v.KVM {
		return v, fmt.Errorf("%w: KVM was asked for, but %s", ErrConfig, v.Reason)
	}
	return v, nil
}

// lockedBuffer is a buffer that may be read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func tryKVM(ctx context.Context, boot func(context.Context, *lockedBuffer) error) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, trialLimit)
	defer cancel()
	var out lockedBuffer
	err := boot(ctx, &out)
	text := out.String()
	switch {
	case strings.Contains(text, nodeapi.TrialWord) && strings.Contains(text, nodeapi.TrialNested):
		return true, "a trial boot with KVM succeeded"
	case strings.Contains(text, nodeapi.TrialWord):
		return false, "a trial boot with KVM succeeded, but its CPU cannot run guests of its own (no nested virtualisation)"
	case ctx.Err() != nil:
		return false, fmt.Sprintf("a trial boot with KVM did not come up within %s", trialLimit)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return false, fmt.Sprintf("a trial boot with KVM failed: %v: %s", err, strings.TrimSpace(lines[len(lines)-1]))
}

// trialKey identifies what the verdict depends on.
func trialKey(nodeKernel string) string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	model := ""
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, line := range strings.Split(string(b), "\n") {
			if strings.HasPrefix(line, "model name") || strings.HasPrefix(line, "microcode") {
				model += strings.TrimSpace(line[strings.IndexByte(line, ':')+1:]) + ";"
			}
			if line == "" {
				break
			}
		}
	}
	return strings.Join([]string{unix.ByteSliceToString(u.Release[:]), model, filepath.Base(filepath.Dir(nodeKernel)), filepath.Base(nodeKernel)}, "|")
}

// trialBoot runs the node's kernel with KVM; init prints a word and switches off.
func (d *daemon) trialBoot(ctx context.Context, out *lockedBuffer) error {
	cmd := exec.CommandContext(ctx, qemuBinary, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "512M",
		"-kernel", d.set.NodeKernel, "-initrd", d.set.NodeInitrd,
		"-append", "console=ttyS0 panic=-1 "+nodeapi.TrialArg, "-serial", "stdio")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: d.jail}
	cmd.WaitDelay = time.Second
	return d.procs.Run(cmd)
}
