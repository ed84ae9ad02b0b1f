package preflight

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/launcher/failure"
)

// HugeMemory is memory of one guest cell that comes from huge pages.
type HugeMemory struct {
	Bytes uint64
	// Nodes are the host's NUMA nodes that it is bound to; none: any.
	Nodes []int
}

const hugepagesField = "spec.domain.memory.hugepages"

// Hugepages checks that each NUMA node that memory is bound to has enough huge
// pages of pageBytes free now, and that this container may have them for all of
// the memory. fsys holds sys/; what the host does not tell is not checked.
// reserve, normally [ReserveHugepages], takes pages and gives them back: the
// limit is often that of the pod's cgroup, which a container cannot read. Nodes
// of different cells must not overlap, as those of a domain do not.
func Hugepages(fsys host.FS, pageBytes uint64, memory []HugeMemory, reserve func(bytes, pageBytes uint64) error) error {
	if pageBytes == 0 {
		return nil
	}
	var total uint64
	for _, m := range memory {
		total += m.Bytes
	}
	if err := hugepageLimit(fsys, pageBytes, total); err != nil {
		return err
	}
	for _, m := range memory {
		if len(m.Nodes) == 0 {
			continue
		}
		var free uint64
		for _, n := range m.Nodes {
			pages, err := number(fsys, fmt.Sprintf("sys/devices/system/node/node%d/hugepages/hugepages-%dkB/free_hugepages", n, pageBytes>>10))
			if errors.Is(err, fs.ErrNotExist) {
				return nil // no NUMA nodes, or none of that page size: QEMU will tell
			}
			if err != nil {
				return fmt.Errorf("read the free huge pages: %w", err)
			}
			free += pages
		}
		if need := (m.Bytes + pageBytes - 1) / pageBytes; free < need {
			return noHugepages("%d huge pages of %s are needed on NUMA node %s of this host, %d are free there; kubelet's memory manager (policy Static) keeps pods apart that would take them from each other",
				need, mib(pageBytes), joinInts(m.Nodes), free)
		}
	}
	if err := reserve(total, pageBytes); err != nil {
		_, resource := hugepageNames(pageBytes)
		return noHugepages("the guest's memory is %s of huge pages of %s, and this container cannot have them: %w; set %s: %dMi in the container's limits (without it there are none for this pod, however many the node has free)",
			mib(total), mib(pageBytes), err, resource, total>>20)
	}
	return nil
}

// ReserveHugepages reserves pages as a mapping does, touches none, and gives
// them back.
func ReserveHugepages(total, pageBytes uint64) error {
	size := (total + pageBytes - 1) / pageBytes * pageBytes
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_HUGETLB | (bits.TrailingZeros64(pageBytes) << unix.MAP_HUGE_SHIFT)
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return fmt.Errorf("reserve %s of huge pages: %w", mib(size), err)
	}
	return unix.Munmap(b)
}

// hugepageNames are the names of a page size in cgroup files and as a resource.
func hugepageNames(pageBytes uint64) (size, resource string) {
	if pageBytes >= 1<<30 {
		n := strconv.FormatUint(pageBytes>>30, 10)
		return n + "GB", "hugepages-" + n + "Gi"
	}
	n := strconv.FormatUint(pageBytes>>20, 10)
	return n + "MB", "hugepages-" + n + "Mi"
}

// hugepageLimit reads the container's own cgroup (v2), where the runtime sets
// the limit there too: 0 for a pod that asks for none.
func hugepageLimit(fsys host.FS, pageBytes, need uint64) error {
	size, resource := hugepageNames(pageBytes)
	limit, err := number(fsys, "sys/fs/cgroup/hugetlb."+size+".max")
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errNoLimit):
		return nil
	case err != nil:
		return fmt.Errorf("read the limit of huge pages: %w", err)
	case limit < need:
		return noHugepages("the guest's memory is %s of huge pages, this container may use %s of them: set %s: %dMi in the container's limits", mib(need), mib(limit), resource, need>>20)
	}
	return nil
}

func noHugepages(format string, args ...any) error {
	return &failure.Error{Reason: launcherrpcv1.ReasonHostCannotHold, Field: hugepagesField, Err: fmt.Errorf(hugepagesField+": "+format, args...)}
}

// errNoLimit: the file says "max".
var errNoLimit = errors.New("no limit")

// number reads a file that holds one number.
func number(fsys host.FS, path string) (uint64, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return 0, errNoLimit
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

func joinInts(list []int) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",")
}
