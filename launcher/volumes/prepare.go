package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/launcher/domain"
)

// Tools are the programs that are needed, by path or name.
type Tools struct {
	QEMUImg, Virtiofsd string
}

// DefaultTools are those of the launcher image (Debian's paths).
func DefaultTools() Tools {
	return Tools{QEMUImg: "qemu-img", Virtiofsd: "/usr/libexec/virtiofsd"}
}

// sharesUp is how long virtiofsd may take to make its socket.
const sharesUp = 10 * time.Second

// Prepare makes the files that the launcher owns among the places of a spec's
// volumes. It may be called again after a supervisor died: what holds the
// guest's data stays.
func Prepare(ctx context.Context, spec *v1alpha1.VirtualMachineInstanceSpec, places map[string]domain.Volume, id Identity, root string, tools Tools) error {
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		p := places[v.Name]
		field := fmt.Sprintf("spec.volumes[%d]", i)
		var err error
		switch {
		case v.ContainerDisk != nil:
			err = overlay(ctx, tools.QEMUImg, p)
		case v.EmptyDisk != nil:
			err = emptyDisk(p.Path, v.EmptyDisk.Capacity.Value())
		case v.CloudInitNoCloud != nil:
			if id.Keys, err = sshKeys(spec, false, root); err == nil {
				err = cloudInit(v.CloudInitNoCloud, false, id, field+".cloudInitNoCloud", root, p.Path)
			}
		case v.CloudInitConfigDrive != nil:
			if id.Keys, err = sshKeys(spec, true, root); err == nil {
				err = cloudInit(v.CloudInitConfigDrive, true, id, field+".cloudInitConfigDrive", root, p.Path)
			}
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}

func folderOf(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	return nil
}

// overlay makes an empty qcow2 over an image that the guest must not write.
func overlay(ctx context.Context, qemuImg string, p domain.Volume) error {
	if err := folderOf(p.Overlay); err != nil {
		return err
	}
	if _, err := os.Stat(p.Overlay); err == nil {
		return nil
	}
	format := p.Format
	if format == "" {
		format = "raw"
	}
	// By another name first: a half-made overlay must not be taken for one.
	fresh := p.Overlay + ".new"
	cmd := exec.CommandContext(ctx, qemuImg, "create", "-q", "-f", "qcow2", "-F", format, "-b", p.Path, fresh)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the overlay of %s: %w: %.500s", p.Path, err, out)
	}
	if err := os.Rename(fresh, p.Overlay); err != nil {
		return fmt.Errorf("make the overlay of %s: %w", p.Path, err)
	}
	return nil
}

func emptyDisk(path string, size int64) error {
	if err := folderOf(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make the empty disk: %w", err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return fmt.Errorf("make the empty disk: %w", err)
	}
	return nil
}

func cloudInit(src *v1alpha1.CloudInitSource, configDrive bool, id Identity, field, root, path string) error {
	if err := folderOf(path); err != nil {
		return err
	}
	label, files, err := cloudFiles(src, configDrive, id, field, root)
	if err != nil {
		return err
	}
	return writeISO(path, label, files)
}

// Share starts virtiofsd for each of the guest's filesystems and waits for the
// sockets. Its own sandbox needs privileges and is off: the container is the
// sandbox. The processes live on when this one dies.
func Share(ctx context.Context, spec *v1alpha1.VirtualMachineInstanceSpec, places map[string]domain.Volume, logDir string, tools Tools) error {
	for i := range spec.Domain.Devices.Filesystems {
		name := spec.Domain.Devices.Filesystems[i].Name
		p := places[name]
		if err := folderOf(p.Socket); err != nil {
			return fmt.Errorf("share %s: %w", name, err)
		}
		if err := os.Remove(p.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("share %s: %w", name, err)
		}
		logPath := filepath.Join(logDir, "virtiofsd-"+name+".log")
		log, err := os.Create(logPath)
		if err != nil {
			return fmt.Errorf("share %s: %w", name, err)
		}
		cmd := exec.Command(tools.Virtiofsd, "--socket-path="+p.Socket, "--shared-dir="+p.Path, "--sandbox=none", "--log-level=warn")
		cmd.Stdout, cmd.Stderr = log, log
		// A session of its own: what is typed at the container's terminal is not
		// for it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := errors.Join(cmd.Start(), log.Close()); err != nil {
			return fmt.Errorf("share %s: start virtiofsd: %w", name, err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		if err := waitFor(ctx, p.Socket, ended); err != nil {
			words, rerr := os.ReadFile(logPath)
			if rerr != nil {
				words = nil
			}
			return fmt.Errorf("share %s (%s): virtiofsd: %w: %.500s", name, p.Path, err, words)
		}
	}
	return nil
}

func waitFor(ctx context.Context, socket string, ended <-chan error) error {
	late := time.After(sharesUp)
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("ended: %w", err)
		case <-late:
			return fmt.Errorf("no socket within %s", sharesUp)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
			// Not by connecting: virtiofsd serves one connection, QEMU's.
			if st, err := os.Stat(socket); err == nil && st.Mode()&fs.ModeSocket != 0 {
				return nil
			}
		}
	}
}

var _ domain.Looker = Files{}
