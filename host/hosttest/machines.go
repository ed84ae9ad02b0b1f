package hosttest

import (
	"fmt"

	"github.com/kubevfio/kubevfio/topology"
)

// MiB and GiB in bytes.
const (
	MiB = 1 << 20
	GiB = 1 << 30
)

// gpuBARs are those of a data centre GPU with its memory behind a large BAR.
func gpuBARs(memory uint64) []topology.BAR {
	return []topology.BAR{
		{Index: 0, Bytes: 16 * MiB, Is64: true, Prefetchable: true},
		{Index: 2, Bytes: memory, Is64: true, Prefetchable: true},
		{Index: 4, Bytes: 32 * MiB, Is64: true, Prefetchable: true},
	}
}

// mem is a plain 64-bit BAR 0.
func mem(size uint64) []topology.BAR {
	return []topology.BAR{{Index: 0, Bytes: size, Is64: true, Prefetchable: true}}
}

func h200(driver string) Fn {
	return Fn{Vendor: 0x10de, Device: 0x2335, SubVendor: 0x10de, SubDevice: 0x18be, Class: 0x030200, Revision: 0xa1,
		Driver: driver, BARs: gpuBARs(256 * GiB), Resets: "flr bus", SpeedMTs: 32000, Width: 16}
}

func cx7(n int, total int) Fn {
	return Fn{Vendor: 0x15b3, Device: 0x1021, SubVendor: 0x15b3, SubDevice: 0x0041, Class: 0x020700,
		Driver: "mlx5_core", BARs: mem(32 * MiB), ROMBytes: MiB, Resets: "flr bus", SpeedMTs: 32000, Width: 16, TotalVFs: total,
		Net: []string{fmt.Sprintf("ibs%d", n)}, RDMA: []string{fmt.Sprintf("mlx5_%d", n)}}
}

func cx7VF(driver string) Fn {
	return Fn{Vendor: 0x15b3, Device: 0x101e, SubVendor: 0x15b3, SubDevice: 0x0041, Class: 0x020700,
		Driver: driver, BARs: mem(2 * MiB), Resets: "flr"}
}

func nvme(n int) Fn {
	return Fn{Vendor: 0x144d, Device: 0xa80a, SubVendor: 0x144d, SubDevice: 0xa801, Class: 0x010802,
		Driver: "nvme", BARs: mem(16 << 10), Resets: "flr bus", SpeedMTs: 16000, Width: 4, Block: []string{fmt.Sprintf("nvme%dn1", n)}}
}

// HGX is a server with two sockets, two NUMA nodes each, and eight H200 GPUs:
// each GPU and a ConnectX-7 behind a PCIe switch of their own, two such switches
// per NUMA node under root complexes of their own; four NVSwitches in one IOMMU
// group; a boot NVMe and a two-port management NIC. The GPUs are bound to
// vfio-pci, the NICs have 8 VFs each.
func HGX() *Machine { return hgx(8) }

func hgx(vfsPerNIC int) *Machine {
	m := New(Spec{Sockets: 2, NUMAPerSocket: 2, Cores: 24, Threads: 2, MemoryMiB: 512 << 10,
		Hugepages: map[uint64]uint64{2048: 1024, 1 << 20: 256}, PhysAddrBits: 52})
	base := m.Root(0, 0x00, 0)
	base.Add(Fn{Vendor: 0x8086, Device: 0x3258, Class: 0x060000})
	base.Port().Add(nvme(0))
	base.Port().Add(
		Fn{Vendor: 0x8086, Device: 0x1563, Class: 0x020000, Driver: "ixgbe", BARs: mem(4 * MiB), Resets: "flr bus", SpeedMTs: 8000, Width: 4, TotalVFs: 63, Net: []string{"eno1"}},
		Fn{Vendor: 0x8086, Device: 0x1563, Class: 0x020000, Driver: "ixgbe", BARs: mem(4 * MiB), Resets: "flr bus", SpeedMTs: 8000, Width: 4, TotalVFs: 63, Net: []string{"eno2"}, OwnGroup: true},
	)
	// One root complex per GPU, as on machines with a PCIe switch per GPU pair
	// of ports: bus numbers spread over the sockets.
	for i := range 8 {
		root := m.Root(0, uint8(0x10+0x18*i), i/2)
		down := root.Port().Switch(2)
		down[0].Add(h200("vfio-pci"))
		pf := down[1].Add(cx7(i, 16))[0]
		pf.AddVFs(vfsPerNIC, cx7VF("vfio-pci"))
	}
	sw := m.Root(0, 0xe0, 2).Port().Switch(4)
	var first *Function
	for _, b := range sw {
		f := b.Add(Fn{Vendor: 0x10de, Device: 0x22a3, SubVendor: 0x10de, SubDevice: 0x1796, Class: 0x068000, Revision: 0xa1,
			Driver: "vfio-pci", Group: first, BARs: mem(32 * MiB), Resets: "flr bus", SpeedMTs: 16000, Width: 2})[0]
		if first == nil {
			first = f
		}
	}
	return m
}

// Lab is the shape of the project's lab node: two NUMA nodes with two root
// complexes each; three igb physical functions with seven VFs, an NVMe
// controller, a "GPU" with its audio function in one group, an edu device;
// the node's own virtio devices on pcie.0.
func Lab() *Machine {
	m := New(Spec{Sockets: 2, NUMAPerSocket: 1, Cores: 1, MemoryMiB: 4096, Hugepages: map[uint64]uint64{2048: 512}, PhysAddrBits: 40})
	base := m.Root(0, 0, topology.NUMAUnknown)
	base.Add(Fn{Vendor: 0x8086, Device: 0x29c0, Class: 0x060000})
	base.Add(Fn{Vendor: 0x1af4, Device: 0x1041, Class: 0x020000, Driver: "virtio-pci", BARs: mem(16 << 10)})
	base.Add(Fn{Vendor: 0x1af4, Device: 0x1042, Class: 0x010000, Driver: "virtio-pci", BARs: mem(16 << 10)})
	base.At(31).Add(
		Fn{Vendor: 0x8086, Device: 0x2918, Class: 0x060100, Driver: "lpc_ich"},
		Fn{Vendor: 0x8086, Device: 0x2922, Class: 0x010601, Driver: "ahci"},
		Fn{Vendor: 0x8086, Device: 0x2930, Class: 0x0c0500, Driver: "i801_smbus"},
	)
	igb := func(b *Bus, name string) {
		pf := b.Port().Add(Fn{Vendor: 0x8086, Device: 0x10c9, SubVendor: 0x8086, SubDevice: 0xa03c, Class: 0x020000, Revision: 1,
			Driver: "igb", BARs: []topology.BAR{{Index: 0, Bytes: 128 << 10}, {Index: 1, Bytes: 128 << 10}, {Index: 2, Bytes: 32, IO: true}, {Index: 3, Bytes: 16 << 10}},
			Resets: "flr bus", SpeedMTs: 2500, Width: 1, TotalVFs: 7, Net: []string{name}})[0]
		pf.AddVFs(7, Fn{Vendor: 0x8086, Device: 0x10ca, SubVendor: 0x8086, SubDevice: 0xa03c, Revision: 1, Driver: "vfio-pci", BARs: mem(16 << 10), Resets: "flr"})
	}
	a := m.Root(0, 0x40, 0)
	igb(a, "enp65s0")
	b := m.Root(0, 0x60, 0)
	igb(b, "enp97s0")
	b.Port().Add(
		Fn{Vendor: 0x1234, Device: 0x1111, Class: 0x038000, Driver: "vfio-pci", BARs: mem(16 * MiB), Resets: "bus", SpeedMTs: 2500, Width: 1},
		Fn{Vendor: 0x8086, Device: 0x293e, Class: 0x040300, Driver: "vfio-pci", BARs: mem(16 << 10), Resets: "bus"},
	)
	c := m.Root(0, 0x80, 1)
	igb(c, "enp129s0")
	d := m.Root(0, 0xa0, 1)
	d.Port().Add(nvme(0))
	d.Port().Add(Fn{Vendor: 0x1234, Device: 0x11e8, Class: 0x00ff00, Revision: 0x10, Driver: "vfio-pci", BARs: []topology.BAR{{Index: 0, Bytes: MiB}}, Resets: "bus"})
	return m
}

// Big is a host with eight GPUs and n VFs in all over sixteen physical
// functions, for size and speed: 4,096 is the design's figure.
func Big(n int) *Machine {
	m := New(Spec{Sockets: 2, NUMAPerSocket: 2, Cores: 32, Threads: 2, MemoryMiB: 512 << 10,
		Hugepages: map[uint64]uint64{1 << 20: 256}, PhysAddrBits: 52})
	const pfs = 16
	for i := range 8 {
		// A domain of its own: many VFs need many bus numbers.
		root := m.Root(uint32(i), 0, i/2)
		gpu := root.Port().Switch(2)
		gpu[0].Add(h200("vfio-pci"))
		for j := range 2 {
			k := i*2 + j
			pf := root.Port().Add(cx7(k, max(n/pfs+1, 1)))[0]
			share := n / pfs
			if k < n%pfs {
				share++
			}
			pf.AddVFs(share, cx7VF("vfio-pci"))
		}
	}
	return m
}

// Desktop is a machine of awkward groups: a GPU with audio, USB and UCSI
// functions, a second GPU that shares its group with a USB card (no ACS), a
// card with its own switch, a LAN function in the group of the LPC bridge, a VF
// in its PF's group, an NVMe below a VMD in a 32-bit domain, a vGPU host with
// mediated devices. Nothing is bound to vfio.
func Desktop() *Machine {
	m := New(Spec{Cores: 8, Threads: 2, MemoryMiB: 32 << 10, NoIOMMUFD: true, PhysAddrBits: 39})
	root := m.Root(0, 0, topology.NUMAUnknown)
	root.Add(Fn{Vendor: 0x8086, Device: 0x4650, Class: 0x060000})
	root.At(1).Port().Add(
		Fn{Vendor: 0x10de, Device: 0x1e84, Class: 0x030000, Revision: 0xa1, Driver: "nouveau", BARs: gpuBARs(256 * MiB), ROMBytes: 512 << 10, Resets: "bus", SpeedMTs: 8000, Width: 16, DRM: []string{"card0", "renderD128"}},
		Fn{Vendor: 0x10de, Device: 0x10f8, Class: 0x040300, Revision: 0xa1, Driver: "snd_hda_intel", Resets: "bus"},
		Fn{Vendor: 0x10de, Device: 0x1ad8, Class: 0x0c0330, Revision: 0xa1, Driver: "xhci_hcd", Resets: "bus"},
		Fn{Vendor: 0x10de, Device: 0x1ad9, Class: 0x0c8000, Revision: 0xa1, Driver: "i2c_nvidia_gpu", Resets: "bus"},
	)
	gpu := root.Port().Add(
		Fn{Vendor: 0x1002, Device: 0x73bf, Class: 0x030000, Driver: "amdgpu", BARs: gpuBARs(16 * GiB), Resets: "bus", SpeedMTs: 16000, Width: 16},
		Fn{Vendor: 0x1002, Device: 0xab28, Class: 0x040300, Driver: "snd_hda_intel"},
	)[0]
	root.Port().Add(Fn{Vendor: 0x1912, Device: 0x0014, Class: 0x0c0330, Driver: "xhci_hcd", Group: gpu})
	arc := root.Port().Switch(2)
	ag := arc[0].Add(Fn{Vendor: 0x8086, Device: 0x56a0, Class: 0x030000, Driver: "i915", BARs: gpuBARs(16 * GiB), Resets: "flr"})[0]
	arc[1].Add(Fn{Vendor: 0x8086, Device: 0x4f90, Class: 0x040300, Driver: "snd_hda_intel", Group: ag})
	pf := root.Port().Add(Fn{Vendor: 0x8086, Device: 0x10c9, Class: 0x020000, Driver: "igb", TotalVFs: 7, Net: []string{"enp9s0"}})[0]
	pf.AddVFs(1, Fn{Vendor: 0x8086, Device: 0x10ca, Driver: "igbvf", Group: pf})
	vgpu := root.Port().Add(Fn{Vendor: 0x10de, Device: 0x2236, Class: 0x030200, Driver: "nvidia", BARs: gpuBARs(32 * GiB), TotalVFs: 32,
		Mdevs: []string{"2d3a1fd0-6f52-4a3f-8e2a-9d1f0f7d6a11", "c1b6a7fe-0b0d-4b55-8d25-5a1d6f0f3b42"}, Resets: "flr bus"})[0]
	vgpu.AddVFs(2, Fn{Vendor: 0x10de, Device: 0x2236, Driver: "nvidia", Resets: "flr"})
	vmd := root.VMD(0x10000)
	vmd.Port().Add(nvme(0))
	root.At(0x1f).Add(
		Fn{Vendor: 0x8086, Device: 0x7a84, Class: 0x060100},
		Fn{Vendor: 0x8086, Device: 0x7ad0, Class: 0x040300, Driver: "snd_hda_intel"},
		Fn{Vendor: 0x8086, Device: 0x7aa3, Class: 0x0c0500, Driver: "i801_smbus"},
		Fn{Vendor: 0x8086, Device: 0x1a1d, Class: 0x020000, Driver: "e1000e", Net: []string{"eno1"}},
	)
	return m
}
