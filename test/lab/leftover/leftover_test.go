package leftover

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLook(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"proc/1/comm":         "systemd\n",
		"proc/77/comm":        "qemu-system-x86\n", // our lab's
		"proc/78/comm":        "qemu-system-x86\n", // another lab's
		"proc/self/mountinfo": "22 1 0:20 / / rw - ext4 /dev/vda rw\n40 22 0:33 / /mnt/a\\040b rw,nosuid - tmpfs none rw\n",
		"sys/class/net/lo":    "",
		"sys/class/net/tap0":  "",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for pid, ns := range map[string]string{"self": "pid:[1]", "77": "pid:[2]", "78": "pid:[3]", "1": "pid:[1]"} {
		dir := filepath.Join(root, "proc", pid, "ns")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(ns, filepath.Join(dir, "pid")); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Look(root, "pid:[2]")
	if err != nil {
		t.Fatal(err)
	}
	want := Host{Processes: []string{"qemu-system-x86 (PID 77)"}, Links: []string{"lo", "tap0"}, Mounts: []string{"/", "/mnt/a\\040b"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestSince(t *testing.T) {
	before := Host{Processes: []string{"etcd (PID 5)"}, Links: []string{"lo", "eth0"}, Mounts: []string{"/", "/tmp"}}
	tests := []struct {
		name string
		now  Host
		want string // empty: nothing left
	}{
		{"same", before, ""},
		{"less is fine", Host{Links: []string{"lo"}}, ""},
		{"process", Host{Processes: []string{"etcd (PID 5)", "etcd (PID 6)"}}, "process etcd (PID 6)"},
		{"link", Host{Links: []string{"lo", "tap0", "eth0"}}, "network link tap0"},
		{"namespace", Host{Namespaces: []string{"lab"}}, "network namespace lab"},
		{"mounted twice", Host{Mounts: []string{"/", "/tmp", "/tmp"}}, "mount /tmp"},
		{"several", Host{Links: []string{"br0"}, Mounts: []string{"/x"}}, "network link br0, mount /x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.now.Since(before)
			if tt.want == "" {
				if err != nil {
					t.Errorf("unexpected: %v", err)
				}
				return
			}
			if !errors.Is(err, ErrLeft) || !strings.HasSuffix(err.Error(), ": "+tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestCheckFinds proves on this very host that a process of a lab's kind is found.
func TestCheckFinds(t *testing.T) {
	before, err := Look("/")
	if err != nil {
		t.Fatal(err)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	fake := filepath.Join(t.TempDir(), "etcd")
	if err := os.WriteFile(fake, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(fake, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	left := Check(ctx, before)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if !errors.Is(left, ErrLeft) || !strings.Contains(left.Error(), "process etcd") {
		t.Errorf("a running process called etcd was not found: %v", left)
	}
}
