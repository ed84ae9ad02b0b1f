package vmspec

import (
	"encoding/base64"
	"path"
	"strconv"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// at is the path of a list's element.
func at(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

func (c *checker) interfaces() {
	d := &c.spec.Domain.Devices
	networks := map[string]*v1alpha1.Network{}
	for i := range c.spec.Networks {
		n := &c.spec.Networks[i]
		field := at("spec.networks", i)
		if (n.Pod == nil) == (n.Multus == nil) {
			c.failf(field, "wants exactly one of pod and multus")
		}
		if n.Multus != nil && n.Multus.Default {
			c.failf(field+".multus.default", "is not supported: the pod's own network stays the default one")
		}
		if n.Multus != nil && !printable(n.Multus.NetworkName, 253) {
			c.failf(field+".multus.networkName", "is empty")
		}
		networks[n.Name] = n
	}
	used := map[string]bool{}
	indices := map[int]string{}
	passt := ""
	for i := range d.Interfaces {
		x := &d.Interfaces[i]
		field := at(devicesField+".interfaces", i)
		used[x.Name] = true
		c.binding(field, x)
		c.oneOf(field+".model", x.Model, "virtio", "e1000e", "rtl8139")
		if x.MacAddress != "" && !macOK(x.MacAddress) {
			c.failf(field+".macAddress", "%q is not a unicast MAC address", x.MacAddress)
		}
		if x.ACPIIndex < 0 || x.ACPIIndex > 16383 {
			c.failf(field+".acpiIndex", "is %d, want 1 to 16383", x.ACPIIndex)
		}
		if had, ok := indices[x.ACPIIndex]; ok && x.ACPIIndex > 0 {
			c.failf(field+".acpiIndex", "%d is also that of %s", x.ACPIIndex, had)
		}
		indices[x.ACPIIndex] = field
		if x.SRIOV != nil {
			c.sriov(field, x, networks[x.Name])
			continue
		}
		if n := networks[x.Name]; n != nil && n.Multus != nil {
			c.failf(field, "the network %q is a Multus network: only sriov interfaces can have one", x.Name)
		}
		if passt != "" {
			c.failf(field, "is the second interface on the pod network, after %s; there can be one", passt)
		}
		passt = field
		c.ports(field, x.Ports)
	}
	for i := range c.spec.Networks {
		if n := c.spec.Networks[i].Name; !used[n] {
			c.failf(at("spec.networks", i), "%q has no interface of that name", n)
		}
	}
	if isTrue(d.NetworkInterfaceMultiqueue) && passt != "" {
		c.failf(devicesField+".networkInterfaceMultiqueue", "is not possible: passt has one queue")
	}
}

// binding wants exactly one way to connect.
func (c *checker) binding(field string, x *v1alpha1.Interface) {
	for _, refused := range []struct {
		name string
		set  bool
	}{{"masquerade", x.Masquerade != nil}, {"bridge", x.Bridge != nil}, {"tap", x.Tap != nil}} {
		if refused.set {
			c.failf(field+"."+refused.name, "is not supported: it needs privileges in the pod's network; use passt: {}")
		}
	}
	if x.Binding != nil && x.Binding.Name != "passt" {
		c.failf(field+".binding.name", "%q is not known, only passt is", x.Binding.Name)
	}
	n := 0
	for _, set := range []bool{x.SRIOV != nil, x.Passt != nil, x.PasstBinding != nil, x.Binding != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		c.failf(field, "wants exactly one of sriov and passt")
	}
}

func (c *checker) sriov(field string, x *v1alpha1.Interface, n *v1alpha1.Network) {
	s := x.SRIOV
	multus := n != nil && n.Multus != nil
	switch {
	case n != nil && n.Pod != nil:
		c.failf(field+".sriov", "the network %q is the pod's: a virtual function cannot be on it", x.Name)
	case s.DeviceName == "" && !multus:
		c.failf(field+".sriov.deviceName", "is empty and no Multus network %q gives the device", x.Name)
	case s.DeviceName != "":
		c.resource(field+".sriov", s.DeviceName)
	}
	if x.Model != "" {
		c.failf(field+".model", "is not possible for a virtual function")
	}
	if len(x.Ports) > 0 {
		c.failf(field+".ports", "are not possible for a virtual function: all its ports reach the guest")
	}
	if v := s.VLAN; v != nil && (*v < 0 || *v > 4094) {
		c.failf(field+".sriov.vlan", "is %d, want 0 to 4094", *v)
	}
	if q := s.VLANQoS; q != nil {
		if *q < 0 || *q > 7 {
			c.failf(field+".sriov.vlanQoS", "is %d, want 0 to 7", *q)
		}
		if s.VLAN == nil || *s.VLAN == 0 {
			c.failf(field+".sriov.vlanQoS", "needs a vlan")
		}
	}
	c.oneOf(field+".sriov.linkState", s.LinkState, "auto", "enable", "disable")
	if multus && (s.VLAN != nil || s.Trust != nil || s.SpoofCheck != nil || s.LinkState != "") {
		c.failf(field+".sriov", "the settings of a virtual function of a Multus network belong in its NetworkAttachmentDefinition")
	}
}

func (c *checker) ports(field string, ports []v1alpha1.Port) {
	type key struct {
		proto string
		port  int32
	}
	seen := map[key]bool{}
	for i, p := range ports {
		f := at(field+".ports", i)
		c.oneOf(f+".protocol", p.Protocol, "TCP", "UDP")
		if p.Port < 1 || p.Port > 65535 {
			c.failf(f+".port", "is %d, want 1 to 65535", p.Port)
		}
		k := key{p.Protocol, p.Port}
		if k.proto == "" {
			k.proto = "TCP"
		}
		if seen[k] {
			c.failf(f, "%s %d is there twice", k.proto, k.port)
		}
		seen[k] = true
	}
}

// storage checks disks, filesystems and volumes against each other.
func (c *checker) storage() {
	d := &c.spec.Domain.Devices
	user := map[string]string{}
	for i := range d.Disks {
		x := &d.Disks[i]
		field := at(devicesField+".disks", i)
		user[x.Name] = field
		c.disk(field, x, c.volume(x.Name))
	}
	for i := range d.Filesystems {
		f := &d.Filesystems[i]
		field := at(devicesField+".filesystems", i)
		if had, ok := user[f.Name]; ok {
			c.failf(field, "the volume %q is also that of %s", f.Name, had)
		}
		user[f.Name] = field
		if f.Virtiofs == nil {
			c.failf(field+".virtiofs", "is not set; it is the only kind of filesystem")
		}
		if len(f.Name) > 36 {
			c.failf(field+".name", "is the virtiofs tag, at most 36 characters")
		}
		v := c.volume(f.Name)
		if v == nil {
			c.failf(field, "there is no volume %q", f.Name)
		} else if v.PersistentVolumeClaim == nil && v.DataVolume == nil && v.ConfigMap == nil && v.Secret == nil && v.EmptyDir == nil {
			c.failf(field, "the volume %q is none of persistentVolumeClaim, dataVolume, configMap, secret, emptyDir", f.Name)
		}
	}
	for i := range c.spec.Volumes {
		v := &c.spec.Volumes[i]
		field := at("spec.volumes", i)
		c.source(field, v)
		if user[v.Name] == "" && v.Name != PersistentState {
			c.failf(field, "%q is used by no disk and no filesystem", v.Name)
		}
		if v.Name == PersistentState && user[v.Name] != "" {
			c.failf(field, "%s holds firmware variables and TPM state and cannot be %s too", PersistentState, user[v.Name])
		}
		if v.Name == PersistentState && v.PersistentVolumeClaim == nil && v.DataVolume == nil {
			c.failf(field, "%s must be a persistentVolumeClaim", PersistentState)
		}
	}
}

func (c *checker) disk(field string, x *v1alpha1.Disk, v *v1alpha1.Volume) {
	n := 0
	for _, set := range []bool{x.Disk != nil, x.CDRom != nil, x.LUN != nil} {
		if set {
			n++
		}
	}
	if n > 1 {
		c.failf(field, "wants at most one of disk, cdrom and lun")
	}
	virtio := true
	switch {
	case x.Disk != nil:
		c.oneOf(field+".disk.bus", x.Disk.Bus, "virtio", "sata", "scsi")
		virtio = x.Disk.Bus == "" || x.Disk.Bus == "virtio"
	case x.CDRom != nil:
		c.oneOf(field+".cdrom.bus", x.CDRom.Bus, "sata", "scsi")
		virtio = false
		if x.CDRom.ReadOnly != nil && !*x.CDRom.ReadOnly {
			c.failf(field+".cdrom.readonly", "cannot be false")
		}
	case x.LUN != nil:
		c.oneOf(field+".lun.bus", x.LUN.Bus, "scsi")
		virtio = false
		if v != nil && v.PersistentVolumeClaim == nil && v.DataVolume == nil {
			c.failf(field+".lun", "needs a volume that is a block device")
		}
	}
	c.oneOf(field+".cache", x.Cache, "none", "writethrough", "writeback")
	c.oneOf(field+".io", x.IO, "native", "threads", "io_uring")
	c.oneOf(field+".errorPolicy", x.ErrorPolicy, "stop", "ignore", "report", "enospace")
	if x.IO == "native" && x.Cache != "none" {
		c.failf(field+".io", "native needs cache: none")
	}
	if isTrue(x.DedicatedIOThread) && !virtio {
		c.failf(field+".dedicatedIOThread", "is for disks on the virtio bus")
	}
	if x.Serial != "" && !wordForm.MatchString(x.Serial) || len(x.Serial) > 36 {
		c.failf(field+".serial", "%q: want at most 36 letters, digits, '-', '_' and '.'", x.Serial)
	}
	switch {
	case v == nil:
		c.failf(field, "there is no volume %q", x.Name)
	case v.ConfigMap != nil || v.Secret != nil || v.EmptyDir != nil:
		c.failf(field, "the volume %q is a folder: use it as a filesystem", x.Name)
	case isTrue(x.Shareable) && v.PersistentVolumeClaim == nil && v.DataVolume == nil:
		c.failf(field+".shareable", "needs a persistentVolumeClaim: nobody else has this volume")
	}
}

func (c *checker) source(field string, v *v1alpha1.Volume) {
	n := 0
	for _, set := range []bool{
		v.ContainerDisk != nil, v.PersistentVolumeClaim != nil, v.DataVolume != nil, v.EmptyDisk != nil,
		v.CloudInitNoCloud != nil, v.CloudInitConfigDrive != nil, v.ConfigMap != nil, v.Secret != nil, v.EmptyDir != nil,
	} {
		if set {
			n++
		}
	}
	if n != 1 {
		c.failf(field, "has %d sources, want exactly one of containerDisk, persistentVolumeClaim, dataVolume, emptyDisk, cloudInitNoCloud, cloudInitConfigDrive, configMap, secret, emptyDir", n)
	}
	switch {
	case v.ContainerDisk != nil && v.ContainerDisk.Path != "":
		if p := v.ContainerDisk.Path; !printable(p, 1024) || path.Clean("/"+p) != "/"+strings.TrimPrefix(p, "/") || p == "/" {
			c.failf(field+".containerDisk.path", "%q is not a plain path within the image", p)
		}
	case v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == "":
		c.failf(field+".persistentVolumeClaim.claimName", "is empty")
	case v.DataVolume != nil && v.DataVolume.Name == "":
		c.failf(field+".dataVolume.name", "is empty")
	case v.EmptyDisk != nil:
		if b := v.EmptyDisk.Capacity.Value(); b < MiB || b > 1<<50 {
			c.failf(field+".emptyDisk.capacity", "is %s, want 1Mi to 1Pi", v.EmptyDisk.Capacity.String())
		}
	case v.CloudInitNoCloud != nil:
		c.cloudInit(field+".cloudInitNoCloud", v.CloudInitNoCloud)
	case v.CloudInitConfigDrive != nil:
		c.cloudInit(field+".cloudInitConfigDrive", v.CloudInitConfigDrive)
	}
}

func (c *checker) cloudInit(field string, s *v1alpha1.CloudInitSource) {
	kind := func(text, text64 string, ref bool, name, name64, nameRef string) int {
		n := 0
		for _, set := range []bool{text != "", text64 != "", ref} {
			if set {
				n++
			}
		}
		if n > 1 {
			c.failf(field, "wants at most one of %s, %s and %s", name, name64, nameRef)
		}
		if _, err := base64.StdEncoding.DecodeString(text64); err != nil {
			c.failf(field+"."+name64, "is not base64: %v", err)
		}
		return n
	}
	n := kind(s.UserData, s.UserDataBase64, s.UserDataSecretRef != nil, "userData", "userDataBase64", "secretRef") +
		kind(s.NetworkData, s.NetworkDataBase64, s.NetworkDataSecretRef != nil, "networkData", "networkDataBase64", "networkDataSecretRef")
	if n == 0 {
		c.failf(field, "has no data")
	}
}

func (c *checker) smallDevices() {
	d := &c.spec.Domain.Devices
	if d.IOMMU != nil {
		c.oneOf(devicesField+".iommu.model", d.IOMMU.Model, "intel", "virtio")
	}
	if isTrue(d.AutoattachMemBalloon) {
		c.failf(devicesField+".autoattachMemBalloon", "cannot be true: passed-through devices pin all memory")
	}
	if w := d.Watchdog; w != nil {
		field := devicesField + ".watchdog"
		if !nameForm.MatchString(w.Name) {
			c.failf(field+".name", "%q: want letters, digits, '-', '_' and '.', at most 63", w.Name)
		}
		if (w.I6300ESB == nil) == (w.ITCO == nil) {
			c.failf(field, "wants exactly one of i6300esb and itco")
		}
		for _, a := range []*v1alpha1.WatchdogAction{w.I6300ESB, w.ITCO} {
			if a != nil {
				c.oneOf(field+".action", a.Action, "poweroff", "reset", "shutdown")
			}
		}
	}
	if t := d.TPM; t != nil && isTrue(t.Persistent) && (t.Enabled == nil || *t.Enabled) && c.volume(PersistentState) == nil {
		c.failf(devicesField+".tpm.persistent", "needs a volume named %s", PersistentState)
	}
	seen := map[string]bool{}
	for i, p := range d.PanicDevices {
		field := at(devicesField+".panicDevices", i)
		c.oneOf(field+".model", p.Model, "pvpanic", "isa", "hyperv")
		m := p.Model
		if m == "" {
			m = "isa"
		}
		if seen[m] {
			c.failf(field, "the model %s is there twice", m)
		}
		seen[m] = true
	}
}
