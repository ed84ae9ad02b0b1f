package launcher

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// sysfs makes a host with a card of two virtual functions in one IOMMU group
// and one of its own. It is no copy of a real one, but of the same form.
func sysfs(t *testing.T, driver string) func(dir string) {
	return func(dir string) {
		root := "sys/devices/pci0000:40/0000:40:01.0/"
		write := func(path, text string) {
			t.Helper()
			path = filepath.Join(dir, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		link := func(target, path string) {
			t.Helper()
			path = filepath.Join(dir, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		}
		for address, f := range map[string]struct{ driver, group string }{
			"0000:41:10.0": {"vfio-pci", "12"},
			"0000:41:10.2": {driver, "12"},
			"0000:41:10.4": {"vfio-pci", "13"},
		} {
			d := root + address
			write(d+"/vendor", "0x8086\n")
			write(d+"/device", "0x10ca\n")
			write(d+"/class", "0x020000\n")
			write(d+"/subsystem_vendor", "0x8086\n")
			write(d+"/subsystem_device", "0x0000\n")
			write(d+"/revision", "0x01\n")
			write(d+"/numa_node", "0\n")
			write(d+"/resource", "0x0000000000000000 0x0000000000000000 0x0000000000000000\n")
			link("../../../../bus/pci/drivers/"+f.driver, d+"/driver")
			link("../../../../kernel/iommu_groups/"+f.group, d+"/iommu_group")
			link("../../../devices/pci0000:40/0000:40:01.0/"+address, "sys/bus/pci/devices/"+address)
			write("sys/kernel/iommu_groups/"+f.group+"/type", "DMA\n")
		}
		// Without KVM the test has no VFIO either: plain files stand for the nodes.
		for _, n := range []string{"vfio", "12", "13"} {
			write("dev/vfio/"+n, "")
			if err := os.Chmod(filepath.Join(dir, "dev/vfio", n), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		write("proc/self/status", "Cpus_allowed_list:\t0\nMems_allowed_list:\t0\n")
	}
}

const oneVF = `    interfaces:
    - {name: vf0, sriov: {deviceName: kubevfio.io/igb-vf}}`

// fakeHost are the flags for the host made by sysfs.
func fakeHost() []string { return []string{"--host-root=/fake", "--dev=/fake/dev"} }

func TestForeignDriverInGroup(t *testing.T) {
	c := start(t, pod{vm: vm("", oneVF), env: []string{"PCI_RESOURCE_KUBEVFIO_IO_IGB_VF=0000:41:10.0"}, args: fakeHost(), fill: sysfs(t, "igbvf")})
	o := c.end(65, launcherrpcv1.ReasonDeviceNotViable)
	if o.Address != "0000:41:10.2" || !strings.Contains(o.Message, "igbvf") {
		t.Errorf("termination message %+v does not name the blocking address and driver", o)
	}
}

func TestMemoryLock(t *testing.T) {
	c := start(t, pod{
		vm: vm("", oneVF), env: []string{"PCI_RESOURCE_KUBEVFIO_IO_IGB_VF=0000:41:10.4"}, args: fakeHost(),
		fill: sysfs(t, "vfio-pci"), memlock: 8 << 20,
	})
	o := c.end(66, launcherrpcv1.ReasonMemoryLock)
	for _, want := range []string{"1280 MiB", "8 MiB", "agent"} {
		if !strings.Contains(o.Message, want) {
			t.Errorf("message %q does not say %q", o.Message, want)
		}
	}
}

func TestAssignmentDiffers(t *testing.T) {
	c := start(t, pod{
		vm: vm("", oneVF), env: []string{"PCI_RESOURCE_KUBEVFIO_IO_IGB_VF=0000:41:10.4"}, args: fakeHost(), fill: sysfs(t, "vfio-pci"),
		assignment: `{"version":"v1","podUID":"6f1d0f3e-26b7-4bd0-9c4b-0b4f1f0c0d01","node":"n","containers":{"compute":{"kubevfio.io/igb-vf":["0000:41:10.0"]}}}`,
	})
	o := c.end(65, launcherrpcv1.ReasonAssignment)
	for _, want := range []string{"0000:41:10.0", "0000:41:10.4", "kubevfio.io/igb-vf"} {
		if !strings.Contains(o.Message, want) {
			t.Errorf("message %q does not say %q", o.Message, want)
		}
	}
}

func TestDeviceMissing(t *testing.T) {
	c := start(t, pod{vm: vm("", oneVF), args: fakeHost(), fill: sysfs(t, "vfio-pci")})
	o := c.end(64, launcherrpcv1.ReasonBadSpec)
	if o.Field != "spec.domain.devices.interfaces[0]" || !strings.Contains(o.Message, "PCI_RESOURCE_KUBEVFIO_IO_IGB_VF") {
		t.Errorf("termination message %+v does not name the field and the variable", o)
	}
}

// TestDeviceTakenAway is given a function that the host does not have any more.
func TestDeviceTakenAway(t *testing.T) {
	c := start(t, pod{vm: vm("", oneVF), env: []string{"PCI_RESOURCE_KUBEVFIO_IO_IGB_VF=0000:41:10.6"}, args: fakeHost(), fill: sysfs(t, "vfio-pci")})
	o := c.end(65, launcherrpcv1.ReasonDeviceNotViable)
	if o.Address != "0000:41:10.6" || !strings.Contains(o.Message, "taken away") {
		t.Errorf("termination message %+v does not name the address", o)
	}
}
