package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const prefix = "KUBEVFIO-GUEST "

func main() {
	if filepath.Base(os.Args[0]) == "udhcpc-hook" {
		if err := dhcpHook(os.Args[1:], os.Getenv); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "lab-guest is the init of a test guest; it runs as PID 1 only")
		os.Exit(2)
	}
	g := &guest{sys: "/sys", out: os.Stdout}
	if err := g.run(); err != nil {
		g.say("shutdown reason=%q", err.Error())
	}
	powerOff()
}

// guest is the running system.
type guest struct {
	sys     string // where sysfs is
	mu      sync.Mutex
	out     *os.File
	options map[string]string
}

// say writes one line of the report.
func (g *guest) say(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// In one write, after a line break: the kernel's messages share the console.
	fmt.Fprintf(g.out, "\r"+prefix+format+"\n", args...)
}

// run does everything in order and returns when the guest is to be switched off.
func (g *guest) run() error {
	if err := mounts(); err != nil {
		return err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	g.options = parseOptions(string(cmdline))
	// Kernel messages below warnings stay in the buffer: they would cut the report's lines in two.
	_ = os.WriteFile("/proc/sys/kernel/printk", []byte("4"), 0)
	if err := loadModules(g.sys, "/lib/modules"); err != nil {
		g.say("error modules: %v", err)
	}
	off := make(chan string, 4)
	go watchPowerButton(off)
	go runAgent(g.sys)

	g.say("ready")
	g.report()
	g.network()
	g.say("report-end")
	if g.options["panic"] == "1" {
		return crash()
	}
	if n, err := strconv.Atoi(g.options["poweroff"]); err == nil {
		time.AfterFunc(time.Duration(n)*time.Second, func() { off <- "command line" })
	}
	go g.shell(off)
	g.say("shutdown reason=%q", <-off)
	return nil
}

// mounts mounts the kernel's file systems.
func mounts() error {
	for _, m := range []struct{ kind, path string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		if err := os.MkdirAll(m.path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.path, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	if err := os.Setenv("PATH", "/bin:/usr/bin"); err != nil {
		return err
	}
	return os.Setenv("HOME", "/")
}

// parseOptions answers the kubevfio.* words of a kernel command line, without that prefix.
func parseOptions(cmdline string) map[string]string {
	out := map[string]string{}
	for _, word := range strings.Fields(cmdline) {
		if name, ok := strings.CutPrefix(word, "kubevfio."); ok {
			key, value, _ := strings.Cut(name, "=")
			out[key] = value
		}
	}
	return out
}

// crash panics the kernel.
func crash() error {
	drain()
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
		return fmt.Errorf("panic: %w", err)
	}
	time.Sleep(10 * time.Second)
	return errors.New("the kernel did not panic")
}

// drain waits until the console's bytes have left the serial port: a write only queues them.
func drain() {
	_ = unix.IoctlSetInt(int(os.Stdout.Fd()), unix.TCSBRK, 1) // 1 means tcdrain(3); an error, that there is no terminal
}

func powerOff() {
	drain()
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// inputEvent is the kernel's struct input_event on 64-bit machines, behind its two time fields.
const (
	inputEventSize = 24
	evKey          = 1
	keyPower       = 116
)

// watchPowerButton reads every input device for the press of a power key.
func watchPowerButton(off chan<- string) {
	events, err := filepath.Glob("/dev/input/event*")
	if err != nil {
		return
	}
	for _, path := range events {
		go func() {
			f, err := os.Open(path)
			if err != nil {
				return
			}
			defer f.Close()
			r := bufio.NewReader(f)
			buf := make([]byte, inputEventSize)
			for {
				if _, err := readFull(r, buf); err != nil {
					return
				}
				if isPowerPress(buf) {
					off <- "power button"
				}
			}
		}()
	}
}

func readFull(r *bufio.Reader, buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		k, err := r.Read(buf[n:])
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// isPowerPress tells whether a struct input_event is the press of the power key (kernel documentation: input/input.rst).
func isPowerPress(event []byte) bool {
	if len(event) < inputEventSize {
		return false
	}
	kind := uint16(event[16]) | uint16(event[17])<<8
	code := uint16(event[18]) | uint16(event[19])<<8
	return kind == evKey && code == keyPower && event[20] == 1
}
