// Command kubevfio-write-attr makes the node agent's writes to sysfs: a write that
// the kernel holds up would hold a thread of the agent for ever. It is a program of
// its own because it is small: the agent's takes ten times as long to start, at a
// node's boot when time is short.
//
// It reads pairs of frames (LENGTH:FILE, LENGTH:VALUE) from its standard input and
// answers each with the kernel's error number in a line, 0 for none. It is not for
// people.
package main

import (
	"os"

	"github.com/kubevfio/kubevfio/host"
)

func main() { os.Exit(host.WriteAttrMain(os.Stdin, os.Stdout)) }
