// Package uevent hears the kernel's device events about PCI functions.
//
// It is for package agent, whose slow poll makes up for events that are lost.
// Trap: the kernel sends device events to a namespace of its own choosing: those
// about PCI devices reach the first network namespace only, so the socket is
// opened there.
package uevent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubevfio/kubevfio/topology"
)

// ErrListen is the class of errors about the event socket.
var ErrListen = errors.New("listen for device events")

// Event is something that happened to a PCI function, or to all (Address nil)
// when events were lost.
type Event struct {
	Address *topology.Address
	Action  string
}

// Parse reads a message of the kernel ("add@/devices/…" and NUL-separated
// KEY=value pairs). False means that it is not about PCI functions or VFIO.
func Parse(b []byte) (Event, bool) {
	head, rest, ok := bytes.Cut(b, []byte{0})
	if !ok || !bytes.Contains(head, []byte("@/")) {
		return Event{}, false // udev's own messages begin with "libudev"
	}
	var e Event
	var subsystem, path string
	for field := range bytes.SplitSeq(rest, []byte{0}) {
		k, v, _ := strings.Cut(string(field), "=")
		switch k {
		case "ACTION":
			e.Action = v
		case "SUBSYSTEM":
			subsystem = v
		case "DEVPATH":
			path = v
		}
	}
	switch subsystem {
	case "pci", "net", "vfio-dev", "drm":
	case "vfio":
		return e, true // a group came or went; its name says nothing lasting
	default:
		return Event{}, false
	}
	// The function is the last PCI address of the path.
	for part := range strings.SplitSeq(path, "/") {
		if a, err := topology.ParseAddress(part); err == nil {
			e.Address = &a
		}
	}
	return e, e.Address != nil
}

// Listen calls f for each event until ctx ends. nsFile is the network namespace
// to listen in, normally /proc/1/ns/net; empty means the own one.
func Listen(ctx context.Context, nsFile string, f func(Event)) error {
	fd, err := open(nsFile)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrListen, err)
	}
	defer unix.Close(fd) //nolint:errcheck // only a descriptor
	tv := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("%w: %w", ErrListen, err)
	}
	buf := make([]byte, 16<<10)
	for ctx.Err() == nil {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			f(Event{Action: "lost"})
			continue
		case err != nil:
			return fmt.Errorf("%w: %w", ErrListen, err)
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue // not from the kernel
		}
		if e, ok := Parse(buf[:n]); ok {
			f(e)
		}
	}
	return ctx.Err()
}

// open makes the socket on a thread of its own, which visits the namespace and
// is thrown away.
func open(nsFile string) (int, error) {
	type result struct {
		fd  int
		err error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := func() (int, error) {
			if nsFile != "" {
				ns, err := os.Open(nsFile)
				if err != nil {
					return -1, err
				}
				defer ns.Close()
				if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
					return -1, fmt.Errorf("enter %s: %w", nsFile, err)
				}
			}
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
			if err != nil {
				return -1, err
			}
			if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
				return -1, errors.Join(err, unix.Close(fd))
			}
			return fd, nil
		}()
		c <- result{fd, err}
	}()
	r := <-c
	return r.fd, r.err
}
