package leftover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrLeft says that something is there that was not there before.
var ErrLeft = errors.New("the lab has left something behind")

// programs are the names (comm, cut by the kernel after 15 bytes) of what a lab
// runs in its process tree.
func programs() []string {
	return []string{"qemu-system-x86", "etcd", "kube-apiserver", "kube-controller", "kubevfio-schedu", "containerd", "containerd-shim"}
}

// Host is the part of a host that a lab could leave something in. Each entry is
// a description, as a person would look for it.
type Host struct {
	Processes, Links, Namespaces, Mounts []string
}

// Look reads the host whose procfs, /sys/class/net and /run/netns are below
// root; "/" is this one. Processes count in the caller's PID namespace and in
// those given as [PIDNamespace] answers them: labs of other checkouts are in
// others, and none of our business.
func Look(root string, pidNamespaces ...string) (Host, error) {
	var h Host
	own, err := os.Readlink(filepath.Join(root, "proc/self/ns/pid"))
	if err != nil {
		return h, fmt.Errorf("own PID namespace: %w", err)
	}
	if h.Processes, err = processes(filepath.Join(root, "proc"), append([]string{own}, pidNamespaces...)); err != nil {
		return h, err
	}
	if h.Links, err = names(filepath.Join(root, "sys/class/net")); err != nil {
		return h, err
	}
	if h.Namespaces, err = names(filepath.Join(root, "run/netns")); err != nil {
		return h, err
	}
	b, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return h, fmt.Errorf("list mounts: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		// Field 5 is the mount point, see proc_pid_mountinfo(5).
		if f := strings.Fields(line); len(f) > 4 {
			h.Mounts = append(h.Mounts, f[4])
		}
	}
	return h, nil
}

// names lists a folder; one that is absent is empty.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for leftovers: %w", err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}

// PIDNamespace identifies the PID namespace of a process of this host, as long
// as any process lives in it.
func PIDNamespace(pid int) (string, error) {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return "", fmt.Errorf("PID namespace of process %d: %w", pid, err)
	}
	return ns, nil
}

// processes lists the lab's kind of processes in the namespaces as "name (PID n)".
func processes(proc string, namespaces []string) ([]string, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		comm, err := os.ReadFile(filepath.Join(proc, e.Name(), "comm"))
		if err != nil {
			continue // it has ended since
		}
		ns, err := os.Readlink(filepath.Join(proc, e.Name(), "ns/pid"))
		if err != nil {
			continue // ended, or a zombie that has left its namespace
		}
		if name := strings.TrimSpace(string(comm)); slices.Contains(programs(), name) && slices.Contains(namespaces, ns) {
			out = append(out, fmt.Sprintf("%s (PID %s)", name, e.Name()))
		}
	}
	return out, nil
}

// Since says what is there now and was not before; nil means nothing. The error
// wraps [ErrLeft] and names each thing.
func (h Host) Since(before Host) error {
	var left []string
	for _, k := range []struct {
		kind        string
		now, before []string
	}{
		{"process", h.Processes, before.Processes},
		{"network link", h.Links, before.Links},
		{"network namespace", h.Namespaces, before.Namespaces},
		{"mount", h.Mounts, before.Mounts},
	} {
		rest := slices.Clone(k.before)
		for _, n := range k.now {
			if i := slices.Index(rest, n); i >= 0 {
				rest = slices.Delete(rest, i, i+1)
				continue
			}
			left = append(left, k.kind+" "+n)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrLeft, strings.Join(left, ", "))
}

// Lab is a lab to end; see package cluster.
type Lab interface {
	PID() int
	Down(ctx context.Context) error
}

// Down ends a lab and fails when it has left anything that was not there before.
func Down(ctx context.Context, lab Lab, before Host) error {
	// Its processes are looked for in their own namespace, which is to be gone.
	ns, err := PIDNamespace(lab.PID())
	if err != nil {
		return errors.Join(err, lab.Down(ctx))
	}
	if err := lab.Down(ctx); err != nil {
		return err
	}
	return Check(ctx, before, ns)
}

// Check compares this host with what it was, giving what has just been killed
// up to ten seconds to disappear.
func Check(ctx context.Context, before Host, pidNamespaces ...string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		now, err := Look("/", pidNamespaces...)
		if err != nil {
			return err
		}
		err = now.Since(before)
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}
