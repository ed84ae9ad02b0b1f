// Package seccomp holds the system call filter of launcher pods and installs it
// where kubelet finds Localhost profiles.
//
// It is for package agent. The profile is an allow-list with the meaning of the
// runtime's default profile for a container without capabilities, stricter in
// socket families, ptrace and 32-bit programs, and with what a VM launcher needs
// beyond: the NUMA memory policy calls, and the namespace and mount calls by
// which passt shuts itself in (they act in a user namespace of its own, where the
// kernel gives it capabilities over nothing else).
package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// everyday calls, of x86-64 and arm64 together: runtimes skip names that an
// architecture does not have.
const everyday = `
	accept accept4 access alarm arch_prctl bind brk capget capset chdir chmod chown clock_getres clock_gettime
	clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
	epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat
	faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
	flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_waitv futimesat
	get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer
	getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage
	getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init
	inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl
	ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr
	link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise membarrier memfd_create
	mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr mq_notify
	mq_open mq_timedreceive mq_timedsend mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall
	munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe
	pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease
	pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg
	remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
	rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
	sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
	sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
	sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list
	set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid
	setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt shmget shutdown
	sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync sync_file_range
	syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime
	timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime
	utimensat utimes vfork wait4 waitid write writev
`

// memoryPolicy is for binding guest memory to NUMA nodes.
const memoryPolicy = "get_mempolicy mbind set_mempolicy"

// namespaces is for passt's isolation of itself.
const namespaces = "clone clone3 mount pivot_root setns umount2 unshare"

// socketFamilies that launchers use: no vsock, no kernel crypto, no exotic ones.
var socketFamilies = [...]uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET}

// personalities that programs ask for: query, Linux and its variants without
// address space randomisation changes.
var personalities = [...]uint64{0, 0x8, 0x20000, 0x20008, 0xffffffff}

// profile is the file format that runtimes read (OCI's seccomp section).
type profile struct {
	DefaultAction   string   `json:"defaultAction"`
	DefaultErrnoRet uint     `json:"defaultErrnoRet"`
	Architectures   []string `json:"architectures"`
	Syscalls        []rule   `json:"syscalls"`
}

type rule struct {
	Names  []string `json:"names"`
	Action string   `json:"action"`
	Args   []arg    `json:"args,omitempty"`
}

type arg struct {
	Index uint   `json:"index"`
	Value uint64 `json:"value"`
	Op    string `json:"op"`
}

const allow = "SCMP_ACT_ALLOW"

// ErrArch: there is no profile for this architecture.
var ErrArch = errors.New("no seccomp profile for this architecture")

// Profile is the profile as JSON for a GOARCH of amd64 or arm64; another is
// [ErrArch].
func Profile(goarch string) ([]byte, error) {
	var arch string
	switch goarch {
	case "amd64":
		arch = "SCMP_ARCH_X86_64"
	case "arm64":
		arch = "SCMP_ARCH_AARCH64"
	default:
		return nil, fmt.Errorf("%w: %s", ErrArch, goarch)
	}
	names := strings.Fields(everyday + " " + memoryPolicy + " " + namespaces)
	slices.Sort(names)
	p := profile{
		DefaultAction: "SCMP_ACT_ERRNO", DefaultErrnoRet: uint(unix.EPERM),
		Architectures: []string{arch},
		Syscalls:      []rule{{Names: names, Action: allow}},
	}
	for _, f := range socketFamilies {
		p.Syscalls = append(p.Syscalls, rule{Names: []string{"socket"}, Action: allow, Args: []arg{{Index: 0, Value: f, Op: "SCMP_CMP_EQ"}}})
	}
	for _, v := range personalities {
		p.Syscalls = append(p.Syscalls, rule{Names: []string{"personality"}, Action: allow, Args: []arg{{Index: 0, Value: v, Op: "SCMP_CMP_EQ"}}})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(p); err != nil {
		return nil, fmt.Errorf("encode seccomp profile: %w", err)
	}
	return b.Bytes(), nil
}

// Install writes the profile below kubelet's seccomp root (normally
// /var/lib/kubelet/seccomp), replacing an older one at once. It reports whether
// it changed the file.
func Install(root string) (changed bool, err error) {
	want, err := Profile(runtime.GOARCH)
	if err != nil {
		return false, err
	}
	path := filepath.Join(root, v1alpha1.SeccompProfile)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want) {
		return false, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read seccomp profile: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("make seccomp folder: %w", err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, want, 0o644); err != nil {
		return false, fmt.Errorf("write seccomp profile: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return false, fmt.Errorf("put seccomp profile in place: %w", err)
	}
	return true, nil
}
