package vmspec

import (
	"net"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// PersistentState is the name of the volume that keeps the firmware's variables
// and the TPM's state over restarts.
const PersistentState = "persistent-state"

var (
	nameForm    = regexp.MustCompile(`^[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$`)
	uuidForm    = regexp.MustCompile(`^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$`)
	machineForm = regexp.MustCompile(`^(q35|pc-q35-[0-9]+\.[0-9]+)$`)
	optionForm  = regexp.MustCompile(`^(x-[a-z0-9]+(-[a-z0-9]+)*|enable-migration)$`)
	secretForm  = regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`)
	wordForm    = regexp.MustCompile(`^[A-Za-z0-9][-_.A-Za-z0-9]{0,63}$`)
)

const devicesField = "spec.domain.devices"

// checker collects the first violation.
type checker struct {
	spec *v1alpha1.VirtualMachineInstanceSpec
	err  error
}

func (c *checker) failf(field, format string, args ...any) {
	if c.err == nil {
		c.err = Errorf(field, format, args...)
	}
}

// oneOf checks an enumeration; the empty word is the default and always good.
func (c *checker) oneOf(field, value string, words ...string) {
	if value != "" && !slices.Contains(words, value) {
		c.failf(field, "is %q, want %s", value, strings.Join(words, ", "))
	}
}

// Validate checks the rules between fields that the types do not hold. It
// returns the first violation in the order of the spec, of class [ErrInvalid].
// A valid spec may still ask for what a given host has not.
func Validate(spec *v1alpha1.VirtualMachineInstanceSpec) error {
	for _, size := range []func() error{
		func() error { _, err := VCPUs(spec); return err },
		func() error { _, err := MemoryBytes(spec); return err },
		func() error { _, err := HugepageBytes(spec); return err },
	} {
		if err := size(); err != nil {
			return err
		}
	}
	c := &checker{spec: spec}
	if s := spec.TerminationGracePeriodSeconds; s != nil && *s < 0 {
		c.failf("spec.terminationGracePeriodSeconds", "is negative")
	}
	c.oneOf("spec.startStrategy", spec.StartStrategy, "Paused")
	c.machine()
	c.firmware()
	c.features()
	c.names()
	c.hostDevices()
	c.interfaces()
	c.storage()
	c.smallDevices()
	c.bootOrders()
	c.lifecycle()
	return c.err
}

func (c *checker) machine() {
	d := &c.spec.Domain
	if m := d.Machine; m != nil && m.Type != "" && !machineForm.MatchString(m.Type) {
		c.failf("spec.domain.machine.type", "is %q, want q35 or pc-q35-MAJOR.MINOR", m.Type)
	}
	c.oneOf("spec.domain.ioThreadsPolicy", d.IOThreadsPolicy, "shared", "auto")
	cpu := d.CPU
	if cpu == nil {
		return
	}
	if cpu.Model != "" && !wordForm.MatchString(cpu.Model) {
		c.failf("spec.domain.cpu.model", "is %q, want host-passthrough, host-model or a model name of libvirt", cpu.Model)
	}
	seen := map[string]bool{}
	for i, f := range cpu.Features {
		field := at("spec.domain.cpu.features", i)
		if !wordForm.MatchString(f.Name) || seen[f.Name] {
			c.failf(field+".name", "%q is not the name of a CPU feature or is there twice", f.Name)
		}
		seen[f.Name] = true
		c.oneOf(field+".policy", f.Policy, "force", "require", "optional", "disable", "forbid")
	}
	if cpu.IsolateEmulatorThread && !cpu.DedicatedCPUPlacement {
		c.failf("spec.domain.cpu.isolateEmulatorThread", "needs dedicatedCpuPlacement")
	}
	if cpu.NUMA != nil && cpu.NUMA.GuestMappingPassthrough != nil && !cpu.DedicatedCPUPlacement {
		c.failf("spec.domain.cpu.numa.guestMappingPassthrough", "needs dedicatedCpuPlacement: without it the vCPUs have no place on the host")
	}
}

func (c *checker) firmware() {
	f := c.spec.Domain.Firmware
	if f == nil {
		return
	}
	const field = "spec.domain.firmware"
	if f.UUID != "" && !uuidForm.MatchString(f.UUID) {
		c.failf(field+".uuid", "%q is not a UUID", f.UUID)
	}
	if f.Serial != "" && !printable(f.Serial, 256) {
		c.failf(field+".serial", "wants 1 to 256 printable characters")
	}
	if l := f.Bootloader; l != nil {
		if l.BIOS != nil && l.EFI != nil {
			c.failf(field+".bootloader", "has both bios and efi")
		}
		if l.EFI != nil && isTrue(l.EFI.Persistent) && c.volume(PersistentState) == nil {
			c.failf(field+".bootloader.efi.persistent", "needs a volume named %s", PersistentState)
		}
	}
	k := f.KernelBoot
	if k == nil {
		return
	}
	if k.Container == nil {
		c.failf(field+".kernelBoot.container", "is not set: there is no kernel to boot")
		return
	}
	if !printable(k.KernelArgs, 4096) && k.KernelArgs != "" {
		c.failf(field+".kernelBoot.kernelArgs", "wants one line of at most 4096 printable characters")
	}
	c.absolute(field+".kernelBoot.container.kernelPath", k.Container.KernelPath)
	if k.Container.InitrdPath != "" {
		c.absolute(field+".kernelBoot.container.initrdPath", k.Container.InitrdPath)
	}
}

// absolute wants a clean absolute path.
func (c *checker) absolute(field, p string) {
	if !printable(p, 1024) || !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
		c.failf(field, "%q is not a plain absolute path of a file", p)
	}
}

func (c *checker) features() {
	d := &c.spec.Domain
	efi, secure := false, false
	if f := d.Firmware; f != nil && f.Bootloader != nil && f.Bootloader.EFI != nil {
		efi = true
		secure = f.Bootloader.EFI.SecureBoot == nil || *f.Bootloader.EFI.SecureBoot
	}
	if f := d.Features; f != nil {
		if off(f.SMM) && secure {
			c.failf("spec.domain.features.smm", "is off, but secure boot needs it; set bootloader.efi.secureBoot: false or smm on")
		}
		if off(f.ACPI) && (efi || len(Requests(c.spec)) > 0) {
			c.failf("spec.domain.features.acpi", "is off, but UEFI and the guest's PCIe root complexes need it")
		}
		c.hyperv(f.Hyperv)
	}
	if k := d.Clock; k != nil && k.UTC != nil && k.Timezone != "" {
		c.failf("spec.domain.clock", "has both utc and timezone")
	} else if k != nil && k.Timezone != "" && !printable(k.Timezone, 64) {
		c.failf("spec.domain.clock.timezone", "is not a name of the tz database")
	}
}

func (c *checker) hyperv(h *v1alpha1.FeatureHyperv) {
	if h == nil {
		return
	}
	const field = "spec.domain.features.hyperv"
	if s := h.Spinlocks; s != nil && s.Retries != nil && *s.Retries < 4095 {
		c.failf(field+".spinlocks.spinlocks", "is %d, want at least 4095", *s.Retries)
	}
	if v := h.VendorID; v != nil && !off(&v.FeatureState) && (!printable(v.VendorID, 12) || strings.Contains(v.VendorID, ",")) {
		c.failf(field+".vendorid.vendorid", "wants 1 to 12 printable characters without a comma")
	}
	if h.SyNIC != nil && !off(h.SyNIC) && (h.VPIndex == nil || off(h.VPIndex)) {
		c.failf(field+".synic", "needs vpindex")
	}
}

// names checks that every list's names are well formed and unique; passed
// devices share one space because they are given by name.
func (c *checker) names() {
	d := &c.spec.Domain.Devices
	passed := map[string]string{}
	for _, r := range Requests(c.spec) {
		if had, ok := passed[r.Name]; ok {
			c.failf(r.Field()+".name", "%q is also the name of %s", r.Name, had)
		}
		passed[r.Name] = r.Field()
	}
	list := func(field string, n int, name func(int) string) {
		seen := map[string]bool{}
		for i := range n {
			s := name(i)
			if !nameForm.MatchString(s) {
				c.failf(at(field, i)+".name", "%q: want letters, digits, '-', '_' and '.', at most 63", s)
			}
			if seen[s] {
				c.failf(at(field, i)+".name", "%q is there twice", s)
			}
			seen[s] = true
		}
	}
	list(devicesField+".gpus", len(d.GPUs), func(i int) string { return d.GPUs[i].Name })
	list(devicesField+".hostDevices", len(d.HostDevices), func(i int) string { return d.HostDevices[i].Name })
	list(devicesField+".interfaces", len(d.Interfaces), func(i int) string { return d.Interfaces[i].Name })
	list(devicesField+".disks", len(d.Disks), func(i int) string { return d.Disks[i].Name })
	list(devicesField+".filesystems", len(d.Filesystems), func(i int) string { return d.Filesystems[i].Name })
	list("spec.volumes", len(c.spec.Volumes), func(i int) string { return c.spec.Volumes[i].Name })
	list("spec.networks", len(c.spec.Networks), func(i int) string { return c.spec.Networks[i].Name })
}

func (c *checker) hostDevices() {
	d := &c.spec.Domain.Devices
	for i := range d.GPUs {
		g := &d.GPUs[i]
		field := at(devicesField+".gpus", i)
		c.resource(field, g.DeviceName)
		c.hostDeviceOptions(field, &g.HostDeviceOptions)
		if v := g.VirtualGPUOptions; v != nil && v.Display != nil && v.Display.RamFB != nil && !off(v.Display.RamFB) && !isTrue(v.Display.Enabled) {
			c.failf(field+".virtualGPUOptions.display.ramFB", "needs display.enabled: true")
		}
	}
	for i := range d.HostDevices {
		h := &d.HostDevices[i]
		field := at(devicesField+".hostDevices", i)
		c.resource(field, h.DeviceName)
		c.oneOf(field+".use", h.Use, v1alpha1.UseDevice, v1alpha1.UseDisk)
		c.hostDeviceOptions(field, &h.HostDeviceOptions)
	}
	c.oneOf(devicesField+".pciTopology", d.PCITopology, v1alpha1.PCITopologyRootComplex, v1alpha1.PCITopologyMirror)
	if d.Alignment != "" {
		if _, err := v1alpha1.ParseAlignment(d.Alignment); err != nil {
			c.failf(devicesField+".alignment", "%v", err)
		}
	}
}

func (c *checker) resource(field, name string) {
	if name == "" || !printable(name, 253) || strings.ContainsAny(name, " ,=") {
		c.failf(field+".deviceName", "%q is not the name of a resource", name)
	}
}

func (c *checker) hostDeviceOptions(field string, o *v1alpha1.HostDeviceOptions) {
	if r := o.ROM; r != nil {
		if r.File != "" {
			c.absolute(field+".rom.file", r.File)
			if r.Bar != nil && !*r.Bar {
				c.failf(field+".rom", "has a file and bar: false; the file would not be seen")
			}
		}
		if r.File == "" && r.Bar == nil {
			c.failf(field+".rom", "is empty: set bar or file")
		}
	}
	var keys []string
	for k := range o.QEMUOptions {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if !optionForm.MatchString(k) {
			c.failf(field+".qemuOptions", "%q: only options that start with x- and enable-migration are passed on", k)
		}
		if k == "x-no-mmap" {
			c.failf(field+".qemuOptions", "x-no-mmap is the field noMmap")
		}
		if !printable(o.QEMUOptions[k], 128) {
			c.failf(field+".qemuOptions", "%s: want 1 to 128 printable characters", k)
		}
	}
}

// bootOrders are unique in the machine.
func (c *checker) bootOrders() {
	d := &c.spec.Domain.Devices
	seen := map[uint]string{}
	check := func(field string, order *uint) {
		if order == nil {
			return
		}
		if *order == 0 || *order > 255 {
			c.failf(field+".bootOrder", "is %d, want 1 to 255", *order)
		}
		if had, ok := seen[*order]; ok {
			c.failf(field+".bootOrder", "%d is also that of %s", *order, had)
		}
		seen[*order] = field
	}
	for i := range d.GPUs {
		check(at(devicesField+".gpus", i), d.GPUs[i].BootOrder)
	}
	for i := range d.HostDevices {
		check(at(devicesField+".hostDevices", i), d.HostDevices[i].BootOrder)
	}
	for i := range d.Interfaces {
		check(at(devicesField+".interfaces", i), d.Interfaces[i].BootOrder)
	}
	for i := range d.Disks {
		check(at(devicesField+".disks", i), d.Disks[i].BootOrder)
	}
}

func (c *checker) volume(name string) *v1alpha1.Volume {
	for i := range c.spec.Volumes {
		if c.spec.Volumes[i].Name == name {
			return &c.spec.Volumes[i]
		}
	}
	return nil
}

// macOK accepts 48-bit unicast addresses that are not all zero.
func macOK(s string) bool {
	m, err := net.ParseMAC(s)
	return err == nil && len(m) == 6 && m[0]&1 == 0 && !slices.Equal(m, make(net.HardwareAddr, 6)) && !strings.Contains(s, ".")
}

// printable reports whether the text has 1 to limit printable characters that
// XML can carry.
func printable(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '\uFFFD' || r == '\uFFFE' || r == '\uFFFF' {
			return false
		}
	}
	return true
}

func isTrue(p *bool) bool { return p != nil && *p }

// off reports whether a feature is switched off; absent is not off.
func off(f *v1alpha1.FeatureState) bool { return f != nil && f.Enabled != nil && !*f.Enabled }
