package cluster

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// cpuLogKeep is how much of a node's CPU log stays: QEMU writes a line at each entry to and exit from a guest.
const cpuLogKeep = 16 << 20

// trimCPULogs keeps the nodes' CPU logs small on disk for as long as the lab is up.
func (d *daemon) trimCPULogs(ctx context.Context) {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, m := range d.nodes {
			if err := trimFront(nodeLog(m.logs, m.node.Name, "cpu"), cpuLogKeep); err != nil {
				d.logf("%v; it grows from here on", err)
				return // the file system cannot
			}
		}
	}
}

// trimFront frees the disk blocks of a file's beginning, all but its last keep bytes. What is freed reads as zeros, and
// offsets stay: whoever writes the file need not know. A file that is not there is no error.
func trimFront(path string, keep int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("trim a log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("trim a log: %w", err)
	}
	const block = 4096
	if n := (info.Size() - keep) / block * block; n > 0 {
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, n); err != nil {
			return fmt.Errorf("trim %s: %w", path, err)
		}
	}
	return nil
}
