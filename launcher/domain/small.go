package domain

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
)

// controllers writes the PCIe tree.
func (b *builder) controllers() error {
	root := libvirtxml.DomainController{Type: "pci", Index: ptr(uint(0)), Model: modelRoot}
	if b.window.size > defaultHole64 {
		root.PCI = &libvirtxml.DomainControllerPCI{Hole64: &libvirtxml.DomainControllerPCIHole64{Size: b.window.size / gib, Unit: "GiB"}}
	}
	b.dev.Controllers = append(b.dev.Controllers, root)
	for i, e := range b.expanders {
		slot, fn, multi := place(i, len(b.expanders), slotFirstExpander, expanderSlots)
		e.slot, e.function, e.multi = slot, fn, multi
		b.controller(e, 0)
	}
	return nil
}

func (b *builder) controller(n *node, parent int) {
	slot, fn, multi := n.slot, n.function, n.multi
	c := libvirtxml.DomainController{
		Type: "pci", Index: ptr(uint(n.index)), Model: n.model,
		Address: pciAddress(parent, func() (uint, uint, bool) { return slot, fn, multi }),
	}
	switch n.model {
	case modelExpander:
		t := &libvirtxml.DomainControllerPCITarget{BusNr: ptr(uint(n.busNr))}
		if k := b.cpu.cellOf(n.numa); k >= 0 {
			t.NUMANode = ptr(uint(k))
		}
		c.PCI = &libvirtxml.DomainControllerPCI{Target: t}
	case modelRootPort, modelDownstream:
		// The pair of chassis and port is unique in the machine.
		c.PCI = &libvirtxml.DomainControllerPCI{Target: &libvirtxml.DomainControllerPCITarget{
			Chassis: ptr(uint(n.index)), Port: ptr(slot<<3 | fn),
		}}
	}
	b.dev.Controllers = append(b.dev.Controllers, c)
	for _, child := range n.children {
		b.controller(child, n.index)
	}
}

// console is the first serial port, on a socket where the launcher serves it.
func (b *builder) console() error {
	if !isOn(b.spec.Devices.AutoattachSerialConsole, true) {
		return nil
	}
	src := &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}}
	if p := b.in.Paths.ConsoleSocket; p != "" {
		src = &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind", Path: p}}
	}
	s := libvirtxml.DomainSerial{
		Source: src,
		Target: &libvirtxml.DomainSerialTarget{Type: "isa-serial", Port: ptr(uint(0)), Model: &libvirtxml.DomainSerialTargetModel{Name: "isa-serial"}},
		Alias:  &libvirtxml.DomainAlias{Name: "ua-serial0"},
	}
	c := libvirtxml.DomainConsole{Source: src, Target: &libvirtxml.DomainConsoleTarget{Type: "serial", Port: ptr(uint(0))}}
	if p := b.in.Paths.ConsoleLog; p != "" {
		s.Log = &libvirtxml.DomainChardevLog{File: p, Append: "on"}
		c.Log = s.Log
	}
	b.dev.Serials = append(b.dev.Serials, s)
	b.dev.Consoles = append(b.dev.Consoles, c)
	return nil
}

// screen is a VGA card with VNC on a unix socket, or none of both.
func (b *builder) screen() error {
	vgpu := false
	for _, u := range b.units {
		vgpu = vgpu || (u.opts.display != nil && isOn(u.opts.display.Enabled, false))
	}
	if !isOn(b.spec.Devices.AutoattachGraphicsDevice, false) && !vgpu {
		b.dev.Videos = append(b.dev.Videos, libvirtxml.DomainVideo{Model: libvirtxml.DomainVideoModel{Type: "none"}})
		return nil
	}
	if b.in.Paths.VNCSocket == "" {
		return hostErrorf("spec.domain.devices.autoattachGraphicsDevice", "no socket for the screen was given")
	}
	b.dev.Graphics = append(b.dev.Graphics, libvirtxml.DomainGraphic{VNC: &libvirtxml.DomainGraphicVNC{
		Listeners: []libvirtxml.DomainGraphicListener{{Socket: &libvirtxml.DomainGraphicListenerSocket{Socket: b.in.Paths.VNCSocket}}},
	}})
	if vgpu && !isOn(b.spec.Devices.AutoattachGraphicsDevice, false) {
		b.dev.Videos = append(b.dev.Videos, libvirtxml.DomainVideo{Model: libvirtxml.DomainVideoModel{Type: "none"}})
		return nil
	}
	model := libvirtxml.DomainVideoModel{Type: "vga", VRam: 16384, Heads: 1, Primary: "yes"}
	if efi, _ := b.isEFI(); efi {
		// UEFI has a driver for it and no legacy VGA is needed.
		model.Type = "bochs"
	}
	b.dev.Videos = append(b.dev.Videos, libvirtxml.DomainVideo{
		Model: model, Address: pciAddress(0, func() (uint, uint, bool) { return slotScreen, 0, false }),
	})
	b.report.Emulated = append(b.report.Emulated, EmulatedReport{Device: "screen", Guest: "0000:00:01.0"})
	return nil
}

// agent is the channel of qemu-guest-agent.
func (b *builder) agent() error {
	if b.spec.Devices.GuestAgent == nil {
		return nil
	}
	if b.in.Paths.AgentSocket == "" {
		return hostErrorf("spec.domain.devices.guestAgent", "no socket for the channel was given")
	}
	k := len(b.dev.Controllers)
	b.dev.Controllers = append(b.dev.Controllers, libvirtxml.DomainController{Type: "virtio-serial", Index: ptr(uint(0))})
	b.emulate("serial controller", func(a *libvirtxml.DomainAddress) { b.dev.Controllers[k].Address = a })
	b.dev.Channels = append(b.dev.Channels, libvirtxml.DomainChannel{
		Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind", Path: b.in.Paths.AgentSocket}},
		Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: "org.qemu.guest_agent.0"}},
		Address: &libvirtxml.DomainAddress{VirtioSerial: &libvirtxml.DomainAddressVirtioSerial{
			Controller: ptr(uint(0)), Bus: ptr(uint(0)), Port: ptr(uint(1)),
		}},
	})
	return nil
}

// small writes random numbers, watchdog, panic devices; never a balloon.
func (b *builder) small() error {
	d := &b.spec.Devices
	b.dev.MemBalloon = &libvirtxml.DomainMemBalloon{Model: "none"}
	if d.Rng != nil {
		k := len(b.dev.RNGs)
		b.dev.RNGs = append(b.dev.RNGs, libvirtxml.DomainRNG{Model: "virtio", Backend: &libvirtxml.DomainRNGBackend{Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"}}})
		b.emulate("random numbers", func(a *libvirtxml.DomainAddress) { b.dev.RNGs[k].Address = a })
	}
	if w := d.Watchdog; w != nil {
		model, action := "itco", w.ITCO
		if w.I6300ESB != nil {
			model, action = "i6300esb", w.I6300ESB
		}
		k := len(b.dev.Watchdogs)
		b.dev.Watchdogs = append(b.dev.Watchdogs, libvirtxml.DomainWatchdog{Model: model, Action: or(action.Action, "reset"), Alias: &libvirtxml.DomainAlias{Name: "ua-watchdog-" + w.Name}})
		if model == "i6300esb" {
			b.emulate("watchdog", func(a *libvirtxml.DomainAddress) { b.dev.Watchdogs[k].Address = a })
		}
	}
	panics := d.PanicDevices
	if len(panics) == 0 {
		// A port in the chipset costs nothing and tells a panic from a hang.
		panics = []v1alpha1.PanicDevice{{Model: "isa"}}
	}
	for _, p := range panics {
		k := len(b.dev.Panics)
		model := or(p.Model, "isa")
		b.dev.Panics = append(b.dev.Panics, libvirtxml.DomainPanic{Model: model})
		if model == "pvpanic" {
			b.emulate("panic device", func(a *libvirtxml.DomainAddress) { b.dev.Panics[k].Address = a })
		}
	}
	return nil
}

func (b *builder) viommu() error {
	m := b.spec.Devices.IOMMU
	n := b.dom.VCPU.Value
	if m == nil {
		if n > 255 {
			return vmspec.Errorf("spec.domain.devices.iommu", "is needed for %d vCPUs: above 255 set model intel", n)
		}
		return nil
	}
	if m.Model == "virtio" {
		b.dev.IOMMUs = append(b.dev.IOMMUs, libvirtxml.DomainIOMMU{Model: "virtio"})
		b.emulate("virtual IOMMU", func(a *libvirtxml.DomainAddress) { b.dev.IOMMUs[0].Address = a })
		if n > 255 {
			return vmspec.Errorf("spec.domain.devices.iommu.model", "must be intel for %d vCPUs", n)
		}
		return nil
	}
	b.dev.IOMMUs = append(b.dev.IOMMUs, libvirtxml.DomainIOMMU{Model: "intel", Driver: &libvirtxml.DomainIOMMUDriver{
		IntRemap: "on", CachingMode: "on", EIM: "on", AWBits: 48,
	}})
	return nil
}

func (b *builder) tpm() error {
	t := b.spec.Devices.TPM
	if !t.On() {
		return nil
	}
	e := &libvirtxml.DomainTPMBackendEmulator{Version: "2.0"}
	if isOn(t.Persistent, false) {
		if b.in.Paths.TPMState == "" {
			return hostErrorf("spec.domain.devices.tpm.persistent", "no place for the state was given: the pod has no volume named persistent-state")
		}
		e.PersistentState = "yes"
		e.Source = &libvirtxml.DomainTPMBackendSource{Dir: &libvirtxml.DomainTPMBackendSourceDir{Path: b.in.Paths.TPMState}}
	}
	b.dev.TPMs = append(b.dev.TPMs, libvirtxml.DomainTPM{Model: "tpm-crb", Backend: &libvirtxml.DomainTPMBackend{Emulator: e}})
	return nil
}

// interfaces writes the network cards that are not virtual functions, and
// collects the settings of those that are.
func (b *builder) interfaces() error {
	list := b.spec.Devices.Interfaces
	if len(list) == 0 && isOn(b.spec.Devices.AutoattachPodInterface, true) {
		list = []v1alpha1.Interface{{Name: "default", Passt: &v1alpha1.InterfacePasst{}}}
	}
	for i := range list {
		x := &list[i]
		field := "spec.domain.devices.interfaces[" + itoa(i) + "]"
		if x.SRIOV != nil {
			b.virtualFunction(x, field)
			continue
		}
		if err := b.passt(x, field); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) virtualFunction(x *v1alpha1.Interface, field string) {
	for _, u := range b.units {
		if u.req.Field() != field {
			continue
		}
		multus := slices.ContainsFunc(b.in.Spec.Networks, func(n v1alpha1.Network) bool { return n.Name == x.Name && n.Multus != nil })
		if multus {
			// The CNI plugin is the one writer of this function's settings.
			return
		}
		s := x.SRIOV
		b.report.VFs = append(b.report.VFs, VFSettings{
			Interface: x.Name, Address: u.leader().Address.String(), MAC: b.mac(x),
			VLAN: s.VLAN, VLANQoS: s.VLANQoS, Trust: s.Trust, SpoofCheck: s.SpoofCheck, LinkState: s.LinkState,
		})
	}
}

// mac is the spec's address or one that stays the same for the guest.
func (b *builder) mac(x *v1alpha1.Interface) string {
	if x.MacAddress != "" {
		return strings.ToLower(strings.ReplaceAll(x.MacAddress, "-", ":"))
	}
	h := sha256.Sum256([]byte(b.dom.UUID + "/" + x.Name))
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", h[0], h[1], h[2])
}

func (b *builder) passt(x *v1alpha1.Interface, field string) error {
	n := libvirtxml.DomainInterface{
		MAC:     &libvirtxml.DomainInterfaceMAC{Address: b.mac(x)},
		Source:  &libvirtxml.DomainInterfaceSource{User: &libvirtxml.DomainInterfaceSourceUser{}},
		Model:   &libvirtxml.DomainInterfaceModel{Type: or(x.Model, "virtio")},
		Backend: &libvirtxml.DomainInterfaceBackend{Type: "passt", LogFile: b.in.Paths.PasstLog},
		Alias:   &libvirtxml.DomainAlias{Name: "ua-net-" + x.Name},
	}
	for _, proto := range []string{"TCP", "UDP"} {
		var ports []int
		for _, p := range x.Ports {
			if or(p.Protocol, "TCP") == proto {
				ports = append(ports, int(p.Port))
			}
		}
		if len(ports) == 0 {
			continue
		}
		slices.Sort(ports)
		f := libvirtxml.DomainInterfaceSourcePortForward{Proto: strings.ToLower(proto)}
		for _, p := range slices.Compact(ports) {
			f.Ranges = append(f.Ranges, libvirtxml.DomainInterfaceSourcePortForwardRange{Start: uint(p)})
		}
		n.PortForward = append(n.PortForward, f)
	}
	if x.ACPIIndex > 0 {
		n.ACPI = &libvirtxml.DomainDeviceACPI{Index: uint(x.ACPIIndex)}
	}
	var err error
	if n.Boot, err = b.bootOrder(x.BootOrder, field); err != nil {
		return err
	}
	k := len(b.dev.Interfaces)
	b.dev.Interfaces = append(b.dev.Interfaces, n)
	b.emulate("interface "+x.Name, func(a *libvirtxml.DomainAddress) { b.dev.Interfaces[k].Address = a })
	return nil
}
