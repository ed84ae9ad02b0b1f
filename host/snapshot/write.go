package snapshot

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/topology"
)

// Write writes a host as a gzip-compressed tar archive. Equal hosts give equal
// bytes.
func Write(w io.Writer, h *topology.Host) error {
	z := gzip.NewWriter(w)
	a := &archive{tw: tar.NewWriter(z), host: Anonymous(h)}
	a.machine()
	for i := range a.host.Functions {
		a.function(&a.host.Functions[i])
	}
	if err := a.tw.Close(); a.err == nil {
		a.err = err
	}
	if err := z.Close(); a.err == nil {
		a.err = err
	}
	if a.err != nil {
		return fmt.Errorf("write snapshot: %w", a.err)
	}
	return nil
}

// macName are interface names made of a MAC address (systemd.net-naming-scheme).
var macName = regexp.MustCompile(`^enx[0-9a-f]{12}$`)

// Anonymous is the host without identities; the original is left alone.
func Anonymous(h *topology.Host) *topology.Host {
	out := *h
	out.BootID = ""
	out.Functions = slices.Clone(h.Functions)
	nets, mdevs := 0, 0
	for i := range out.Functions {
		f := &out.Functions[i]
		f.Net, f.Mdevs = slices.Clone(f.Net), slices.Clone(f.Mdevs)
		for j, n := range f.Net {
			if macName.MatchString(n) {
				f.Net[j] = "enx" + strconv.Itoa(nets)
				nets++
			}
		}
		for j := range f.Mdevs {
			f.Mdevs[j] = fmt.Sprintf("00000000-0000-4000-8000-%012x", mdevs)
			mdevs++
		}
	}
	return &out
}

// archive writes entries; the first error stays.
type archive struct {
	tw   *tar.Writer
	host *topology.Host
	err  error
}

func (a *archive) put(h *tar.Header, content string) {
	if a.err != nil {
		return
	}
	h.Format, h.ModTime = tar.FormatPAX, time.Unix(0, 0)
	if a.err = a.tw.WriteHeader(h); a.err != nil {
		return
	}
	_, a.err = io.WriteString(a.tw, content)
}

func (a *archive) file(name, content string) {
	a.put(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}, content)
}

func (a *archive) dir(name string) {
	a.put(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}, "")
}

// link writes a link relative to its place, as sysfs has them.
func (a *archive) link(name, target string) {
	up := strings.Repeat("../", strings.Count(name, "/"))
	a.put(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: up + target, Mode: 0o777}, "")
}

func (a *archive) machine() {
	h := a.host
	a.dir("sys/bus/pci/devices")
	if h.PhysAddrBits > 0 {
		a.file("proc/cpuinfo", fmt.Sprintf("processor\t: 0\naddress sizes\t: %d bits physical, 48 bits virtual\n\n", h.PhysAddrBits))
	}
	if h.IOMMUFD {
		a.file("sys/class/misc/iommu/uevent", "DEVNAME=iommu\n")
	}
	ids := make([]int, 0, len(h.CPUs))
	for i := range h.CPUs {
		c := &h.CPUs[i]
		ids = append(ids, c.ID)
		d := fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology/", c.ID)
		if c.Socket >= 0 {
			a.file(d+"physical_package_id", strconv.Itoa(c.Socket)+"\n")
		}
		if c.Core >= 0 {
			a.file(d+"core_id", strconv.Itoa(c.Core)+"\n")
		}
		a.file(d+"thread_siblings_list", host.FormatList(c.Siblings)+"\n")
	}
	if len(ids) > 0 {
		a.file("sys/devices/system/cpu/online", host.FormatList(ids)+"\n")
	}
	var nodes []int
	for i := range h.NUMANodes {
		n := &h.NUMANodes[i]
		nodes = append(nodes, n.ID)
		d := fmt.Sprintf("sys/devices/system/node/node%d/", n.ID)
		a.file(d+"cpulist", host.FormatList(n.CPUs)+"\n")
		a.file(d+"meminfo", fmt.Sprintf("Node %d MemTotal: %d kB\nNode %d MemFree: %d kB\n", n.ID, n.MemoryBytes>>10, n.ID, n.MemFreeBytes>>10))
		if n.Distances != nil {
			a.file(d+"distance", strings.Trim(fmt.Sprint(n.Distances), "[]")+"\n")
		}
		for _, p := range n.Hugepages {
			hd := fmt.Sprintf("%shugepages/hugepages-%dkB/", d, p.PageBytes>>10)
			a.file(hd+"nr_hugepages", strconv.FormatUint(p.Total, 10)+"\n")
			a.file(hd+"free_hugepages", strconv.FormatUint(p.Free, 10)+"\n")
		}
	}
	if len(nodes) > 0 {
		a.file("sys/devices/system/node/online", host.FormatList(nodes)+"\n")
	}
}

// place is a function's directory. Functions of which the root is not known
// stay at the bus, as in the capture that they came from.
func place(f *topology.Function) string {
	if f.Root == "" {
		return "sys/bus/pci/devices/" + f.Address.String()
	}
	d := "sys/devices/" + f.Root
	for _, b := range f.Path {
		d += "/" + b.String()
	}
	return d + "/" + f.Address.String()
}

func (a *archive) function(f *topology.Function) {
	d := place(f)
	a.dir(d)
	addr := f.Address.String()
	if f.Root != "" {
		a.link("sys/bus/pci/devices/"+addr, d)
	}
	put := func(name, content string) { a.file(d+"/"+name, content+"\n") }
	num := func(name string, v int) { put(name, strconv.Itoa(v)) }
	put("vendor", fmt.Sprintf("0x%04x", f.Vendor))
	put("device", fmt.Sprintf("0x%04x", f.Device))
	put("subsystem_vendor", fmt.Sprintf("0x%04x", f.SubVendor))
	put("subsystem_device", fmt.Sprintf("0x%04x", f.SubDevice))
	put("class", fmt.Sprintf("0x%06x", f.Class))
	put("revision", fmt.Sprintf("0x%02x", f.Revision))
	if f.Modalias != "" {
		put("modalias", f.Modalias)
	}
	num("numa_node", f.NUMA)
	if f.Enabled {
		num("enable", 1)
	} else {
		num("enable", 0)
	}
	if f.DriverOverride != "" {
		put("driver_override", f.DriverOverride)
	}
	if f.Driver != "" {
		a.link(d+"/driver", "sys/bus/pci/drivers/"+f.Driver)
	}
	if len(f.BARs) > 0 || f.ROMBytes > 0 {
		a.file(d+"/resource", resource(f))
	}
	if f.ResetMethods != nil {
		put("reset_method", strings.Join(f.ResetMethods, " "))
	}
	a.linkState(d, &f.Link)
	a.groups(d, f)
	a.sriov(d, f)
	a.classes(d, f)
}

func (a *archive) groups(d string, f *topology.Function) {
	if f.IOMMUGroup < 0 {
		return
	}
	g := "sys/kernel/iommu_groups/" + strconv.Itoa(f.IOMMUGroup)
	a.link(d+"/iommu_group", g)
	a.link(g+"/devices/"+f.Address.String(), d)
	if f.IOMMUGroupType != "" {
		a.file(g+"/type", f.IOMMUGroupType+"\n")
	}
}

func (a *archive) linkState(d string, l *topology.Link) {
	speed := func(name string, mts int) {
		if mts > 0 {
			a.file(d+"/"+name, strconv.FormatFloat(float64(mts)/1000, 'f', -1, 64)+" GT/s PCIe\n")
		}
	}
	width := func(name string, n int) {
		if n > 0 {
			a.file(d+"/"+name, strconv.Itoa(n)+"\n")
		}
	}
	speed("current_link_speed", l.SpeedMTs)
	speed("max_link_speed", l.MaxSpeedMTs)
	width("current_link_width", l.Width)
	width("max_link_width", l.MaxWidth)
}

func (a *archive) sriov(d string, f *topology.Function) {
	if f.SRIOV {
		for _, x := range []struct {
			file string
			n    int
		}{{"sriov_totalvfs", f.TotalVFs}, {"sriov_numvfs", f.NumVFs}} {
			if x.n >= 0 {
				a.file(d+"/"+x.file, strconv.Itoa(x.n)+"\n")
			}
		}
	}
	for n, v := range f.VFs {
		a.link(d+"/virtfn"+strconv.Itoa(n), "sys/bus/pci/devices/"+v.String())
	}
	if f.PF != nil {
		a.link(d+"/physfn", "sys/bus/pci/devices/"+f.PF.String())
	}
}

func (a *archive) classes(d string, f *topology.Function) {
	class := func(class, sub string, names []string) {
		for _, n := range names {
			a.dir(d + "/" + sub + "/" + n)
			a.link("sys/class/"+class+"/"+n, d+"/"+sub+"/"+n)
		}
	}
	class("net", "net", f.Net)
	class("infiniband", "infiniband", f.RDMA)
	class("drm", "drm", f.DRM)
	class("block", "block", f.Block)
	if f.VFIODev != "" {
		class("vfio-dev", "vfio-dev", []string{f.VFIODev})
	}
	for _, u := range f.Mdevs {
		a.dir(d + "/" + u)
	}
}

// resource writes regions with their sizes; the addresses are made up.
func resource(f *topology.Function) string {
	var b strings.Builder
	var lines [7][3]uint64
	for _, r := range f.BARs {
		flags := uint64(0x200)
		if r.IO {
			flags = 0x100
		}
		if r.Is64 {
			flags |= 0x100000
		}
		if r.Prefetchable {
			flags |= 0x2000
		}
		lines[r.Index] = [3]uint64{r.Bytes, 2*r.Bytes - 1, flags}
	}
	if f.ROMBytes > 0 {
		lines[6] = [3]uint64{f.ROMBytes, 2*f.ROMBytes - 1, 0x200}
	}
	for _, l := range lines {
		fmt.Fprintf(&b, "0x%016x 0x%016x 0x%016x\n", l[0], l[1], l[2])
	}
	return b.String()
}
