package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/launcher/failure"
	"github.com/kubevfio/kubevfio/topology"
)

// Nodes are the device nodes below a /dev. The zero value is not usable.
type Nodes struct {
	// Dev is normally "/dev".
	Dev string
}

// KVM checks that /dev/kvm opens for reading and writing.
func (n Nodes) KVM() error {
	path := filepath.Join(n.Dev, "kvm")
	err := tryOpen(path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return failure.Newf(launcherrpcv1.ReasonDeviceNotViable, "%s is not in this container: request %q: 1 in the pod's limits", path, v1alpha1.ResourceKVM)
	default:
		return failure.Newf(launcherrpcv1.ReasonDeviceNotViable, "%s: %w; %s", path, err, whose(path))
	}
}

// VFIO checks that the nodes of all given devices' groups open for reading and
// writing, and the container node that goes with them.
func (n Nodes) VFIO(h *topology.Host, given Given) error {
	groups := map[topology.Address]int{}
	for i := range h.Functions {
		groups[h.Functions[i].Address] = h.Functions[i].IOMMUGroup
	}
	first := true
	for _, r := range slices.Sorted(maps.Keys(given)) {
		for _, a := range given[r] {
			if first {
				if err := n.vfioNode(a, "vfio"); err != nil {
					return err
				}
				first = false
			}
			if err := n.vfioNode(a, strconv.Itoa(groups[a])); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n Nodes) vfioNode(a topology.Address, name string) error {
	path := filepath.Join(n.Dev, "vfio", name)
	err := tryOpen(path)
	var why string
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		why = "the node is not in this container: the device plugin or the runtime's CDI support did not add it"
	case errors.Is(err, unix.EBUSY):
		why = "another process has the group open"
	default:
		why = whose(path)
	}
	return failure.Address(launcherrpcv1.ReasonDeviceNotViable, a.String(), fmt.Errorf("device %s: %s: %w; %s", a, path, err, why))
}

func tryOpen(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// whose says who owns a node and who asks.
func whose(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "its owner is unknown"
	}
	return fmt.Sprintf("it belongs to %d:%d with mode %#o, this process is %d:%d", st.Uid, st.Gid, st.Mode&0o777, os.Geteuid(), os.Getegid())
}
