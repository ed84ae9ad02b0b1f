package host

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below tell Go's scheduler nothing, which halves the cost of reading
// thousands of functions. They may be used only for calls that the kernel
// answers from memory: walking, listing and opening in sysfs. Reading an
// attribute is not among them, for it may wait for a lock that a stuck driver
// holds.

// cname is a name with its ending zero byte in b, which grows when needed.
func cname(b []byte, name string) []byte { return append(append(b, name...), 0) }

func rawOpenat(dir int, name []byte, flags int) (int, error) {
	for {
		fd, _, no := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(flags), 0, 0, 0)
		if no == unix.EINTR {
			continue
		}
		if no != 0 {
			return -1, no
		}
		return int(fd), nil
	}
}

func rawOpenat2(dir int, name []byte, how *unix.OpenHow) (int, error) {
	for {
		fd, _, no := unix.RawSyscall6(unix.SYS_OPENAT2, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(how)), unsafe.Sizeof(*how), 0, 0)
		if no == unix.EINTR || no == unix.EAGAIN {
			continue
		}
		if no != 0 {
			return -1, no
		}
		return int(fd), nil
	}
}

func rawClose(fd int) error {
	if _, _, no := unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0); no != 0 {
		return no
	}
	return nil
}

func rawReadlinkat(dir int, name, buf []byte) (int, error) {
	for {
		n, _, no := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
		if no == unix.EINTR {
			continue
		}
		if no != 0 {
			return 0, no
		}
		return int(n), nil
	}
}

func rawGetdents(dir int, buf []byte) (int, error) {
	for {
		n, _, no := unix.RawSyscall(unix.SYS_GETDENTS64, uintptr(dir), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
		if no == unix.EINTR {
			continue
		}
		if no != 0 {
			return 0, no
		}
		return int(n), nil
	}
}
