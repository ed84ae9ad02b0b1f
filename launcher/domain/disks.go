package domain

import (
	"libvirt.org/go/libvirtxml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
)

// sataPorts is what the chipset's controller has.
const sataPorts = 6

// diskBus counts the disks of a bus.
type diskBus struct{ virtio, sata, scsi int }

// disks writes the spec's disks and the NVMe controllers used as disks.
func (b *builder) disks() error {
	var bus diskBus
	volumes := map[string]*v1alpha1.Volume{}
	for i := range b.in.Spec.Volumes {
		volumes[b.in.Spec.Volumes[i].Name] = &b.in.Spec.Volumes[i]
	}
	for i := range b.spec.Devices.Disks {
		d := &b.spec.Devices.Disks[i]
		field := "spec.domain.devices.disks[" + itoa(i) + "]"
		if err := b.disk(d, volumes[d.Name], field, &bus); err != nil {
			return err
		}
	}
	for _, n := range b.nvme {
		if err := b.nvmeDisk(n, &bus); err != nil {
			return err
		}
	}
	if bus.sata > 0 {
		b.dev.Controllers = append(b.dev.Controllers, libvirtxml.DomainController{Type: "sata", Index: ptr(uint(0)), Address: chipset(2)})
	}
	if bus.scsi > 0 {
		k := len(b.dev.Controllers)
		b.dev.Controllers = append(b.dev.Controllers, libvirtxml.DomainController{Type: "scsi", Index: ptr(uint(0)), Model: "virtio-scsi"})
		b.emulate("SCSI controller", func(a *libvirtxml.DomainAddress) { b.dev.Controllers[k].Address = a })
	}
	b.dom.IOThreads = b.threads
	if b.threads > 0 && b.dom.CPUTune != nil && len(b.cpu.emulator) > 0 {
		for t := range b.threads {
			b.dom.CPUTune.IOThreadPin = append(b.dom.CPUTune.IOThreadPin,
				libvirtxml.DomainCPUTuneIOThreadPin{IOThread: t + 1, CPUSet: listString(b.cpu.emulator)})
		}
	}
	return nil
}

// chipset is a function of the chipset's own slot.
func chipset(function uint) *libvirtxml.DomainAddress {
	return pciAddress(0, func() (uint, uint, bool) { return 0x1f, function, false })
}

func (b *builder) disk(d *v1alpha1.Disk, v *v1alpha1.Volume, field string, bus *diskBus) error {
	place, ok := b.in.Volumes[d.Name]
	if !ok || place.Path == "" {
		return hostErrorf(field, "the volume %q has no place in the container", d.Name)
	}
	x := libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw", Cache: d.Cache, IO: d.IO, ErrorPolicy: d.ErrorPolicy},
		Target: &libvirtxml.DomainDiskTarget{Bus: "virtio"},
		Serial: d.Serial,
		Alias:  &libvirtxml.DomainAlias{Name: "ua-disk-" + d.Name},
	}
	readOnly := false
	switch {
	case d.CDRom != nil:
		x.Device, x.Target.Bus, readOnly = "cdrom", or(d.CDRom.Bus, "sata"), true
	case d.LUN != nil:
		x.Device, x.Target.Bus, readOnly = "lun", "scsi", d.LUN.ReadOnly
		if !place.Block {
			return hostErrorf(field+".lun", "the volume is not a block device")
		}
	case d.Disk != nil:
		x.Target.Bus, readOnly = or(d.Disk.Bus, "virtio"), d.Disk.ReadOnly
	}
	readOnly = readOnly || volumeReadOnly(v)
	if err := source(&x, v, place, readOnly, field); err != nil {
		return err
	}
	if readOnly {
		x.ReadOnly = &libvirtxml.DomainDiskReadOnly{}
	}
	if isOn(d.Shareable, false) {
		x.Shareable = &libvirtxml.DomainDiskShareable{}
	}
	var err error
	if x.Boot, err = b.bootOrder(d.BootOrder, field); err != nil {
		return err
	}
	if err := b.diskPlace(&x, bus, field); err != nil {
		return err
	}
	b.diskThreads(&x, isOn(d.DedicatedIOThread, false))
	if x.Target.Bus == "virtio" && isOn(b.spec.Devices.BlockMultiQueue, false) {
		x.Driver.Queues = ptr(b.dom.VCPU.Value)
	}
	b.addDisk(&x)
	return nil
}

// volumeReadOnly reports whether the volume itself forbids writing.
func volumeReadOnly(v *v1alpha1.Volume) bool {
	switch {
	case v == nil:
		return false
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ReadOnly
	}
	return v.CloudInitNoCloud != nil || v.CloudInitConfigDrive != nil
}

// source names the file or device, with an overlay for images that are not the
// guest's to write.
func source(x *libvirtxml.DomainDisk, v *v1alpha1.Volume, place Volume, readOnly bool, field string) error {
	format := or(place.Format, "raw")
	if format != "raw" && format != "qcow2" {
		return hostErrorf(field, "the volume's image format %q is neither raw nor qcow2", place.Format)
	}
	if place.Block {
		x.Source = &libvirtxml.DomainDiskSource{Block: &libvirtxml.DomainDiskSourceBlock{Dev: place.Path}}
		x.Driver.Type = format
		return nil
	}
	file := func(p string) *libvirtxml.DomainDiskSource {
		return &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: p}}
	}
	if v != nil && v.ContainerDisk != nil && !readOnly {
		if place.Overlay == "" {
			return hostErrorf(field, "a containerDisk that the guest may write needs an overlay file, none was given")
		}
		x.Driver.Type = "qcow2"
		x.Source = file(place.Overlay)
		x.BackingStore = &libvirtxml.DomainDiskBackingStore{
			Format:       &libvirtxml.DomainDiskFormat{Type: format},
			Source:       file(place.Path),
			BackingStore: &libvirtxml.DomainDiskBackingStore{},
		}
		return nil
	}
	x.Driver.Type = format
	x.Source = file(place.Path)
	return nil
}

// diskPlace numbers the disk on its bus.
func (b *builder) diskPlace(x *libvirtxml.DomainDisk, bus *diskBus, field string) error {
	unit := func(n int) *libvirtxml.DomainAddress {
		return &libvirtxml.DomainAddress{Drive: &libvirtxml.DomainAddressDrive{
			Controller: ptr(uint(0)), Bus: ptr(uint(0)), Target: ptr(uint(0)), Unit: ptr(uint(n)),
		}}
	}
	switch x.Target.Bus {
	case "virtio":
		x.Target.Dev = "vd" + letters(bus.virtio)
		bus.virtio++
	case "sata":
		if bus.sata == sataPorts {
			return vmspec.Errorf(field, "is SATA disk number %d, the chipset has %d ports", bus.sata+1, sataPorts)
		}
		// SATA and SCSI share the sd names: SATA takes the first six.
		x.Target.Dev = "sd" + letters(bus.sata)
		x.Address = unit(bus.sata)
		bus.sata++
	case "scsi":
		x.Target.Dev = "sd" + letters(sataPorts+bus.scsi)
		x.Address = unit(bus.scsi)
		bus.scsi++
		if bus.scsi > 256 {
			return vmspec.Errorf(field, "is SCSI disk number %d, at most 256", bus.scsi)
		}
	}
	return nil
}

// diskThreads gives a virtio disk its I/O thread.
func (b *builder) diskThreads(x *libvirtxml.DomainDisk, dedicated bool) {
	if x.Target.Bus != "virtio" {
		return
	}
	switch {
	case dedicated || b.spec.IOThreadsPolicy == "auto":
		b.threads++
		x.Driver.IOThread = ptr(b.threads)
	case b.spec.IOThreadsPolicy == "shared":
		if b.sharedThread == 0 {
			b.threads++
			b.sharedThread = b.threads
		}
		x.Driver.IOThread = ptr(b.sharedThread)
	}
}

func (b *builder) addDisk(x *libvirtxml.DomainDisk) {
	k := len(b.dev.Disks)
	b.dev.Disks = append(b.dev.Disks, *x)
	if x.Target.Bus == "virtio" {
		b.emulate("disk "+x.Target.Dev, func(a *libvirtxml.DomainAddress) { b.dev.Disks[k].Address = a })
	}
}

// nvmeDisk gives the guest a virtio disk on QEMU's own NVMe driver.
func (b *builder) nvmeDisk(n *otherDevice, bus *diskBus) error {
	a := n.function.Address
	x := libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source: &libvirtxml.DomainDiskSource{NVME: &libvirtxml.DomainDiskSourceNVME{PCI: &libvirtxml.DomainDiskSourceNVMEPCI{
			Managed: "no", Namespace: 1,
			Address: &libvirtxml.DomainAddressPCI{Domain: ptr(uint(a.Domain)), Bus: ptr(uint(a.Bus)), Slot: ptr(uint(a.Device)), Function: ptr(uint(a.Function))},
		}}},
		Target: &libvirtxml.DomainDiskTarget{Bus: "virtio"},
		Alias:  &libvirtxml.DomainAlias{Name: "ua-hostdevice-" + n.req.Name},
	}
	field := n.req.Field()
	if err := onlyPlain(n.req, unitOptions{HostDeviceOptions: n.opts.HostDeviceOptions}, "an NVMe controller that is used as a disk"); err != nil {
		return err
	}
	var err error
	if x.Boot, err = b.bootOrder(n.opts.BootOrder, field); err != nil {
		return err
	}
	if err := b.diskPlace(&x, bus, field); err != nil {
		return err
	}
	b.diskThreads(&x, false)
	b.addDisk(&x)
	return nil
}

// filesystems writes the virtiofs shares.
func (b *builder) filesystems() error {
	for i, f := range b.spec.Devices.Filesystems {
		field := "spec.domain.devices.filesystems[" + itoa(i) + "]"
		v := b.in.Volumes[f.Name]
		if v.Socket == "" {
			return hostErrorf(field, "no socket of virtiofsd was given for the volume %q", f.Name)
		}
		k := len(b.dev.Filesystems)
		b.dev.Filesystems = append(b.dev.Filesystems, libvirtxml.DomainFilesystem{
			AccessMode: "passthrough",
			Driver:     &libvirtxml.DomainFilesystemDriver{Type: "virtiofs", Queue: 1024},
			Source:     &libvirtxml.DomainFilesystemSource{Mount: &libvirtxml.DomainFilesystemSourceMount{Socket: v.Socket}},
			Target:     &libvirtxml.DomainFilesystemTarget{Dir: f.Name},
			Alias:      &libvirtxml.DomainAlias{Name: "ua-fs-" + f.Name},
		})
		b.emulate("virtiofs "+f.Name, func(a *libvirtxml.DomainAddress) { b.dev.Filesystems[k].Address = a })
		b.shared = append(b.shared, field)
	}
	return nil
}

func or(a, def string) string {
	if a == "" {
		return def
	}
	return a
}

// letters is the suffix of disk n: a to z, aa, ab…
func letters(n int) string {
	s := ""
	for n >= 0 {
		s = string(rune('a'+n%26)) + s
		n = n/26 - 1
	}
	return s
}
