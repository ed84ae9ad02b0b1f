package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	"github.com/kubevfio/kubevfio/test/lab/artifacts"
)

// nodeBinaries are the programs on a node's disk of binaries.
var nodeBinaries = [...]string{"lab-node", "containerd", "containerd-shim-runc-v2", "ctr", "kubelet", "kube-proxy"}

// binDisk makes the file system image that nodes mount their binaries from, or finds it as made before, and returns its path.
// Copying 300 MB into a node under emulation would take longer than its whole boot.
func binDisk(ctx context.Context, dir stateDir, set *artifacts.Set) (string, error) {
	key := sha256.New()
	var total int64
	names := append([]string(nil), nodeBinaries[:]...)
	sort.Strings(names)
	for _, name := range names {
		path, ok := set.Bin[name]
		if !ok {
			return "", fmt.Errorf("%w: no binary %q among the artifacts", ErrConfig, name)
		}
		st, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		total += st.Size()
		fmt.Fprintf(key, "%s %s %d %d\n", name, path, st.Size(), st.ModTime().UnixNano())
	}
	image := dir.path("bin-" + hex.EncodeToString(key.Sum(nil)[:8]) + ".ext4")
	old, err := filepath.Glob(dir.path("bin-*"))
	if err != nil {
		return "", err
	}
	for _, f := range old {
		if f == image {
			return image, nil
		}
	}
	for _, f := range old {
		if err := os.RemoveAll(f); err != nil {
			return "", err
		}
	}
	stage := dir.path("stage")
	if err := os.MkdirAll(stage, 0o755); err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(stage) }() // the next clean removes what is left
	for _, name := range names {
		// A link where possible: mke2fs reads the file anyway.
		to := filepath.Join(stage, name)
		if err := os.Link(set.Bin[name], to); err == nil {
			continue
		}
		b, err := os.ReadFile(set.Bin[name])
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			return "", err
		}
	}
	tmp := dir.path("stage.ext4")
	cmd := exec.CommandContext(ctx, hostTool("mke2fs"), "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0",
		"-d", stage, tmp, fmt.Sprintf("%dM", total>>20+32))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("disk of binaries: mke2fs: %w: %s", err, bytes.TrimSpace(out))
	}
	return image, os.Rename(tmp, image)
}

// hostTool finds a program also where root's PATH lacks the sbin folders.
func hostTool(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/sbin/" + name
}

// makeDisks writes a node's configuration disk, the overlays over the shared images, and an NVMe disk for the tests.
// run executes a command with the jail as root directory.
func makeDisks(m machine, set *artifacts.Set, archive []byte, run func(*exec.Cmd) error) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	// A virtio disk's size is a multiple of 512; tar's is as well.
	if err := os.WriteFile(m.file("config.tar"), archive, 0o600); err != nil {
		return err
	}
	nvme, err := os.Create(m.file("nvme.raw"))
	if err != nil {
		return err
	}
	if err := errors.Join(nvme.Truncate(64<<20), nvme.Close()); err != nil {
		return err
	}
	for overlay, base := range map[string]string{"root.qcow2": set.NodeRootDisk, "images.qcow2": set.ImagesDisk} {
		var out bytes.Buffer
		cmd := exec.Command("/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, m.file(overlay))
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := run(cmd); err != nil {
			return fmt.Errorf("overlay over %s: %w: %s", base, err, strings.TrimSpace(out.String()))
		}
	}
	return nil
}
