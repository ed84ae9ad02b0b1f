package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubevfio/kubevfio/test/lab/nodeapi"
)

const newRoot = "/newroot"

// initramfs runs as /init of the initramfs and returns only on failure.
func initramfs() error {
	for _, m := range []struct{ kind, path string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m.path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.path, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if strings.Contains(string(cmdline), nodeapi.TrialArg) {
		return trial()
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := mountDisk(nodeapi.DiskRoot, newRoot, 0, ""); err != nil {
		return err
	}
	if err := mountDisk(nodeapi.DiskBin, newRoot+nodeapi.BinDir, unix.MS_RDONLY, ""); err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	// The initramfs stays in memory for ever unless it is emptied; the running binary's pages go with the exec.
	for _, p := range []string{"/lib", "/usr", "/modules", "/init"} {
		_ = os.RemoveAll(p)
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	bin := nodeapi.BinDir + "/lab-node"
	return fmt.Errorf("exec %s: %w", bin, unix.Exec(bin, []string{bin}, []string{"PATH=" + path, "HOME=/root", "TERM=linux"}))
}

// trial answers the question whether this machine can run a kernel and Go at all, and guests of its own.
func trial() error {
	word := nodeapi.TrialWord
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, f := range strings.Fields(string(b)) {
			if f == "svm" || f == "vmx" {
				word += " " + nodeapi.TrialNested
				break
			}
		}
	}
	con, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer con.Close()
	fmt.Fprintln(con, word)
	return errors.New("trial done")
}

// loadModules loads the modules listed in a file, one path per line, in order.
func loadModules(list string) error {
	f, err := os.Open(list)
	if err != nil {
		return fmt.Errorf("list of modules: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		p := strings.TrimSpace(lines.Text())
		if p == "" {
			continue
		}
		if !strings.HasPrefix(p, "/") {
			p = "/" + p
		}
		if err := loadModule(p); err != nil && !errors.Is(err, unix.EEXIST) {
			logf("module %s: %v", p, err)
		}
	}
	return lines.Err()
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if ext := filepath.Ext(path); ext == ".xz" || ext == ".zst" || ext == ".gz" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return unix.FinitModule(int(f.Fd()), "", flags)
}

// diskPath waits for the virtio disk with a serial number and returns its device node.
func diskPath(serial string) (string, error) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		names, err := filepath.Glob("/sys/block/*/serial")
		if err != nil {
			return "", err
		}
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == serial {
				return "/dev/" + filepath.Base(filepath.Dir(n)), nil
			}
		}
	}
	return "", fmt.Errorf("no disk with serial number %q", serial)
}

func mountDisk(serial, dir string, flags uintptr, opts string) error {
	dev, err := diskPath(serial)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Programs are read by page faults; each request costs an emulated processor milliseconds, whatever it brings.
	if err := os.WriteFile("/sys/block/"+filepath.Base(dev)+"/queue/read_ahead_kb", []byte("1024"), 0); err != nil {
		logf("disk %s reads ahead by its default: %v", serial, err)
	}
	if err := unix.Mount(dev, dir, "ext4", flags|unix.MS_NOATIME, opts); err != nil {
		return fmt.Errorf("mount %s (disk %q) at %s: %w", dev, serial, dir, err)
	}
	return nil
}
