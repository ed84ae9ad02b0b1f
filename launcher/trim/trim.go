// Package trim gives back the memory that a process needed only for its start,
// so that the launcher next to an idle guest stays small.
//
// It is for PID 1 and the supervisor, which are large programs (Kubernetes'
// types, gRPC, libvirt) that do next to nothing once a guest runs. Besides the
// Go heap it drops the process' own mappings of program text that was only read
// once: the pages come back from the page cache when they are touched again.
//
// Trap: dropping is safe for mappings that hold nothing of this process alone.
// Read-only mappings can hold copies of pages (relocations), so the kernel's
// count of anonymous pages in a mapping decides, not the permissions.
package trim

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Idle frees unused heap and drops clean file mappings of this process. It
// returns the number of bytes that were resident in the mappings dropped.
func Idle() (uint64, error) {
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, fmt.Errorf("trim: %w", err)
	}
	defer f.Close()
	maps, err := parse(f)
	if err != nil {
		return 0, fmt.Errorf("trim: %w", err)
	}
	var dropped uint64
	for _, m := range maps {
		if !m.clean() {
			continue
		}
		// No pointer of ours is involved: the range is the kernel's own answer.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(m.start), uintptr(m.end-m.start), unix.MADV_DONTNEED); errno != 0 {
			return dropped, fmt.Errorf("trim: madvise %x-%x: %w", m.start, m.end, errno)
		}
		dropped += m.rss
	}
	return dropped, nil
}

// mapping is an entry of smaps, sizes in bytes.
type mapping struct {
	start, end uint64
	perms      string
	file       bool
	// own are bytes that are not the file's: copied, swapped out or locked.
	rss, own uint64
}

// clean says whether the mapping can be dropped without loss.
func (m mapping) clean() bool {
	return m.file && m.rss > 0 && m.own == 0 && !strings.Contains(m.perms, "w") && strings.HasSuffix(m.perms, "p")
}

// parse reads the format of /proc/PID/smaps (kernel: filesystems/proc).
func parse(r io.Reader) ([]mapping, error) {
	var maps []mapping
	in := bufio.NewScanner(r)
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) >= 5 && strings.Contains(f[0], "-") {
			lo, hi, _ := strings.Cut(f[0], "-")
			start, err := strconv.ParseUint(lo, 16, 64)
			if err != nil {
				return nil, fmt.Errorf("mapping %q: %w", in.Text(), err)
			}
			end, err := strconv.ParseUint(hi, 16, 64)
			if err != nil {
				return nil, fmt.Errorf("mapping %q: %w", in.Text(), err)
			}
			maps = append(maps, mapping{start: start, end: end, perms: f[1], file: len(f) > 5 && strings.HasPrefix(f[5], "/")})
			continue
		}
		if len(f) < 3 || len(maps) == 0 {
			continue
		}
		m := &maps[len(maps)-1]
		var into *uint64
		switch f[0] {
		case "Rss:":
			into = &m.rss
		case "Anonymous:", "Swap:", "Locked:":
			into = &m.own
		default:
			continue
		}
		kib, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("smaps line %q: %w", in.Text(), err)
		}
		*into += kib << 10
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	return maps, nil
}
