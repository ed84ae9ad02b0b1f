package virt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// daemonUp is how long libvirtd may take until it listens.
const daemonUp = 30 * time.Second

// DaemonSocket is where the private session daemon listens. virsh reaches it in
// the container by qemu+unix:///session?socket=PATH.
func DaemonSocket(root string) string {
	return filepath.Join(root, "xdg", "libvirt", "libvirt-sock")
}

// EnsureDaemon starts a private session libvirtd with its files below root,
// unless one of an earlier supervisor still answers. It lives on when this
// process dies. program is libvirtd, by name or path.
func EnsureDaemon(ctx context.Context, root, program string) error {
	socket := DaemonSocket(root)
	if answers(ctx, socket) {
		return nil
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove libvirtd's old socket: %w", err)
	}
	conf := filepath.Join(root, "config", "libvirt", "libvirtd.conf")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf("log_outputs = \"3:file:%s\"\n", LogFile(root))), 0o600); err != nil {
		return fmt.Errorf("prepare libvirtd's configuration: %w", err)
	}
	logPath := filepath.Join(root, "libvirtd.out")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open libvirtd's output: %w", err)
	}
	cmd := exec.Command(program, "--config", conf, "--pid-file", filepath.Join(root, "libvirtd.pid"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return fmt.Errorf("%w: start %s (the image for --libvirt=daemon has it): %w", ErrNotSupported, program, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	late := time.After(daemonUp)
	for {
		select {
		case err := <-ended:
			words, rerr := os.ReadFile(logPath)
			if rerr != nil {
				words = nil
			}
			return fmt.Errorf("%s ended: %w: %.500s", program, err, words)
		case <-late:
			return fmt.Errorf("%s does not listen on %s within %s", program, socket, daemonUp)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
			if answers(ctx, socket) {
				return nil
			}
		}
	}
}

func answers(ctx context.Context, socket string) bool {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
