package domain

import (
	"fmt"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/topology"
)

// builder carries a build's state from step to step.
type builder struct {
	in     *Input
	spec   *v1alpha1.DomainSpec
	dom    *libvirtxml.Domain
	dev    *libvirtxml.DomainDeviceList
	report *Report

	units []*unit
	usbs  []*otherDevice
	nvme  []*otherDevice

	cpu       *cpuPlan
	expanders []*node
	groups    []*slotGroup
	window    window
	memory    uint64

	// emulated are the emulated PCI devices in order.
	emulated []emulatedDevice
	// qemuProps are overrides by device alias.
	qemuProps []libvirtxml.DomainQEMUOverrideDevice
	// shared memory backing is needed, and by whom.
	shared []string
	// boot orders in use, by number.
	boots map[uint]string
	// threads is the number of I/O threads.
	threads uint
	// sharedThread is the one of the policy "shared".
	sharedThread uint
}

// Build makes the domain. Errors are of class [ErrSpec], [ErrDevice] or
// [ErrHost]; on an error domain and report are nil.
func Build(in Input) (*libvirtxml.Domain, *Report, error) {
	if in.Spec == nil {
		return nil, nil, vmspec.Errorf("spec", "is empty")
	}
	if in.Host == nil {
		in.Host = &topology.Host{}
	}
	if err := vmspec.Validate(in.Spec); err != nil {
		return nil, nil, err
	}
	b := &builder{
		in:     &in,
		spec:   &in.Spec.Domain,
		dev:    &libvirtxml.DomainDeviceList{},
		report: &Report{},
		boots:  map[uint]string{},
	}
	for _, step := range []func() error{
		b.identity, b.matchDevices, b.placeCPUs, b.placePCI, b.sizeWindow,
		b.firmware, b.features, b.processor,
		b.controllers, b.hostdevs, b.usbDevices, b.disks, b.filesystems, b.interfaces,
		b.console, b.screen, b.agent, b.small, b.viommu, b.tpm,
		b.memoryBacking, b.lockLimit, b.placeEmulated, b.nccl, b.finish,
	} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	return b.dom, b.report, nil
}

func (b *builder) identity() error {
	d := &libvirtxml.Domain{
		Type:       "kvm",
		Name:       b.in.Name,
		UUID:       b.in.UUID,
		Devices:    b.dev,
		OnPoweroff: "destroy",
		OnReboot:   "restart",
		OnCrash:    "destroy",
	}
	if f := b.spec.Firmware; f != nil && f.UUID != "" {
		d.UUID = f.UUID
	}
	if d.Name == "" {
		return vmspec.Errorf("metadata.name", "is empty")
	}
	if strings.ContainsAny(d.Name, "/\n") {
		return vmspec.Errorf("metadata.name", "%q has a slash or a line break", d.Name)
	}
	if !uuidForm.MatchString(d.UUID) {
		return vmspec.Errorf("spec.domain.firmware.uuid", "%q is not a UUID", d.UUID)
	}
	b.dev.Emulator = b.in.Paths.Emulator
	b.dom = d
	return nil
}

// placeCPUs lays out vCPUs and memory.
func (b *builder) placeCPUs() error {
	var nodes []int
	for _, u := range b.units {
		for _, f := range u.members {
			if n := f.NUMA; n != topology.NUMAUnknown && !slices.Contains(nodes, n) {
				nodes = append(nodes, n)
			}
		}
	}
	slices.Sort(nodes)
	p, err := planCPUs(b.in, nodes)
	if err != nil {
		return err
	}
	b.cpu = p
	b.report.Notes = append(b.report.Notes, p.notes...)
	for _, c := range p.cells {
		b.memory += c.bytes
	}
	return nil
}

// placePCI makes the tree of expanders.
func (b *builder) placePCI() error {
	var err error
	b.expanders, err = planPCI(b.units, pciOptions{
		mirror: b.spec.Devices.PCITopology == v1alpha1.PCITopologyMirror,
		viommu: b.spec.Devices.IOMMU != nil,
	})
	if err != nil {
		return err
	}
	var walk func(n *node)
	walk = func(n *node) {
		if n.leaf != nil {
			b.groups = append(b.groups, n.leaf)
		}
		for _, c := range n.children {
			walk(c)
		}
	}
	for _, e := range b.expanders {
		walk(e)
	}
	return checkRoot("expander buses", len(b.expanders), expanderSlots)
}

func (b *builder) sizeWindow() error {
	b.window = mmioWindow(b.groups, b.memory)
	if err := b.window.check(b.in.Host.PhysAddrBits, b.memory); err != nil {
		return err
	}
	if len(b.groups) > 0 && !b.window.known {
		b.report.note("the BARs of some devices are not known here: the MMIO window may be too small")
	}
	if b.window.need > 0 && b.in.Host.PhysAddrBits == 0 {
		b.report.note("the CPU's address width is not known here: the MMIO window is not checked against it")
	}
	return nil
}

// processor writes CPU model, cells and pinning.
func (b *builder) processor() error {
	p := b.cpu
	n := p.sockets * p.cores * p.threads
	cpu := &libvirtxml.DomainCPU{
		Mode:  "host-passthrough",
		Check: "none",
		// Sockets, cores, threads: one die each.
		Topology: &libvirtxml.DomainCPUTopology{Sockets: p.sockets, Dies: 1, Cores: p.cores, Threads: p.threads},
	}
	model := ""
	if b.spec.CPU != nil {
		model = b.spec.CPU.Model
		for _, f := range b.spec.CPU.Features {
			policy := f.Policy
			if policy == "" {
				policy = "require"
			}
			cpu.Features = append(cpu.Features, libvirtxml.DomainCPUFeature{Policy: policy, Name: f.Name})
		}
	}
	switch model {
	case "", "host-passthrough":
		cpu.Migratable = "off"
		cpu.Cache = &libvirtxml.DomainCPUCache{Mode: "passthrough"}
		cpu.MaxPhysAddr = &libvirtxml.DomainCPUMaxPhysAddr{Mode: "passthrough"}
	case "host-model":
		cpu.Mode, cpu.Check = "host-model", "partial"
		cpu.MaxPhysAddr = &libvirtxml.DomainCPUMaxPhysAddr{Mode: "passthrough"}
	default:
		cpu.Mode, cpu.Check, cpu.Match = "custom", "partial", "exact"
		cpu.Model = &libvirtxml.DomainCPUModel{Fallback: "forbid", Value: model}
		cpu.MaxPhysAddr = &libvirtxml.DomainCPUMaxPhysAddr{Mode: "passthrough"}
	}
	cpu.Numa = &libvirtxml.DomainNuma{}
	for i, c := range p.cells {
		x := libvirtxml.DomainCell{ID: ptr(uint(i)), CPUs: listString(c.vcpus), Memory: uint(c.bytes >> 10), Unit: "KiB"}
		x.Distances = b.distances(i)
		cpu.Numa.Cell = append(cpu.Numa.Cell, x)
	}
	b.dom.CPU = cpu
	b.dom.VCPU = &libvirtxml.DomainVCPU{Placement: "static", Value: uint(n)}
	b.dom.Memory = &libvirtxml.DomainMemory{Value: uint(b.memory >> 10), Unit: "KiB", DumpCore: "off"}
	b.pinning()
	b.report.cells(p)
	return nil
}

// distances copies the host's distances between the nodes that the cells are.
func (b *builder) distances(i int) *libvirtxml.DomainCellDistances {
	cells := b.cpu.cells
	if len(cells) < 2 {
		return nil
	}
	out := &libvirtxml.DomainCellDistances{}
	for j, c := range cells {
		d := hostDistance(b.in.Host, cells[i].host, c.host)
		if d == 0 {
			return nil
		}
		out.Siblings = append(out.Siblings, libvirtxml.DomainCellSibling{ID: uint(j), Value: uint(d)})
	}
	return out
}

// hostDistance is the SLIT distance of two nodes, 0 when the host does not say
// or says what the guest's table cannot hold.
func hostDistance(h *topology.Host, from, to int) int {
	a := h.NUMANode(from)
	if a == nil {
		return 0
	}
	k := slices.IndexFunc(h.NUMANodes, func(n topology.NUMANode) bool { return n.ID == to })
	if k < 0 || k >= len(a.Distances) {
		return 0
	}
	d := a.Distances[k]
	switch {
	case from == to:
		return 10 // what libvirt insists on
	case d < 10 || d > 254:
		return 0
	}
	return d
}

func (b *builder) pinning() {
	p := b.cpu
	if len(p.pins) == 0 {
		return
	}
	tune := &libvirtxml.DomainCPUTune{}
	for i, cpus := range p.pins {
		tune.VCPUPin = append(tune.VCPUPin, libvirtxml.DomainCPUTuneVCPUPin{VCPU: uint(i), CPUSet: listString(cpus)})
	}
	if len(p.emulator) > 0 {
		tune.EmulatorPin = &libvirtxml.DomainCPUTuneEmulatorPin{CPUSet: listString(p.emulator)}
	}
	b.dom.CPUTune = tune
}

// memoryBacking writes where memory comes from: bound to nodes, in huge pages,
// allocated in parallel where it will be pinned anyway.
func (b *builder) memoryBacking() error {
	page, err := vmspec.HugepageBytes(b.in.Spec)
	if err != nil {
		return err
	}
	m := &libvirtxml.DomainMemoryBacking{MemoryNosharepages: &libvirtxml.DomainMemoryNosharepages{}}
	access := ""
	if page > 0 {
		h := libvirtxml.DomainMemoryHugepage{Size: uint(page >> 20), Unit: "M"}
		if page == gib {
			h.Size, h.Unit = 1, "G"
		}
		m.MemoryHugePages = &libvirtxml.DomainMemoryHugepages{Hugepages: []libvirtxml.DomainMemoryHugepage{h}}
	}
	if page > 0 || len(b.shared) > 0 {
		// A hugetlbfs mount is not writable for a pod's user; a memfd is.
		m.MemorySource = &libvirtxml.DomainMemorySource{Type: "memfd"}
		m.MemoryAccess = &libvirtxml.DomainMemoryAccess{Mode: "shared"}
		access = "shared"
	}
	if page > 0 || b.vfioCount()+len(b.nvme) > 0 {
		m.MemoryAllocation = &libvirtxml.DomainMemoryAllocation{Mode: "immediate", Threads: b.allocThreads()}
	}
	if access != "" {
		for i := range b.dom.CPU.Numa.Cell {
			b.dom.CPU.Numa.Cell[i].MemAccess = access
		}
	}
	b.dom.MemoryBacking = m
	mode := "preferred"
	if b.cpu.strict {
		mode = "strict"
	}
	var tune libvirtxml.DomainNUMATune
	for i, c := range b.cpu.cells {
		if len(c.memNodes) > 0 {
			tune.MemNodes = append(tune.MemNodes, libvirtxml.DomainNUMATuneMemNode{CellID: uint(i), Mode: mode, Nodeset: listString(c.memNodes)})
		}
	}
	if len(tune.MemNodes) > 0 {
		b.dom.NUMATune = &tune
	}
	return nil
}

// allocThreads is how many threads zero the memory: as many as there are vCPUs,
// which the pod has CPUs for, up to 16.
func (b *builder) allocThreads() uint {
	return uint(min(max(b.cpu.sockets*b.cpu.cores*b.cpu.threads, 1), 16))
}

// vfioCount is the number of devices that pin memory by VFIO.
func (b *builder) vfioCount() int {
	n := 0
	for _, g := range b.groups {
		n += len(g.funcs)
	}
	return n
}

func (b *builder) lockLimit() error {
	b.report.MemoryLockBytes = MemoryLock(b.memory, b.vfioCount(), len(b.nvme), b.spec.Devices.IOMMU != nil)
	return nil
}

// emulate registers an emulated PCI device: its place on pcie.0 is settled when
// all are known.
func (b *builder) emulate(what string, set func(*libvirtxml.DomainAddress)) {
	b.emulated = append(b.emulated, emulatedDevice{what, set})
}

type emulatedDevice struct {
	what string
	set  func(*libvirtxml.DomainAddress)
}

func (b *builder) placeEmulated() error {
	n := len(b.emulated)
	if err := checkRoot("emulated PCI devices", n, emulatedSlots); err != nil {
		return err
	}
	for i, e := range b.emulated {
		a := pciAddress(0, func() (uint, uint, bool) { return place(i, n, slotFirstEmulated, emulatedSlots) })
		e.set(a)
		b.report.Emulated = append(b.report.Emulated, EmulatedReport{Device: e.what, Guest: fmt.Sprintf("0000:00:%02x.%x", *a.PCI.Slot, *a.PCI.Function)})
	}
	return nil
}

func pciAddress(bus int, at func() (uint, uint, bool)) *libvirtxml.DomainAddress {
	slot, fn, multi := at()
	a := &libvirtxml.DomainAddressPCI{Domain: ptr(uint(0)), Bus: ptr(uint(bus)), Slot: ptr(slot), Function: ptr(fn)}
	if multi {
		a.MultiFunction = "on"
	}
	return &libvirtxml.DomainAddress{PCI: a}
}

// finish adds what overrides libvirt's own choice of QEMU's properties.
func (b *builder) finish() error {
	if len(b.qemuProps) > 0 {
		b.dom.QEMUOverride = &libvirtxml.DomainQEMUOverride{Devices: b.qemuProps}
	}
	b.report.fill(b)
	return nil
}

// bootOrder takes a number in the boot list.
func (b *builder) bootOrder(order *uint, field string) (*libvirtxml.DomainDeviceBoot, error) {
	if order == nil {
		return nil, nil
	}
	if other, ok := b.boots[*order]; ok {
		return nil, vmspec.Errorf(field+".bootOrder", "%d is also that of %s", *order, other)
	}
	b.boots[*order] = field
	return &libvirtxml.DomainDeviceBoot{Order: *order}, nil
}
