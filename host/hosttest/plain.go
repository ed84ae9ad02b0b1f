package hosttest

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// plainFiles are what the reader reads of a function, beside links and the
// listing of its directory.
var plainFiles = []string{"uevent", "revision", "numa_node", "driver_override", "enable", "resource", "reset_method"}

// plainPF are what it reads of functions that are no VF.
var plainPF = []string{"current_link_speed", "max_link_speed", "current_link_width", "max_link_width", "sriov_totalvfs", "sriov_numvfs"}

// PlainRead is the limit of how fast a host can be read: a plain loop over package os that reads the same
// files and links, and makes nothing of them. It reads uevent, revision and
// resource of every VF; our reader takes them from one VF of each PF, for they
// are alike by specification. It returns the number of bytes read.
func PlainRead(root string) (n int, err error) {
	devices := filepath.Join(root, "sys/bus/pci/devices")
	entries, err := os.ReadDir(devices)
	if err != nil {
		return 0, err
	}
	groups := map[string]bool{}
	for _, e := range entries {
		t, err := os.Readlink(filepath.Join(devices, e.Name()))
		if err != nil {
			return n, err
		}
		dir := filepath.Join(devices, t)
		list, err := os.ReadDir(dir)
		if err != nil {
			return n, err
		}
		vf := false
		for _, x := range list {
			if x.Type()&fs.ModeSymlink == 0 || x.Name() == "subsystem" {
				continue
			}
			l, err := os.Readlink(filepath.Join(dir, x.Name()))
			if err != nil {
				return n, err
			}
			vf = vf || x.Name() == "physfn"
			if x.Name() == "iommu_group" {
				groups[path.Base(l)] = true
			}
		}
		for _, f := range plainFiles {
			if b, err := os.ReadFile(filepath.Join(dir, f)); err == nil {
				n += len(b)
			}
		}
		if vf {
			continue
		}
		for _, f := range plainPF {
			if b, err := os.ReadFile(filepath.Join(dir, f)); err == nil {
				n += len(b)
			}
		}
	}
	for g := range groups {
		b, err := os.ReadFile(filepath.Join(root, "sys/kernel/iommu_groups", g, "type"))
		if err != nil {
			return n, err
		}
		n += len(b)
	}
	for _, c := range []string{"net", "infiniband", "block", "vfio-dev"} {
		dir := filepath.Join(root, "sys/class", c)
		list, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, x := range list {
			if _, err := os.Readlink(filepath.Join(dir, x.Name())); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}
