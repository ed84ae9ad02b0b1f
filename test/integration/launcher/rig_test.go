package launcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/launcher/rpc"
)

// patience is how long anything may take on a busy machine under emulation.
const patience = 3 * time.Minute

// script builds the container: a read-only overlay over the image, the pod's
// volumes, and a user without any privilege. It changes the root for good
// (pivot_root), because passt's user namespace cannot be made in a chroot.
const script = `set -e
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=$WORK/upper,workdir=$WORK/ovl" "$WORK/merged"
R=$WORK/merged
mkdir -p $R/proc $R/sys $R/dev $R/guest $R/run/kubevfio-launcher $R/etc/kubevfio/podinfo $R/fake $R/old
mount -t proc proc $R/proc
mount --rbind /sys $R/sys
mount -t tmpfs -o mode=755 dev $R/dev
for n in null zero full random urandom tty; do touch $R/dev/$n; mount --bind /dev/$n $R/dev/$n; done
mkdir $R/dev/shm; mount -t tmpfs shm $R/dev/shm
mkdir $R/dev/net; touch $R/dev/net/tun; if [ -e /dev/net/tun ]; then mount --bind /dev/net/tun $R/dev/net/tun; fi
mount --bind "$GUEST" $R/guest
mount --bind "$WORK/pod" $R/etc/kubevfio/podinfo
mount --bind "$WORK/run" $R/run/kubevfio-launcher
mount --bind "$WORK/fake" $R/fake
if [ -n "${CAPS:-}" ]; then mkdir -p $R/run/kubevfio/capabilities; mount --bind "$CAPS" $R/run/kubevfio/capabilities; fi
if [ -n "${CAPS_RO:-}" ]; then mount -o remount,bind,ro $R/run/kubevfio/capabilities; fi
touch $R/usr/bin/kubevfio-launcher
mount --bind "$BINARY" $R/usr/bin/kubevfio-launcher
cd $R
mount -o remount,ro .
pivot_root . old
umount -l /old
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin KUBEVFIO_DOMAIN_TYPE=qemu $POD_ENV \
  setpriv --reuid=107 --regid=107 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
  /usr/bin/kubevfio-launcher ${COMMAND:-run --termination-log=/run/kubevfio-launcher/termination} "$@"
`

// pod is what a test asks for.
type pod struct {
	vm         string
	assignment string
	env        []string
	args       []string
	// memlock is the limit of locked memory in bytes, when not 0.
	memlock uint64
	// stdout gets the console instead of a buffer.
	stdout *os.File
	// command replaces "run".
	command string
	// capabilities is the host's folder for /run/kubevfio/capabilities, read-only
	// unless there is a command.
	capabilities string
	// fill makes files below /fake in the container.
	fill func(dir string)
}

// container is a running launcher.
type container struct {
	t      *testing.T
	work   string
	cmd    *exec.Cmd
	stdout *buffer
	stderr *buffer
	ended  chan struct{}
	err    error
}

// vm is a small guest's spec; extra is appended below domain.devices.
func vm(kernelArgs string, extra ...string) string {
	return fmt.Sprintf(`domain:
  cpu: {cores: 1}
  memory: {guest: 256Mi}
  firmware:
    kernelBoot:
      kernelArgs: console=ttyS0 tsc=reliable no_timer_check kubevfio.passt=off %s
      container: {kernelPath: /guest/boot/vmlinuz, initrdPath: /guest/boot/initrd}
  devices:
    autoattachPodInterface: false
    panicDevices: [{model: pvpanic}]
%s
terminationGracePeriodSeconds: 60
`, kernelArgs, strings.Join(extra, "\n"))
}

var binary = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("LAUNCHER_BINARY"); b != "" {
		return b, nil
	}
	dir, err := os.MkdirTemp("", "kubevfio-launcher-test-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "kubevfio-launcher")
	build := exec.Command("go", "build", "-tags=libvirt_dlopen,grpcnotrace", "-ldflags=-s -w", "-o", out, "github.com/kubevfio/kubevfio/cmd/kubevfio-launcher")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if b, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the launcher: %w\n%s", err, b)
	}
	return out, nil
})

// start runs a launcher. It is ended, and checked for leftovers, by cleanup.
func start(t *testing.T, p pod) *container {
	t.Helper()
	root, guest := os.Getenv("LAUNCHER_ROOT"), os.Getenv("LAUNCHER_GUEST")
	if root == "" || guest == "" {
		t.Skip("LAUNCHER_ROOT (the launcher image's root file system) and LAUNCHER_GUEST (a folder with boot/vmlinuz and boot/initrd) are not set")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces and mounts")
	}
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	// Short: the socket paths below it are bound from here.
	work, err := os.MkdirTemp("", "kl-") //nolint:usetesting // short: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"upper", "ovl", "merged", "pod", "run", "fake"} {
		must(os.Mkdir(filepath.Join(work, d), 0o755))
	}
	must(os.Chmod(work, 0o755))
	must(os.Chown(filepath.Join(work, "run"), 107, 107))
	must(os.WriteFile(filepath.Join(work, "run", "termination"), nil, 0o666))
	must(os.Chown(filepath.Join(work, "run", "termination"), 107, 107))
	for name, text := range map[string]string{
		"vm": p.vm, "assignment": p.assignment, "uid": "6f1d0f3e-26b7-4bd0-9c4b-0b4f1f0c0d01", "name": "vm-a", "namespace": "vms",
	} {
		must(os.WriteFile(filepath.Join(work, "pod", name), []byte(text), 0o644))
	}
	if p.fill != nil {
		p.fill(filepath.Join(work, "fake"))
	}
	args := []string{"--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--", "bash", "-c", script, "launcher"}
	c := &container{t: t, work: work, stdout: &buffer{}, stderr: &buffer{}, ended: make(chan struct{})}
	if p.memlock > 0 {
		c.cmd = exec.Command("prlimit", append([]string{fmt.Sprintf("--memlock=%d:%[1]d", p.memlock), "unshare"}, append(args, p.args...)...)...)
	} else {
		c.cmd = exec.Command("unshare", append(args, p.args...)...)
	}
	c.cmd.Env = append(os.Environ(), "ROOT="+root, "GUEST="+guest, "WORK="+work, "BINARY="+bin, "POD_ENV="+strings.Join(p.env, " "))
	if p.capabilities != "" {
		c.cmd.Env = append(c.cmd.Env, "CAPS="+p.capabilities, "COMMAND="+p.command)
		if p.command == "" {
			c.cmd.Env = append(c.cmd.Env, "CAPS_RO=1")
		}
	}
	c.cmd.Stdout, c.cmd.Stderr = c.stdout, c.stderr
	if p.stdout != nil {
		c.cmd.Stdout = p.stdout
	}
	must(c.cmd.Start())
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(c.clean)
	return c
}

func (c *container) clean() {
	select {
	case <-c.ended:
	default:
		// unshare's own --kill-child is void after the change of user: end the
		// namespace's first process, and the kernel ends the rest.
		for _, p := range c.processes() {
			if p.parent != c.cmd.Process.Pid {
				continue
			}
			if err := unix.Kill(p.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				c.t.Error(err)
			}
		}
		<-c.ended
	}
	if c.t.Failed() {
		c.t.Logf("console:\n%s\nlog:\n%s", c.stdout, c.stderr)
		if b, err := os.ReadFile(filepath.Join(c.work, "run/lv/libvirt.log")); err == nil {
			c.t.Logf("libvirt:\n%s", b[max(0, len(b)-4096):])
		}
	}
	if err := os.RemoveAll(c.work); err != nil {
		c.t.Error(err)
	}
}

// client calls the launcher's RPC from outside, through the shared folder.
func (c *container) client() *rpc.Client {
	return rpc.NewClient(filepath.Join(c.work, "run", launcherrpcv1.SocketName))
}

// eventually waits for something.
func (c *container) eventually(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not within %s", what, patience)
		}
		select {
		case <-c.ended:
			if !ok() {
				c.t.Fatalf("%s: the launcher ended before: %v", what, c.err)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// console waits for a text on the container's stdout.
func (c *container) console(text string) {
	c.t.Helper()
	c.eventually("console shows "+strconv.Quote(text), func() bool { return strings.Contains(c.stdout.String(), text) })
}

// phase waits for a phase and gives the state then.
func (c *container) phase(want launcherrpcv1.Phase) launcherrpcv1.State {
	c.t.Helper()
	var st launcherrpcv1.State
	c.eventually("phase "+string(want), func() bool {
		var err error
		st, err = c.client().State(context.Background())
		return err == nil && st.Phase == want
	})
	return st
}

// end waits for the end and checks exit code and reason.
func (c *container) end(code int, reason string) launcherrpcv1.Outcome {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.t.Fatalf("the launcher has not ended within %s", patience)
	}
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Errorf("exit code %d (%v), want %d", got, c.err, code)
	}
	b, err := os.ReadFile(filepath.Join(c.work, "run", "termination"))
	if err != nil {
		c.t.Fatal(err)
	}
	o, ok := launcherrpcv1.ParseOutcome(b)
	if !ok {
		c.t.Fatalf("termination message %q does not parse", b)
	}
	if o.Reason != reason || o.ExitCode != code {
		c.t.Errorf("termination message: %+v, want %s and %d", o, reason, code)
	}
	return o
}

// process is one in the container.
type process struct {
	pid, parent int
	comm        string
	args        []string
}

// processes lists those in the container's PID namespace, by host PIDs.
func (c *container) processes() []process {
	first := c.cmd.Process.Pid
	all := map[int]process{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(d + "/cmdline")
		if err != nil {
			continue
		}
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		fields := strings.Fields(string(stat[end+1:]))
		parent, err := strconv.Atoi(fields[1])
		if err != nil || fields[0] == "Z" {
			continue
		}
		all[pid] = process{pid, parent, string(stat[open+1 : end]), strings.Split(string(cmdline), "\x00")}
	}
	var in []process
	for _, p := range all {
		for up := p; up.pid != 0; up = all[up.parent] {
			if up.parent == first {
				in = append(in, p)
				break
			}
		}
	}
	slices.SortFunc(in, func(a, b process) int { return a.pid - b.pid })
	return in
}

// find gives the one process that matches.
func (c *container) find(what string, match func(process) bool) int {
	c.t.Helper()
	var pid int
	c.eventually(what, func() bool {
		for _, p := range c.processes() {
			if match(p) {
				pid = p.pid
				return true
			}
		}
		return false
	})
	return pid
}

func (c *container) init() int {
	return c.find("PID 1", func(p process) bool { return len(p.args) > 1 && p.args[1] == "run" })
}

func (c *container) supervisor() int {
	return c.find("the supervisor", func(p process) bool { return len(p.args) > 1 && p.args[1] == "supervise" })
}

// qemu is the guest's, not one that libvirt probes.
func (c *container) qemu() int {
	return c.find("QEMU", func(p process) bool {
		return strings.HasPrefix(p.comm, "qemu") && slices.ContainsFunc(p.args, func(a string) bool { return strings.HasPrefix(a, "guest=vm-a") })
	})
}

func (c *container) kill(pid int, s unix.Signal) {
	c.t.Helper()
	if err := unix.Kill(pid, s); err != nil {
		c.t.Fatal(err)
	}
}

// exec runs the launcher's binary in the container, as pods/exec does.
func (c *container) exec(stdin io.Reader, args ...string) (string, int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pid := strconv.Itoa(c.init())
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", pid, "--mount", "--pid", "--root=/proc/" + pid + "/root", "--",
		"setpriv", "--reuid=107", "--regid=107", "--clear-groups", "/usr/bin/kubevfio-launcher",
	}, args...)...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// buffer is written by a process and read by the test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
