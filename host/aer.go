package host

import (
	"bytes"
	"strconv"

	"github.com/kubevfio/kubevfio/topology"
)

// FatalErrors is how many fatal errors the PCIe link of a function has reported since
// it appeared; ok is false where the kernel does not count them (no AER, or not the
// host's). Source: the kernel's Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats.
func FatalErrors(fsys FS, a topology.Address) (n uint64, ok bool) {
	dir := pciDevicesDir + "/" + a.String()
	if t, err := fsys.ReadLink(dir); err == nil {
		dir = resolve(pciDevicesDir, t)
	}
	d, err := openDir(fsys, dir)
	if err != nil {
		return 0, false
	}
	defer d.close()
	b, err := d.read("aer_dev_fatal", make([]byte, 4096))
	if err != nil {
		return 0, false
	}
	return parseFatal(b)
}

// parseFatal reads the total of aer_dev_fatal: lines of a name and a number, the last
// of which is TOTAL_ERR_FATAL.
func parseFatal(b []byte) (uint64, bool) {
	for line := range bytes.Lines(b) {
		name, number, found := bytes.Cut(bytes.TrimSpace(line), []byte{' '})
		if !found || string(name) != "TOTAL_ERR_FATAL" {
			continue
		}
		n, err := strconv.ParseUint(string(bytes.TrimSpace(number)), 10, 64)
		return n, err == nil
	}
	return 0, false
}
