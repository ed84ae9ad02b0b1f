package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

func main() {
	switch name := filepath.Base(os.Args[0]); {
	case name == "init" && os.Getpid() == 1:
		if err := initramfs(); err != nil {
			logf("initramfs: %v", err)
		}
		// PID 1 must not return: the kernel would panic. A lab without a root disk is of no use either way.
		_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	case name == "poweroff" || name == "reboot":
		sig := syscall.SIGUSR2
		if name == "reboot" {
			sig = syscall.SIGTERM
		}
		if err := syscall.Kill(1, sig); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
	case os.Getpid() == 1:
		if err := runNode(); err != nil {
			logf("fatal: %v", err)
		}
		syscall.Sync()
		_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	default:
		fmt.Fprintln(os.Stderr, "lab-node is the init of a lab node; it runs as PID 1 only")
		os.Exit(2)
	}
}

// logf writes a line to the kernel log as a warning, so that it reaches the serial console, too.
func logf(format string, args ...any) {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab-node: "+format+"\n", args...)
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "<4>lab-node: "+format+"\n", args...)
}
