package hosttest

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/topology"
)

// Spec is a machine's CPUs and memory.
type Spec struct {
	// Sockets, NUMAPerSocket, Cores (per NUMA node) and Threads (per core);
	// zero values count as 1.
	Sockets, NUMAPerSocket, Cores, Threads int
	// MemoryOnly nodes follow those with CPUs.
	MemoryOnly int
	// MemoryMiB per NUMA node.
	MemoryMiB uint64
	// Hugepages per NUMA node: page size in KiB -> pages.
	Hugepages map[uint64]uint64
	// PhysAddrBits is the CPUs' physical address width, 46 when zero.
	PhysAddrBits int
	// NoIOMMU leaves out all groups.
	NoIOMMU bool
	// NoIOMMUFD leaves out /dev/iommu's device and the vfio cdevs.
	NoIOMMUFD bool
	BootID    string
}

// sink is what a tree is written to: [host.Tree] or a directory.
type sink interface {
	File(name, content string)
	Link(name, target string)
	MkdirAll(name string)
}

// Machine is a machine that is being put together.
type Machine struct {
	spec  Spec
	roots []*Bus
	funcs []*Function
	group int
	vfio  int
}

// New starts a machine without any PCI function.
func New(s Spec) *Machine {
	for _, p := range []*int{&s.Sockets, &s.NUMAPerSocket, &s.Cores, &s.Threads} {
		*p = max(*p, 1)
	}
	if s.PhysAddrBits == 0 {
		s.PhysAddrBits = 46
	}
	if s.MemoryMiB == 0 {
		s.MemoryMiB = 64 << 10
	}
	if s.BootID == "" {
		s.BootID = "6b1c2f0e-8d7a-4c55-9a40-2f6f3f1d7e01"
	}
	return &Machine{spec: s}
}

// Bus is a PCI bus: below a host bridge or a bridge.
type Bus struct {
	m      *Machine
	domain uint32
	number uint8
	dir    string // sys/devices/pci0000:00/…
	numa   int
	next   *int  // next free bus number of the root complex
	dev    uint8 // next free device number
}

// Root adds a host bridge with its root bus. NUMA is its node or
// [topology.NUMAUnknown]. Buses below it are numbered from bus+1.
func (m *Machine) Root(domain uint32, bus uint8, numa int) *Bus {
	return m.rootAt("sys/devices", domain, bus, numa)
}

func (m *Machine) rootAt(parent string, domain uint32, bus uint8, numa int) *Bus {
	n := int(bus) + 1
	b := &Bus{m: m, domain: domain, number: bus, numa: numa, next: &n, dir: fmt.Sprintf("%s/pci%04x:%02x", parent, domain, bus)}
	m.roots = append(m.roots, b)
	return b
}

// VMD adds a function on b that is a host bridge of a domain of its own, as
// Intel's Volume Management Device is, and gives the bus of that domain.
func (b *Bus) VMD(domain uint32) *Bus {
	f := b.Add(Fn{Vendor: 0x8086, Device: 0x28c0, Class: 0x010400, Driver: "vmd"})[0]
	return b.m.rootAt(f.Dir(), domain, 0, b.numa)
}

// At makes the next device on the bus have this number.
func (b *Bus) At(dev uint8) *Bus {
	b.dev = dev
	return b
}

// Fn describes a function to add.
type Fn struct {
	Vendor, Device, SubVendor, SubDevice uint16
	Class                                uint32
	Revision                             uint8
	Driver, Override                     string
	// Group is a function whose IOMMU group this one shares; nil gives a group
	// of its own to function 0, and function 0's to the others of the slot.
	Group *Function
	// OwnGroup gives a function above 0 a group of its own (ACS).
	OwnGroup bool
	BARs     []topology.BAR
	ROMBytes uint64
	Resets   string // "flr bus"; empty for none
	// SpeedMTs and Width of the link, current and best alike; 0 for none.
	SpeedMTs, Width int
	// TotalVFs makes a physical function.
	TotalVFs       int
	Net, RDMA, DRM []string
	Block          []string // namespaces below nvme/<controller>
	Mdevs          []string
	NUMA           *int // overrides the bus'
	Disabled       bool
	bridge         bool
	secondary      uint8
	pf             *Function
	vfIndex        int
	offset, stride int
	vfDevice       uint16
}

// Function is a function of a machine.
type Function struct {
	Fn
	Addr topology.Address
	bus  *Bus
	dir  string
	grp  int // -1 without
	vfio string
	vfs  []*Function
	vf   Fn // what virtual functions are
	// vfNatural is the driver that takes virtual functions by itself.
	vfNatural string
}

// Dir is the function's directory in the tree.
func (f *Function) Dir() string { return f.dir }

// VFs are the virtual functions that [Function.AddVFs] made.
func (f *Function) VFs() []*Function { return f.vfs }

func (b *Bus) function(addr topology.Address, fn Fn) *Function {
	f := &Function{Fn: fn, Addr: addr, bus: b, dir: b.dir + "/" + addr.String(), grp: -1}
	if !b.m.spec.NoIOMMU {
		if fn.Group != nil {
			f.grp = fn.Group.grp
		} else {
			f.grp = b.m.group
			b.m.group++
		}
	}
	if strings.Contains(fn.Driver, "vfio") && !b.m.spec.NoIOMMUFD && !b.m.spec.NoIOMMU {
		f.vfio = "vfio" + strconv.Itoa(b.m.vfio)
		b.m.vfio++
	}
	b.m.funcs = append(b.m.funcs, f)
	return f
}

// Add puts a device with these functions, numbered from 0, into the next slot.
func (b *Bus) Add(fns ...Fn) []*Function {
	var out []*Function
	for i, fn := range fns {
		if i > 0 && fn.Group == nil && !fn.OwnGroup {
			fn.Group = out[0]
		}
		out = append(out, b.function(topology.Address{Domain: b.domain, Bus: b.number, Device: b.dev, Function: uint8(i)}, fn))
	}
	b.dev++
	return out
}

// Port adds a bridge and gives the bus below it.
func (b *Bus) Port() *Bus {
	n := uint8(*b.next)
	*b.next++
	f := b.Add(Fn{Vendor: 0x8086, Device: 0x352a, Class: 0x060400, Driver: "pcieport", bridge: true, secondary: n, SpeedMTs: 32000, Width: 16})[0]
	return &Bus{m: b.m, domain: b.domain, number: n, dir: f.dir, numa: b.numa, next: b.next}
}

// Switch adds a switch below a root port of b: an upstream port and n
// downstream ports, whose buses it gives.
func (b *Bus) Switch(n int) []*Bus {
	up := b.Port() // the upstream port's own bus
	var out []*Bus
	for range n {
		out = append(out, up.Port())
	}
	return out
}

// AddVFs makes the first n virtual functions of f.
func (f *Function) AddVFs(n int, vf Fn) []*Function {
	const perBus = 256
	f.offset, f.stride, f.vfDevice, f.vf = 4, 1, vf.Device, vf
	if !topology.IsVFIODriver(vf.Driver) {
		f.vfNatural = vf.Driver
	}
	rid := int(f.Addr.Bus)*perBus + int(f.Addr.Device)*8 + int(f.Addr.Function)
	for i := range n {
		r := rid + f.offset + i*f.stride
		a := topology.Address{Domain: f.Addr.Domain, Bus: uint8(r / perBus), Device: uint8(r / 8 % 32), Function: uint8(r % 8)}
		v := vf
		v.pf, v.vfIndex = f, i
		if v.Class == 0 {
			v.Class = f.Class
		}
		x := f.bus.function(a, v)
		f.vfs = append(f.vfs, x)
		*f.bus.next = max(*f.bus.next, int(a.Bus)+1)
	}
	return f.vfs
}

// Tree is the machine in memory.
func (m *Machine) Tree() *host.Tree {
	t := host.NewTree()
	m.write(t)
	return t
}

// Functions are all functions in the order of their making.
func (m *Machine) Functions() []*Function { return m.funcs }

// Function finds a function by address; it panics when there is none, for tests
// name only what they made.
func (m *Machine) Function(a string) *Function {
	for _, f := range m.funcs {
		if f.Addr.String() == a {
			return f
		}
	}
	panic("hosttest: no function " + a)
}

func (m *Machine) write(s sink) {
	s.MkdirAll("sys/bus/pci/devices")
	s.MkdirAll("sys/bus/pci/drivers")
	s.File("sys/bus/pci/drivers_probe", "")
	m.writeMachine(s)
	for _, f := range m.funcs {
		f.write(s)
	}
}

// relative is the text of a link in directory dir that leads to target.
func relative(dir, target string) string {
	a, b := strings.Split(dir, "/"), strings.Split(target, "/")
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return strings.Repeat("../", len(a)-n) + strings.Join(b[n:], "/")
}

func link(s sink, name, target string) { s.Link(name, relative(path.Dir(name), target)) }

func modalias(f *Function) string {
	return fmt.Sprintf("pci:v%08Xd%08Xsv%08Xsd%08Xbc%02Xsc%02Xi%02X", f.Vendor, f.Device, f.SubVendor, f.SubDevice, f.Class>>16, f.Class>>8&0xff, f.Class&0xff)
}

func uevent(f *Function, driver string) string {
	u := ""
	if driver != "" {
		u = "DRIVER=" + driver + "\n"
	}
	return u + fmt.Sprintf("PCI_CLASS=%04X\nPCI_ID=%04X:%04X\nPCI_SUBSYS_ID=%04X:%04X\nPCI_SLOT_NAME=%s\nMODALIAS=%s\n",
		f.Class, f.Vendor, f.Device, f.SubVendor, f.SubDevice, f.Addr, modalias(f))
}

// hexLine is an identity as sysfs prints it.
func hexLine(v uint64, digits int) string { return fmt.Sprintf("0x%0*x\n", digits, v) }

func (f *Function) write(s sink) {
	d := f.dir
	put := func(name, content string) { s.File(d+"/"+name, content) }
	put("vendor", hexLine(uint64(f.Vendor), 4))
	put("device", hexLine(uint64(f.Device), 4))
	put("subsystem_vendor", hexLine(uint64(f.SubVendor), 4))
	put("subsystem_device", hexLine(uint64(f.SubDevice), 4))
	put("class", hexLine(uint64(f.Class), 6))
	put("revision", hexLine(uint64(f.Revision), 2))
	put("modalias", modalias(f)+"\n")
	put("uevent", uevent(f, f.Driver))
	numa := f.bus.numa
	if f.NUMA != nil {
		numa = *f.NUMA
	}
	put("numa_node", strconv.Itoa(numa)+"\n")
	put("driver_override", orNull(f.Override)+"\n")
	put("enable", strconv.Itoa(b2i(!f.Disabled))+"\n")
	put("irq", "0\n")
	put("local_cpulist", "\n")
	put("resource", f.resource())
	if f.Resets != "" {
		put("reset_method", f.Resets+"\n")
		put("reset", "")
	}
	if f.pf != nil {
		put("current_link_speed", "Unknown\n")
		put("current_link_width", "0\n")
		put("max_link_speed", speedLine(f.pf.SpeedMTs))
		put("max_link_width", strconv.Itoa(f.pf.Width)+"\n")
		link(s, d+"/physfn", f.pf.dir)
		link(s, f.pf.dir+"/virtfn"+strconv.Itoa(f.vfIndex), d)
	} else if f.SpeedMTs > 0 {
		put("current_link_speed", speedLine(f.SpeedMTs))
		put("current_link_width", strconv.Itoa(f.Width)+"\n")
		put("max_link_speed", speedLine(f.SpeedMTs))
		put("max_link_width", strconv.Itoa(f.Width)+"\n")
	}
	if f.bridge {
		put("secondary_bus_number", strconv.Itoa(int(f.secondary))+"\n")
		put("subordinate_bus_number", strconv.Itoa(int(f.secondary))+"\n")
	}
	if f.TotalVFs > 0 {
		put("sriov_totalvfs", strconv.Itoa(f.TotalVFs)+"\n")
		put("sriov_numvfs", strconv.Itoa(len(f.vfs))+"\n")
		put("sriov_offset", strconv.Itoa(f.offset)+"\n")
		put("sriov_stride", strconv.Itoa(f.stride)+"\n")
		put("sriov_vf_device", strconv.FormatUint(uint64(f.vfDevice), 16)+"\n")
		put("sriov_drivers_autoprobe", "1\n")
	}
	link(s, d+"/subsystem", "sys/bus/pci")
	link(s, "sys/bus/pci/devices/"+f.Addr.String(), d)
	if f.Driver != "" {
		s.MkdirAll("sys/bus/pci/drivers/" + f.Driver)
		s.File("sys/bus/pci/drivers/"+f.Driver+"/unbind", "")
		s.File("sys/bus/pci/drivers/"+f.Driver+"/bind", "")
		link(s, d+"/driver", "sys/bus/pci/drivers/"+f.Driver)
		link(s, "sys/bus/pci/drivers/"+f.Driver+"/"+f.Addr.String(), d)
	}
	if f.grp >= 0 {
		g := "sys/kernel/iommu_groups/" + strconv.Itoa(f.grp)
		link(s, d+"/iommu_group", g)
		s.File(g+"/type", groupType(f.Driver)+"\n")
		link(s, g+"/devices/"+f.Addr.String(), d)
	}
	f.writeClasses(s)
}

func (f *Function) writeClasses(s sink) {
	class := func(c, dir, name string) {
		s.File(dir+"/"+name+"/uevent", "")
		link(s, "sys/class/"+c+"/"+name, dir+"/"+name)
		link(s, dir+"/"+name+"/device", f.dir)
	}
	if f.vfio != "" {
		class("vfio-dev", f.dir+"/vfio-dev", f.vfio)
	}
	for _, n := range f.Net {
		class("net", f.dir+"/net", n)
		s.File(f.dir+"/net/"+n+"/operstate", "up\n")
	}
	for _, n := range f.RDMA {
		class("infiniband", f.dir+"/infiniband", n)
	}
	for _, n := range f.DRM {
		class("drm", f.dir+"/drm", n)
	}
	for _, n := range f.Block {
		ctrl, _, _ := strings.Cut(strings.TrimPrefix(n, "nvme"), "n")
		class("block", f.dir+"/nvme/nvme"+ctrl, n)
		link(s, "sys/block/"+n, f.dir+"/nvme/nvme"+ctrl+"/"+n)
	}
	for _, u := range f.Mdevs {
		s.File(f.dir+"/"+u+"/uevent", "")
	}
}

func (f *Function) resource() string {
	var lines [13][3]uint64
	at := uint64(f.Addr.Domain)<<48 | uint64(f.Addr.Bus)<<40 | uint64(f.Addr.Device)<<35 | uint64(f.Addr.Function)<<32 | 1<<47
	for _, b := range f.BARs {
		flags := uint64(0x40200)
		switch {
		case b.IO:
			flags = 0x40101
		case b.Is64:
			flags |= 0x100004
		}
		if b.Prefetchable {
			flags |= 0x2008
		}
		lines[b.Index] = [3]uint64{at, at + b.Bytes - 1, flags}
		at += b.Bytes
	}
	if f.ROMBytes > 0 {
		lines[6] = [3]uint64{0xfe000000, 0xfe000000 + f.ROMBytes - 1, 0x46200}
	}
	var sb strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&sb, "0x%016x 0x%016x 0x%016x\n", l[0], l[1], l[2])
	}
	return sb.String()
}

func speedLine(mts int) string {
	if mts == 0 {
		return "Unknown\n"
	}
	return fmt.Sprintf("%d.%d GT/s PCIe\n", mts/1000, mts%1000/100)
}

func orNull(s string) string {
	if s == "" {
		return "(null)"
	}
	return s
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func groupType(driver string) string {
	if strings.Contains(driver, "vfio") {
		return "DMA"
	}
	return "DMA-FQ"
}

// writeMachine writes CPUs, NUMA nodes and procfs.
func (m *Machine) writeMachine(s sink) {
	sp := m.spec
	nodes := sp.Sockets * sp.NUMAPerSocket
	cores := nodes * sp.Cores
	all := nodes + sp.MemoryOnly
	s.File("proc/sys/kernel/random/boot_id", sp.BootID+"\n")
	var info strings.Builder
	for c := range cores * sp.Threads {
		fmt.Fprintf(&info, "processor\t: %d\nvendor_id\t: GenuineIntel\nmodel name\t: KubeVFIO test CPU\naddress sizes\t: %d bits physical, 48 bits virtual\n\n", c, sp.PhysAddrBits)
	}
	s.File("proc/cpuinfo", info.String())
	s.File("sys/devices/system/cpu/online", fmt.Sprintf("0-%d\n", cores*sp.Threads-1))
	s.File("sys/devices/system/node/online", fmt.Sprintf("0-%d\n", all-1))
	if !sp.NoIOMMUFD {
		s.File("sys/devices/virtual/misc/iommu/uevent", "DEVNAME=iommu\n")
		link(s, "sys/class/misc/iommu", "sys/devices/virtual/misc/iommu")
	}
	perNode := make([][]int, all)
	for core := range cores {
		var sib []int
		for t := range sp.Threads {
			sib = append(sib, core+t*cores)
		}
		n := core / sp.Cores
		for _, c := range sib {
			d := "sys/devices/system/cpu/cpu" + strconv.Itoa(c) + "/topology/"
			s.File(d+"physical_package_id", strconv.Itoa(n/sp.NUMAPerSocket)+"\n")
			s.File(d+"core_id", strconv.Itoa(core%(sp.Cores*sp.NUMAPerSocket))+"\n")
			s.File(d+"thread_siblings_list", host.FormatList(sib)+"\n")
		}
		perNode[n] = append(perNode[n], core)
	}
	for n := range all {
		d := "sys/devices/system/node/node" + strconv.Itoa(n)
		var cpus []int
		for t := range sp.Threads {
			for _, c := range perNode[n] {
				cpus = append(cpus, c+t*cores)
			}
		}
		s.File(d+"/cpulist", host.FormatList(cpus)+"\n")
		s.File(d+"/meminfo", fmt.Sprintf("Node %d MemTotal:       %d kB\nNode %d MemFree:        %d kB\nNode %d MemUsed:        %d kB\n", n, sp.MemoryMiB<<10, n, sp.MemoryMiB<<9, n, sp.MemoryMiB<<9))
		var dist []string
		for o := range all {
			switch {
			case o == n:
				dist = append(dist, "10")
			case o < nodes && n < nodes && o/sp.NUMAPerSocket == n/sp.NUMAPerSocket:
				dist = append(dist, "12")
			default:
				dist = append(dist, "21")
			}
		}
		s.File(d+"/distance", strings.Join(dist, " ")+"\n")
		for kib, count := range sp.Hugepages {
			h := fmt.Sprintf("%s/hugepages/hugepages-%dkB", d, kib)
			s.File(h+"/nr_hugepages", strconv.FormatUint(count, 10)+"\n")
			s.File(h+"/free_hugepages", strconv.FormatUint(count, 10)+"\n")
		}
	}
}
