package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const prompt = "kubevfio-guest# "

const help = `echo TEXT          say it
uptime             seconds since boot
report             say the report again
lspci              what lspci -nn says
ping ADDRESS [N]   ping a peer
stress SECONDS [MIB]  keep all CPUs busy and touch memory
panic              crash the kernel
poweroff           switch off
sh                 a real shell (busybox)
other words        are run by that shell
`

// shell reads commands from the console until the guest is switched off.
func (g *guest) shell(off chan<- string) {
	in := bufio.NewReader(os.Stdin)
	for {
		fmt.Fprint(g.out, prompt)
		line, err := in.ReadString('\n')
		if err != nil {
			return // no console to read from
		}
		g.command(strings.TrimSpace(line), off)
	}
}

// command carries out one line.
func (g *guest) command(line string, off chan<- string) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "":
	case "help", "?":
		fmt.Fprint(g.out, help)
	case "echo":
		fmt.Fprintln(g.out, rest)
	case "uptime":
		fmt.Fprint(g.out, readTrimmed("/proc/uptime"), "\n")
	case "report":
		g.report()
	case "lspci":
		g.lspci()
	case "stress":
		if err := stress(strings.Fields(rest)); err != nil {
			fmt.Fprintln(g.out, err)
		}
	case "panic":
		if err := crash(); err != nil {
			fmt.Fprintln(g.out, err)
		}
	case "poweroff":
		off <- "shell"
		select {}
	case "sh":
		run(exec.Command("/bin/busybox", "sh", "-i"))
	default:
		run(exec.Command("/bin/busybox", "sh", "-c", line))
	}
}

// run gives the console to a command as its controlling terminal, so that Ctrl-C reaches it and not us.
func run(cmd *exec.Cmd) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if console, err := os.OpenFile("/dev/ttyS0", os.O_RDWR|syscall.O_NOCTTY, 0); err == nil {
		defer console.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = console, console, console
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stdout, err)
	}
}

// stress keeps every CPU busy for some seconds and holds so many MiB of memory, touched.
func stress(args []string) error {
	seconds, mib := 10, 0
	for i, p := range []*int{&seconds, &mib} {
		if i >= len(args) {
			break
		}
		n, err := strconv.Atoi(args[i])
		if err != nil || n < 0 {
			return fmt.Errorf("stress: %q is no number", args[i])
		}
		*p = n
	}
	memory := make([]byte, mib<<20)
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	done := make(chan uint64)
	for range runtime.NumCPU() {
		go func() {
			var n uint64
			for time.Now().Before(end) {
				for range 10000 {
					n = n*6364136223846793005 + 1442695040888963407
				}
			}
			done <- n
		}()
	}
	for range runtime.NumCPU() {
		<-done
	}
	runtime.KeepAlive(memory)
	return nil
}
