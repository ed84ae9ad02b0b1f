package seccomp

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

func TestProfile(t *testing.T) {
	b, err := Profile("amd64")
	if err != nil {
		t.Fatal(err)
	}
	var p profile
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	if p.DefaultAction != "SCMP_ACT_ERRNO" {
		t.Errorf("default action %s", p.DefaultAction)
	}
	var free []string
	for _, r := range p.Syscalls {
		if r.Action != allow {
			t.Errorf("rule %v has action %s", r.Names, r.Action)
		}
		if len(r.Args) == 0 {
			free = append(free, r.Names...)
		}
	}
	if !slices.IsSorted(free) || len(slices.Compact(slices.Clone(free))) != len(free) {
		t.Error("names are not sorted and distinct")
	}
	// What the runtime's default refuses a container without capabilities, and we refuse too.
	for _, no := range []string{"acct", "add_key", "bpf", "clock_settime", "delete_module", "finit_module", "fsopen", "fsmount", "init_module",
		"io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "move_mount", "move_pages", "open_by_handle_at",
		"open_tree", "perf_event_open", "personality", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "reboot",
		"request_key", "setdomainname", "sethostname", "settimeofday", "socket", "swapon", "swapoff", "syslog", "userfaultfd", "vhangup", "chroot"} {
		if slices.Contains(free, no) {
			t.Errorf("%s is allowed without condition", no)
		}
	}
	// What launchers need beyond it.
	for _, yes := range []string{"mbind", "set_mempolicy", "get_mempolicy", "unshare", "setns", "clone", "clone3", "mount", "umount2", "pivot_root",
		"execve", "openat", "ioctl", "mlock", "mlockall", "futex", "ppoll", "memfd_create", "prlimit64", "eventfd2"} {
		if !slices.Contains(free, yes) {
			t.Errorf("%s is missing", yes)
		}
	}
	if _, err := Profile("mips"); !errors.Is(err, ErrArch) {
		t.Errorf("unknown architecture: %v", err)
	}
}

func TestInstall(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("no profile for this architecture")
	}
	root := t.TempDir()
	for i, want := range []bool{true, false} {
		changed, err := Install(root)
		if err != nil || changed != want {
			t.Fatalf("install %d: changed %v, %v", i, changed, err)
		}
	}
	path := filepath.Join(root, v1alpha1.SeccompProfile)
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := Install(root); err != nil || !changed {
		t.Fatalf("a foreign profile stays: %v, %v", changed, err)
	}
}
