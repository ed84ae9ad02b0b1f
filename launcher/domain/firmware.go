package domain

import (
	"strconv"

	"libvirt.org/go/libvirtxml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// firmware writes machine type, BIOS or UEFI, and the kernel.
func (b *builder) firmware() error {
	machine := "q35"
	if m := b.spec.Machine; m != nil && m.Type != "" {
		machine = m.Type
	}
	os := &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: machine, Type: "hvm"}}
	b.dom.OS = os
	f := b.spec.Firmware
	if f == nil {
		return nil
	}
	if l := f.Bootloader; l != nil && l.EFI != nil {
		if err := b.efi(os, l.EFI); err != nil {
			return err
		}
	} else if l != nil && l.BIOS != nil && isOn(l.BIOS.UseSerial, false) {
		os.BIOS = &libvirtxml.DomainBIOS{UseSerial: "yes"}
	}
	if k := f.KernelBoot; k != nil && k.Container != nil {
		os.Kernel, os.Initrd, os.Cmdline = k.Container.KernelPath, k.Container.InitrdPath, k.KernelArgs
	}
	if f.Serial != "" {
		os.SMBios = &libvirtxml.DomainSMBios{Mode: "sysinfo"}
		b.dom.SysInfo = append(b.dom.SysInfo, libvirtxml.DomainSysInfo{SMBIOS: &libvirtxml.DomainSysInfoSMBIOS{
			System: &libvirtxml.DomainSysInfoSystem{Entry: []libvirtxml.DomainSysInfoEntry{{Name: "serial", Value: f.Serial}}},
		}})
	}
	return nil
}

func (b *builder) efi(os *libvirtxml.DomainOS, e *v1alpha1.EFI) error {
	secure := isOn(e.SecureBoot, true)
	os.Firmware = "efi"
	os.FirmwareInfo = &libvirtxml.DomainOSFirmwareInfo{Features: []libvirtxml.DomainOSFirmwareFeature{
		{Enabled: yesNo(secure), Name: "enrolled-keys"},
		{Enabled: yesNo(secure), Name: "secure-boot"},
	}}
	switch {
	case isOn(e.Persistent, false) && b.in.Paths.NVRAM == "":
		return hostErrorf("spec.domain.firmware.bootloader.efi.persistent", "no place for the variables was given: the pod has no volume named persistent-state")
	case b.in.Paths.NVRAM != "":
		os.NVRam = &libvirtxml.DomainNVRam{NVRam: b.in.Paths.NVRAM}
	}
	if mib := b.window.ovmfMiB(b.in.Host.PhysAddrBits); mib > 0 {
		b.report.Window.OVMFMiB = mib
		b.fwcfg(libvirtxml.DomainSysInfoEntry{Name: "opt/ovmf/X-PciMmio64Mb", Value: strconv.FormatUint(mib, 10)})
	}
	return nil
}

// isEFI reports whether the guest boots by UEFI, and whether securely.
func (b *builder) isEFI() (efi, secure bool) {
	f := b.spec.Firmware
	if f == nil || f.Bootloader == nil || f.Bootloader.EFI == nil {
		return false, false
	}
	return true, isOn(f.Bootloader.EFI.SecureBoot, true)
}

// features writes what the hypervisor shows of itself, and the clock.
func (b *builder) features() error {
	f := &libvirtxml.DomainFeatureList{
		ACPI:   &libvirtxml.DomainFeature{},
		APIC:   &libvirtxml.DomainFeatureAPIC{},
		VMPort: &libvirtxml.DomainFeatureState{State: "off"},
	}
	s := b.spec.Features
	if s == nil {
		s = &v1alpha1.Features{}
	}
	if s.ACPI != nil && !isOn(s.ACPI.Enabled, true) {
		f.ACPI = nil
	}
	if _, secure := b.isEFI(); secure || (s.SMM != nil && isOn(s.SMM.Enabled, true)) {
		f.SMM = &libvirtxml.DomainFeatureSMM{State: "on"}
	} else if s.SMM != nil {
		f.SMM = &libvirtxml.DomainFeatureSMM{State: "off"}
	}
	if s.KVM != nil && s.KVM.Hidden {
		f.KVM = &libvirtxml.DomainFeatureKVM{Hidden: &libvirtxml.DomainFeatureState{State: "on"}}
	}
	if b.spec.CPU != nil && b.spec.CPU.DedicatedCPUPlacement {
		if f.KVM == nil {
			f.KVM = &libvirtxml.DomainFeatureKVM{}
		}
		f.KVM.HintDedicated = &libvirtxml.DomainFeatureState{State: "on"}
	}
	if s.Hyperv != nil {
		f.HyperV = hyperv(s.Hyperv)
	}
	if m := b.spec.Devices.IOMMU; m != nil && m.Model != "virtio" {
		// Interrupt remapping needs the I/O APIC in QEMU.
		f.IOAPIC = &libvirtxml.DomainFeatureIOAPIC{Driver: "qemu"}
	}
	b.dom.Features = f
	b.clock()
	return nil
}

func hyperv(h *v1alpha1.FeatureHyperv) *libvirtxml.DomainFeatureHyperV {
	state := func(s *v1alpha1.FeatureState) *libvirtxml.DomainFeatureState {
		if s == nil {
			return nil
		}
		return &libvirtxml.DomainFeatureState{State: onOff(isOn(s.Enabled, true))}
	}
	out := &libvirtxml.DomainFeatureHyperV{
		Relaxed: state(h.Relaxed), VAPIC: state(h.VAPIC), VPIndex: state(h.VPIndex), Runtime: state(h.Runtime),
		Synic: state(h.SyNIC), Reset: state(h.Reset), Frequencies: state(h.Frequencies),
		IPI: state(h.IPI),
	}
	if h.TLBFlush != nil {
		out.TLBFlush = &libvirtxml.DomainFeatureHyperVTLBFlush{DomainFeatureState: *state(h.TLBFlush)}
	}
	if s := h.Spinlocks; s != nil {
		out.Spinlocks = &libvirtxml.DomainFeatureHyperVSpinlocks{DomainFeatureState: *state(&s.FeatureState)}
		if isOn(s.Enabled, true) {
			out.Spinlocks.Retries = 8191
			if s.Retries != nil {
				out.Spinlocks.Retries = uint(*s.Retries)
			}
		}
	}
	if v := h.VendorID; v != nil {
		out.VendorId = &libvirtxml.DomainFeatureHyperVVendorId{DomainFeatureState: *state(&v.FeatureState), Value: v.VendorID}
	}
	return out
}

// clock writes the time base. The legacy timers are those that libvirt's own
// guide recommends for KVM guests.
func (b *builder) clock() {
	c := &libvirtxml.DomainClock{Offset: "utc"}
	if s := b.spec.Clock; s != nil {
		switch {
		case s.Timezone != "":
			c.Offset, c.TimeZone = "timezone", s.Timezone
		case s.UTC != nil && s.UTC.OffsetSeconds != nil:
			c.Offset, c.Basis, c.Adjustment = "variable", "utc", strconv.FormatInt(*s.UTC.OffsetSeconds, 10)
		}
	}
	c.Timer = []libvirtxml.DomainTimer{
		{Name: "rtc", TickPolicy: "catchup"},
		{Name: "pit", TickPolicy: "delay"},
		{Name: "hpet", Present: "no"},
	}
	b.dom.Clock = c
}
