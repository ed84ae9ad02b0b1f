package topology

import "strings"

// PCI class codes that decide what a function is to an isolation unit; names
// follow the PCI code and ID assignment specification.
const (
	baseStorage     = 0x01
	baseNetwork     = 0x02
	baseDisplay     = 0x03
	baseMultimedia  = 0x04
	baseBridge      = 0x06
	baseProcessor   = 0x0b
	baseSerial      = 0x0c
	baseAccelerator = 0x12

	classHostBridge   = 0x0600
	classPCIBridge    = 0x0604
	classSemiBridge   = 0x0609
	classOtherBridge  = 0x0680
	classFibreChannel = 0x0c04
	classInfiniBand   = 0x0c06
)

// Transparent reports whether the function is a bridge that VFIO leaves alone:
// a PCI-to-PCI bridge (root port, switch port) or a host bridge. Such a
// function never belongs to a unit and never blocks one.
func (f *Function) Transparent() bool {
	switch f.Class >> 8 {
	case classHostBridge, classPCIBridge, classSemiBridge:
		return true
	}
	return false
}

// platform reports whether the function is a bridge to the platform itself
// (ISA, LPC, EISA, CardBus …): it is neither transparent to VFIO nor anything
// that a guest may have. NVSwitches are of class "other bridge" and devices.
func (f *Function) platform() bool {
	return f.Class>>16 == baseBridge && !f.Transparent() && f.Class>>8 != classOtherBridge
}

// primaryClass reports whether functions of this class are wanted for their own
// sake: storage, network, display, processors, accelerators, fabric switches.
// Everything else (audio, USB, UCSI, SMBus, crypto and sensor functions) is a
// companion when it sits beside such a function.
func (f *Function) primaryClass() bool {
	switch f.Class >> 16 {
	case baseStorage, baseNetwork, baseDisplay, baseProcessor, baseAccelerator:
		return true
	}
	switch f.Class >> 8 {
	case classOtherBridge, classFibreChannel, classInfiniBand:
		return true
	}
	return false
}

// Switches are the upstream ports of the PCIe switches between the function's
// root port and the function, from the root downwards; nil without a switch.
//
// sysfs does not name port types, so they are told by place: below the root
// port (the first of [Function.Path]) a switch shows as an upstream port
// followed by one downstream port. A lone bridge at the end of the path (a
// PCIe-to-PCI bridge) is no switch.
func (f *Function) Switches() []Address {
	var s []Address
	for i := 2; i < len(f.Path); i += 2 {
		s = append(s, f.Path[i-1])
	}
	return s
}

// VFIO reports whether the function is bound to a VFIO driver: vfio-pci or a
// variant driver, all of which carry "vfio" in their name.
func (f *Function) VFIO() bool { return IsVFIODriver(f.Driver) }

// IsVFIODriver reports whether a driver's name is that of a VFIO driver.
func IsVFIODriver(name string) bool { return strings.Contains(name, "vfio") }
