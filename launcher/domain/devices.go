package domain

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"libvirt.org/go/libvirtxml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/topology"
)

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$`)

const (
	classNVMe = 0x0108
	// maxPCIDomain is the limit of the property host of QEMU's vfio-pci; libvirt
	// itself takes 32 bits.
	maxPCIDomain = 0xffff
)

// unitOptions are the settings of the spec's entry, whichever list it is in.
type unitOptions struct {
	v1alpha1.HostDeviceOptions
	display *v1alpha1.VGPUDisplayOptions
	disk    bool
	iface   *v1alpha1.Interface
	mdev    string
}

// otherDevice is a device that is not on the guest's PCIe tree.
type otherDevice struct {
	req      vmspec.Request
	opts     unitOptions
	function *topology.Function
	usb      string
}

func (b *builder) options(r vmspec.Request) unitOptions {
	d := &b.spec.Devices
	switch r.Kind {
	case vmspec.KindGPU:
		g := &d.GPUs[r.Index]
		o := unitOptions{HostDeviceOptions: g.HostDeviceOptions}
		if g.VirtualGPUOptions != nil {
			o.display = g.VirtualGPUOptions.Display
		}
		return o
	case vmspec.KindHostDevice:
		h := &d.HostDevices[r.Index]
		return unitOptions{HostDeviceOptions: h.HostDeviceOptions, disk: h.Use == v1alpha1.UseDisk}
	default:
		i := &d.Interfaces[r.Index]
		return unitOptions{HostDeviceOptions: v1alpha1.HostDeviceOptions{Tag: i.Tag, BootOrder: i.BootOrder}, iface: i}
	}
}

// matchDevices gives every entry of the spec its device and finds the functions
// on the host.
func (b *builder) matchDevices() error {
	byName := map[string]*Device{}
	for i := range b.in.Devices {
		d := &b.in.Devices[i]
		if byName[d.Name] != nil {
			return &DeviceError{Field: "spec.domain.devices", Detail: "two devices were given for the entry " + strconv.Quote(d.Name)}
		}
		byName[d.Name] = d
	}
	owner := map[topology.Address]string{}
	for _, r := range vmspec.Requests(b.in.Spec) {
		d := byName[r.Name]
		if d == nil {
			return &DeviceError{Field: r.Field(), Detail: strconv.Quote(r.Name) + " was given no device of the resource " + strconv.Quote(r.Resource)}
		}
		delete(byName, r.Name)
		if err := b.matchOne(r, d, owner); err != nil {
			return err
		}
	}
	var left []string
	for name := range byName {
		left = append(left, name)
	}
	if len(left) > 0 {
		slices.Sort(left)
		return &DeviceError{Field: "spec.domain.devices", Detail: "a device was given for " + strings.Join(left, ", ") + ", which no entry of the spec has as its name"}
	}
	return nil
}

func (b *builder) matchOne(r vmspec.Request, d *Device, owner map[topology.Address]string) error {
	o := b.options(r)
	forms := 0
	for _, set := range []bool{len(d.Members) > 0, d.Mdev != "", d.USB != ""} {
		if set {
			forms++
		}
	}
	if forms != 1 {
		return &DeviceError{Field: r.Field(), Detail: "needs exactly one of PCI functions, a mediated device and a USB device"}
	}
	switch {
	case d.USB != "":
		return b.matchUSB(r, d, o)
	case d.Mdev != "":
		return b.matchMdev(r, d, o)
	}
	u := &unit{req: r, opts: o}
	for _, a := range d.Members {
		if had, ok := owner[a]; ok {
			return deviceErrorf(r.Field(), a, "was also given to %s", had)
		}
		owner[a] = r.Name
		f := b.in.Host.Function(a)
		switch {
		case f == nil:
			return deviceErrorf(r.Field(), a, "is not on this host")
		case f.Root == "":
			return deviceErrorf(r.Field(), a, "hangs on no root complex that sysfs shows")
		case f.Transparent():
			return deviceErrorf(r.Field(), a, "is a bridge (class %06x), which VFIO does not pass through", f.Class)
		case a.Domain > maxPCIDomain:
			return deviceErrorf(r.Field(), a, "is in PCI domain %x, QEMU passes through domains up to %04x (on a machine with VMD, switch it off for this device's slot)", a.Domain, maxPCIDomain)
		}
		u.members = append(u.members, f)
	}
	if o.disk {
		return b.matchNVMe(r, u)
	}
	if o.display != nil && isOn(o.display.Enabled, false) && !b.in.Libvirt.atLeast(11, 10) {
		return hostErrorf(r.Field()+".virtualGPUOptions.display", "a screen from a PCI vGPU needs libvirt 11.10, the image has %s", b.in.Libvirt)
	}
	b.units = append(b.units, u)
	return nil
}

func (b *builder) matchUSB(r vmspec.Request, d *Device, o unitOptions) error {
	bus, dev, ok := strings.Cut(d.USB, ":")
	n, err1 := strconv.ParseUint(bus, 10, 16)
	m, err2 := strconv.ParseUint(dev, 10, 16)
	if !ok || err1 != nil || err2 != nil || n == 0 || m == 0 {
		return &DeviceError{Field: r.Field(), Detail: strconv.Quote(d.USB) + " is not bus:device of a USB device"}
	}
	if err := onlyPlain(r, o, "a USB device"); err != nil {
		return err
	}
	b.usbs = append(b.usbs, &otherDevice{req: r, opts: o, usb: d.USB})
	return nil
}

// onlyPlain refuses options that only PCI devices have.
func onlyPlain(r vmspec.Request, o unitOptions, what string) error {
	for _, x := range []struct {
		name string
		set  bool
	}{
		{"rom", o.ROM != nil}, {"noMmap", o.NoMmap}, {"iommufd", o.IOMMUFD}, {"qemuOptions", len(o.QEMUOptions) > 0},
		{"use", o.disk}, {"sriov", o.iface != nil},
	} {
		if x.set {
			return vmspec.Errorf(r.Field()+"."+x.name, "is not possible for %s", what)
		}
	}
	return nil
}

func (b *builder) matchMdev(r vmspec.Request, d *Device, o unitOptions) error {
	if !uuidForm.MatchString(d.Mdev) {
		return &DeviceError{Field: r.Field(), Detail: strconv.Quote(d.Mdev) + " is not the UUID of a mediated device"}
	}
	if err := onlyPlain(r, o, "a mediated device"); err != nil {
		return err
	}
	for i := range b.in.Host.Functions {
		f := &b.in.Host.Functions[i]
		if !slices.ContainsFunc(f.Mdevs, func(u string) bool { return strings.EqualFold(u, d.Mdev) }) {
			continue
		}
		o.mdev = strings.ToLower(d.Mdev)
		// A stand-in of the parent: place and node are its own, registers and
		// identity are not.
		b.units = append(b.units, &unit{req: r, opts: o, members: []*topology.Function{{
			Address: f.Address, Root: f.Root, NUMA: f.NUMA, Path: f.Path, PF: &f.Address,
			BARs: []topology.BAR{{IO: true}},
		}}})
		return nil
	}
	return &DeviceError{Field: r.Field(), Detail: "no PCI function of this host has the mediated device " + d.Mdev}
}

func (b *builder) matchNVMe(r vmspec.Request, u *unit) error {
	f := u.leader()
	if len(u.members) != 1 || f.Class>>8 != classNVMe {
		return deviceErrorf(r.Field()+".use", f.Address, "Disk is for a lone NVMe controller (class 0108xx), this is class %06x with %d functions", f.Class, len(u.members))
	}
	b.nvme = append(b.nvme, &otherDevice{req: r, opts: u.opts, function: f})
	return nil
}

// hostdevs writes the passed-through PCI units.
func (b *builder) hostdevs() error {
	var err error
	var walk func(n *node)
	walk = func(n *node) {
		if n.leaf != nil && err == nil {
			err = b.hostdevSlot(n)
		}
		for _, c := range n.children {
			walk(c)
		}
	}
	for _, e := range b.expanders {
		walk(e)
	}
	return err
}

func (b *builder) hostdevSlot(n *node) error {
	g := n.leaf
	slot := uint(0)
	if n.model == modelPCIBridge {
		slot = 1 // slot 0 of a conventional bridge is its hotplug controller's
	}
	for i, f := range g.funcs {
		multi := g.fn[i] == 0 && len(g.funcs) > 1
		addr := pciAddress(n.index, func() (uint, uint, bool) { return slot, g.fn[i], multi })
		h, err := b.hostdev(g.unit, f, addr)
		if err != nil {
			return err
		}
		b.dev.Hostdevs = append(b.dev.Hostdevs, *h)
	}
	return nil
}

// aliasPrefix are KubeVirt's words for the lists.
var aliasPrefix = map[vmspec.RequestKind]string{
	vmspec.KindGPU: "ua-gpu-", vmspec.KindHostDevice: "ua-hostdevice-", vmspec.KindInterface: "ua-sriov-",
}

func (b *builder) hostdev(u *unit, f *topology.Function, addr *libvirtxml.DomainAddress) (*libvirtxml.DomainHostdev, error) {
	leader := f == u.leader()
	alias := aliasPrefix[u.req.Kind] + u.req.Name
	if !leader {
		k := slices.Index(u.members, f)
		alias += "-" + itoa(k)
	}
	h := &libvirtxml.DomainHostdev{Managed: "no", Alias: &libvirtxml.DomainAlias{Name: alias}, Address: addr}
	if u.opts.mdev != "" {
		m := &libvirtxml.DomainHostdevSubsysMDev{
			Model:  "vfio-pci",
			Source: &libvirtxml.DomainHostdevSubsysMDevSource{Address: &libvirtxml.DomainAddressMDev{UUID: u.opts.mdev}},
		}
		m.Display, m.RamFB = displayWords(u.opts.display)
		h.Managed = ""
		h.SubsysMDev = m
	} else {
		a := f.Address
		p := &libvirtxml.DomainHostdevSubsysPCI{Source: &libvirtxml.DomainHostdevSubsysPCISource{Address: &libvirtxml.DomainAddressPCI{
			Domain: ptr(uint(a.Domain)), Bus: ptr(uint(a.Bus)), Slot: ptr(uint(a.Device)), Function: ptr(uint(a.Function)),
		}}}
		if u.opts.display != nil && leader {
			p.Display, p.RamFB = displayWords(u.opts.display)
		}
		if u.opts.IOMMUFD {
			if err := b.iommufd(u); err != nil {
				return nil, err
			}
			p.Driver = &libvirtxml.DomainHostdevSubsysPCIDriver{IommuFD: "yes"}
		}
		h.SubsysPCI = p
	}
	if o := u.opts.iface; o != nil && o.ACPIIndex > 0 && leader {
		h.ACPI = &libvirtxml.DomainDeviceACPI{Index: uint(o.ACPIIndex)}
	}
	if !leader {
		b.qemuOptions(alias, u, true)
		return h, nil
	}
	var err error
	if h.Boot, err = b.bootOrder(u.opts.BootOrder, u.req.Field()); err != nil {
		return nil, err
	}
	if r := u.opts.ROM; r != nil {
		h.ROM = &libvirtxml.DomainROM{}
		if r.Bar != nil {
			h.ROM.Bar = onOff(*r.Bar)
		}
		if r.File != "" {
			h.ROM.File = ptr(r.File)
		}
	}
	b.qemuOptions(alias, u, false)
	return h, nil
}

// displayWords are the attributes of a vGPU's screen; none when not asked.
func displayWords(d *v1alpha1.VGPUDisplayOptions) (display, ramfb string) {
	if d == nil || !isOn(d.Enabled, false) {
		return "", ""
	}
	if d.RamFB != nil && isOn(d.RamFB.Enabled, true) {
		ramfb = "on"
	}
	return "on", ramfb
}

// qemuOptions are properties that libvirt has no element for.
func (b *builder) qemuOptions(alias string, u *unit, companion bool) {
	var props []libvirtxml.DomainQEMUOverrideProperty
	if u.opts.NoMmap {
		props = append(props, libvirtxml.DomainQEMUOverrideProperty{Name: "x-no-mmap", Type: "bool", Value: "true"})
	}
	if !companion {
		var names []string
		for k := range u.opts.QEMUOptions {
			names = append(names, k)
		}
		slices.Sort(names)
		for _, k := range names {
			v := u.opts.QEMUOptions[k]
			props = append(props, libvirtxml.DomainQEMUOverrideProperty{Name: k, Type: propertyType(v), Value: v})
		}
	}
	if len(props) > 0 {
		b.qemuProps = append(b.qemuProps, libvirtxml.DomainQEMUOverrideDevice{
			Alias: alias, Frontend: libvirtxml.DomainQEMUOverrideFrontend{Properties: props},
		})
	}
}

// propertyType is the type word of a QEMU property's value.
func propertyType(v string) string {
	if v == "true" || v == "false" {
		return "bool"
	}
	if _, err := strconv.ParseUint(v, 10, 63); err == nil {
		return "unsigned"
	}
	return "string"
}

// iommufd says whether a device can be given by iommufd.
func (b *builder) iommufd(u *unit) error {
	field := u.req.Field() + ".iommufd"
	if !b.in.Host.IOMMUFD {
		return hostErrorf(field, "the host's kernel has no iommufd")
	}
	if !b.in.Libvirt.atLeast(12, 2) {
		return hostErrorf(field, "needs libvirt 12.2, the image has %s", b.in.Libvirt)
	}
	for _, f := range u.members {
		if f.VFIODev == "" {
			return deviceErrorf(field, f.Address, "has no VFIO character device: the kernel lacks VFIO_DEVICE_CDEV or no VFIO driver is bound")
		}
	}
	return nil
}

func (b *builder) usbDevices() error {
	if len(b.usbs) == 0 {
		b.dev.Controllers = append(b.dev.Controllers, libvirtxml.DomainController{Type: "usb", Index: ptr(uint(0)), Model: "none"})
		return nil
	}
	i := len(b.dev.Controllers)
	b.dev.Controllers = append(b.dev.Controllers, libvirtxml.DomainController{Type: "usb", Index: ptr(uint(0)), Model: "qemu-xhci"})
	b.emulate("USB controller", func(a *libvirtxml.DomainAddress) { b.dev.Controllers[i].Address = a })
	for k, d := range b.usbs {
		bus, dev, _ := strings.Cut(d.usb, ":")
		n, _ := strconv.ParseUint(bus, 10, 16) // checked by matchUSB
		m, _ := strconv.ParseUint(dev, 10, 16)
		h := libvirtxml.DomainHostdev{
			Managed: "no",
			SubsysUSB: &libvirtxml.DomainHostdevSubsysUSB{Source: &libvirtxml.DomainHostdevSubsysUSBSource{
				Address: &libvirtxml.DomainAddressUSB{Bus: ptr(uint(n)), Device: ptr(uint(m))},
			}},
			Alias:   &libvirtxml.DomainAlias{Name: "ua-usb-host-" + d.req.Name},
			Address: &libvirtxml.DomainAddress{USB: &libvirtxml.DomainAddressUSB{Bus: ptr(uint(0)), Port: itoa(k + 1)}},
		}
		var err error
		if h.Boot, err = b.bootOrder(d.opts.BootOrder, d.req.Field()); err != nil {
			return err
		}
		b.dev.Hostdevs = append(b.dev.Hostdevs, h)
	}
	return nil
}

// isOn is a switch with its default.
func isOn(p *bool, def bool) bool {
	if p == nil {
		return def
	}
	return *p
}
