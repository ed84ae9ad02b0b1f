package domain

import (
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/topology"
)

// Input is everything that a domain depends on.
type Input struct {
	Spec *v1alpha1.VirtualMachineInstanceSpec
	// Name is the domain's name, UUID its identity. Without a UUID in the spec
	// and here, libvirt would make one up and two builds would differ: empty is
	// an error.
	Name, UUID string
	// Devices are the units by the name of the spec's entry. Every entry that
	// vmspec.Requests names has exactly one, and there are no others.
	Devices []Device
	// Host is what the launcher's own sysfs says. Its CPUs and NUMA nodes may be
	// empty (a container without /sys): the guest then has one cell.
	Host *topology.Host
	// CPUs is the pod's cpuset; empty means all CPUs of the host.
	CPUs []int
	// MemNodes are the memory nodes of the pod's cpuset; empty means all.
	MemNodes []int
	// Volumes are the places of the spec's volumes by name.
	Volumes map[string]Volume
	Paths   Paths
	Libvirt Capabilities
}

// Device is what one entry of the spec was given. Exactly one of Members, Mdev
// and USB is set.
type Device struct {
	// Name of the entry in gpus, hostDevices or interfaces.
	Name string
	// Members are the functions of the unit, leader first.
	Members []topology.Address
	// Mdev is the UUID of a mediated device.
	Mdev string
	// USB is "bus:device", decimal.
	USB string
}

// Volume is where the container finds a volume.
type Volume struct {
	// Path of the image file, block device or, for virtiofs, the folder.
	Path string
	// Block says that Path is a block device.
	Block bool
	// Format is "raw" or "qcow2"; raw when empty.
	Format string
	// Overlay is the qcow2 file, backed by Path, that takes the writes of a
	// containerDisk. The launcher makes it before the start.
	Overlay string
	// Socket is virtiofsd's socket.
	Socket string
}

// Paths are places in the container that the domain names. An empty path whose
// device the spec asks for is an error.
type Paths struct {
	// Emulator is QEMU's program; libvirt's default when empty.
	Emulator string
	// ConsoleSocket is the unix socket on which QEMU serves the serial console;
	// a pty is used when empty.
	ConsoleSocket string
	// ConsoleLog, when set, is a file to which QEMU copies the console.
	ConsoleLog string
	// VNCSocket is the unix socket of the screen.
	VNCSocket string
	// AgentSocket is the unix socket of the guest agent's channel.
	AgentSocket string
	// PasstLog is passt's log file; none when empty.
	PasstLog string
	// NVRAM is the file of the firmware's variables; libvirt chooses when empty.
	// TPMState is the folder of a persistent TPM's state.
	NVRAM, TPMState string
	// NCCLTopology is a file to which the caller writes Report.NCCLTopology
	// before the start; the text is in the domain itself when empty.
	NCCLTopology string
}

// Capabilities are what the libvirt and QEMU in the image can do. The zero value
// means the versions of the launcher image: libvirt 11.3, QEMU 10.0.
type Capabilities struct {
	// LibvirtVersion as libvirt counts: major*1000000 + minor*1000 + release.
	LibvirtVersion uint32
}

// imageLibvirt is the version in the launcher image.
const imageLibvirt = 11_003_000

// atLeast reports whether libvirt is at least of that version.
func (c Capabilities) atLeast(major, minor uint32) bool {
	v := c.LibvirtVersion
	if v == 0 {
		v = imageLibvirt
	}
	return v >= major*1_000_000+minor*1_000
}

// String is the version in words, for errors.
func (c Capabilities) String() string {
	v := c.LibvirtVersion
	if v == 0 {
		v = imageLibvirt
	}
	return itoa(int(v/1_000_000)) + "." + itoa(int(v/1_000%1_000)) + "." + itoa(int(v%1_000))
}
