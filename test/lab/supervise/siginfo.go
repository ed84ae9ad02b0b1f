package supervise

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoPID returns si_pid of a siginfo that waitid filled. Package unix keeps the union's fields private; by the kernel's
// include/uapi/asm-generic/siginfo.h the union starts at a multiple of the pointer size after three ints, with si_pid first.
func siginfoPID(info *unix.Siginfo) int {
	const offset = 16
	return int(*(*int32)(unsafe.Pointer(uintptr(unsafe.Pointer(info)) + offset)))
}
