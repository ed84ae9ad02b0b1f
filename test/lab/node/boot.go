package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubevfio/kubevfio/test/lab/nodeapi"
	"github.com/kubevfio/kubevfio/test/lab/supervise"
)

const path = nodeapi.BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// node is the running system.
type node struct {
	cfg   nodeapi.Config
	procs *supervise.Supervisor
	// shutdown receives a reboot command of reboot(2).
	shutdown chan int
}

// runNode is PID 1 in Debian's root file system.
func runNode() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := mountSystem(); err != nil {
		return err
	}
	n := &node{procs: supervise.New(logf), shutdown: make(chan int, 1)}
	go n.procs.Reap(ctx)

	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range sigs {
			// busybox's convention.
			how := syscall.LINUX_REBOOT_CMD_POWER_OFF
			if s == syscall.SIGTERM {
				how = syscall.LINUX_REBOOT_CMD_RESTART
			}
			n.requestShutdown(how)
		}
	}()

	if err := n.configure(); err != nil {
		return err
	}
	if err := n.serve(ctx); err != nil {
		return err
	}
	go n.startAll(ctx)
	how := <-n.shutdown
	n.stopAll(ctx)
	return syscall.Reboot(how)
}

func (n *node) requestShutdown(how int) {
	select {
	case n.shutdown <- how:
	default: // one is under way
	}
}

func mountSystem() error {
	for _, m := range []struct {
		source, path, kind string
		flags              uintptr
		data               string
	}{
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
		{"shm", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"mqueue", "/dev/mqueue", "mqueue", 0, ""},
		{"hugetlbfs", "/dev/hugepages", "hugetlbfs", 0, ""},
		{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"tmp", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate"},
		{"securityfs", "/sys/kernel/security", "securityfs", 0, ""},
		{"debugfs", "/sys/kernel/debug", "debugfs", 0, ""},
		{"bpf", "/sys/fs/bpf", "bpf", 0, ""},
	} {
		if err := os.MkdirAll(m.path, 0o755); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := unix.Mount(m.source, m.path, m.kind, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			if m.kind == "cgroup2" || m.kind == "tmpfs" || m.kind == "devpts" {
				return fmt.Errorf("mount %s: %w", m.path, err)
			}
			logf("mount %s: %v", m.path, err)
		}
	}
	// Kubelet's and the CSI drivers' bidirectional mounts want a shared tree.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	for link, target := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2", "/var/run": "/run"} {
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return enableControllers("/sys/fs/cgroup")
}

func enableControllers(root string) error {
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(b)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			logf("cgroup controller %s: %v", c, err)
		}
	}
	return nil
}

// configure reads the configuration disk and carries out everything in it short of starting processes.
func (n *node) configure() error {
	dev, err := diskPath(nodeapi.DiskConfig)
	if err != nil {
		return err
	}
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer f.Close()
	if n.cfg, err = unpackConfig(f, "/"); err != nil {
		return fmt.Errorf("configuration disk: %w", err)
	}
	if err := n.identity(); err != nil {
		return err
	}
	if err := mountDisk(nodeapi.DiskImages, "/var/lib/containerd", 0, ""); err != nil {
		return err
	}
	for _, m := range n.cfg.Modules {
		if err := n.procs.Run(exec.Command("/usr/sbin/modprobe", m)); err != nil {
			logf("modprobe %s: %v", m, err)
		}
	}
	keys := make([]string, 0, len(n.cfg.Sysctls))
	for k := range n.cfg.Sysctls {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if err := os.WriteFile("/proc/sys/"+k, []byte(n.cfg.Sysctls[k]), 0); err != nil {
			logf("sysctl %s: %v", k, err)
		}
	}
	return setupNetwork(n.cfg)
}

func (n *node) identity() error {
	if err := unix.Sethostname([]byte(n.cfg.Name)); err != nil {
		return err
	}
	id := sha256.Sum256([]byte(n.cfg.MAC + n.cfg.Name))
	hosts := "127.0.0.1 localhost\n"
	for name, addr := range n.cfg.Hosts {
		hosts += addr + " " + name + "\n"
	}
	for file, text := range map[string]string{
		"/etc/hostname":    n.cfg.Name + "\n",
		"/etc/machine-id":  hex.EncodeToString(id[:16]) + "\n",
		"/etc/hosts":       hosts,
		"/etc/resolv.conf": "",
	} {
		// Debian's tree may have links here that lead nowhere.
		_ = os.Remove(file)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"poweroff", "reboot"} {
		if err := os.Symlink(nodeapi.BinDir+"/lab-node", "/usr/local/sbin/"+name); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// unpackConfig reads the tar archive: the configuration first, then files for root.
func unpackConfig(r io.Reader, root string) (nodeapi.Config, error) {
	var cfg nodeapi.Config
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return cfg, err
		}
		if h.Name == nodeapi.ConfigFile {
			if err := json.NewDecoder(t).Decode(&cfg); err != nil {
				return cfg, fmt.Errorf("%s: %w", h.Name, err)
			}
			continue
		}
		if !filepath.IsLocal(h.Name) {
			return cfg, fmt.Errorf("file name %q leads out of the root", h.Name)
		}
		name := filepath.Join(root, h.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return cfg, err
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return cfg, err
		}
		if err := os.WriteFile(name, data, os.FileMode(h.Mode).Perm()); err != nil {
			return cfg, err
		}
	}
	if cfg.Name == "" {
		return cfg, fmt.Errorf("no %s in the archive", nodeapi.ConfigFile)
	}
	return cfg, nil
}

// startAll starts the node's processes in order.
func (n *node) startAll(ctx context.Context) {
	for _, p := range n.cfg.Processes {
		if p.WaitFor != "" {
			waitForFile(ctx, p.WaitFor, 60*time.Second)
		}
		env := append([]string{"PATH=" + path, "HOME=/root"}, p.Env...)
		if err := n.procs.Start(supervise.Spec{
			Name: p.Name, Argv: p.Argv, Env: env, Dir: "/", Output: logPort(p.Name), RestartDelay: time.Second,
		}); err != nil {
			logf("%v", err)
		}
	}
}

func waitForFile(ctx context.Context, path string, limit time.Duration) {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	logf("%s is not there after %s", path, limit)
}

// pipeOnly hides the *os.File, so that os/exec makes a pipe: the port must stay ours over restarts of the process.
type pipeOnly struct{ io.Writer }

// logPort returns where the output of a process goes: its virtio-serial port, or a file where there is none.
func logPort(name string) io.Writer {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err == nil {
		for _, f := range names {
			b, err := os.ReadFile(f)
			if err != nil || strings.TrimSpace(string(b)) != nodeapi.LogPortPrefix+name {
				continue
			}
			port, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(f)), os.O_WRONLY, 0)
			if err != nil {
				logf("log port of %s: %v", name, err)
				break
			}
			return pipeOnly{port}
		}
	}
	f, err := os.OpenFile("/var/log/"+name+".log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		logf("log of %s: %v", name, err)
		return io.Discard
	}
	return f
}

// stopAll ends the node's processes in reverse order, then everything else, and writes the disks.
func (n *node) stopAll(ctx context.Context) {
	logf("stopping")
	procs := slices.Clone(n.cfg.Processes)
	slices.Reverse(procs)
	for _, p := range procs {
		if err := n.procs.Stop(ctx, p.Name, 3*time.Second); err != nil && !errors.Is(err, supervise.ErrUnknown) {
			logf("%v", err)
		}
	}
	_ = unix.Kill(-1, unix.SIGTERM)
	time.Sleep(time.Second)
	_ = unix.Kill(-1, unix.SIGKILL)
	time.Sleep(200 * time.Millisecond)
	unix.Sync()
	for _, dir := range []string{"/var/lib/containerd", "/"} {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			logf("remount %s read-only: %v", dir, err)
		}
	}
}
