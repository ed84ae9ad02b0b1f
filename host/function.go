package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
	"golang.org/x/sys/unix"
)

// interner gives equal texts one string: thousands of VFs say the same things.
type interner map[string]string

func (in interner) text(b []byte) string {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return ""
	}
	if s, ok := in[string(b)]; ok {
		return s
	}
	s := string(b)
	in[s] = s
	return s
}

// way is where the functions of one directory hang.
type way struct {
	root string
	path []topology.Address
}

// barSet is a comparable set of BARs.
type barSet struct {
	n    int
	bars [romResource]topology.BAR
}

// worker reads functions one after the other; it is for one goroutine. What it
// builds shares memory between functions that are alike.
type worker struct {
	fsys    FS
	kids    *children // nil: look into each function's directory
	strings interner
	ways    map[string]way
	resets  map[string][]string
	bars    map[barSet][]topology.BAR
	pfs     map[topology.Address]*topology.Address
	twins   map[topology.Address]*topology.Function // a read VF, by its PF
	dirents []byte
	buf     []byte
	list    listing
}

func newWorker(fsys FS, kids *children) *worker {
	return &worker{
		fsys:    fsys,
		kids:    kids,
		strings: interner{},
		ways:    map[string]way{},
		resets:  map[string][]string{},
		bars:    map[barSet][]topology.BAR{},
		pfs:     map[topology.Address]*topology.Address{},
		twins:   map[topology.Address]*topology.Function{},
		dirents: make([]byte, 16<<10),
		buf:     make([]byte, 4<<10), // one page: the most that sysfs gives
	}
}

// attr is a bit per entry of a function's directory that the reader knows.
type attr uint32

const (
	hasUevent attr = 1 << iota
	hasVendor
	hasDriver
	hasOverride
	hasGroup
	hasNUMA
	hasPhysfn
	hasTotalVFs
	hasNumVFs
	hasResource
	hasResets
	hasEnable
	hasRevision
	hasSpeed
	hasMaxSpeed
	hasWidth
	hasMaxWidth
	hasVFIODev
	hasNet
	hasRDMA
	hasDRM
	hasMdev
)

// listing is what a function's directory holds.
type listing struct {
	attrs   attr
	virtfns []int
	mdevs   []string
	subdirs []string // may hold class devices of a bus of their own
}

func (l *listing) add(name []byte) {
	switch string(name) {
	case "uevent":
		l.attrs |= hasUevent
	case "vendor":
		l.attrs |= hasVendor
	case "driver":
		l.attrs |= hasDriver
	case "driver_override":
		l.attrs |= hasOverride
	case "iommu_group":
		l.attrs |= hasGroup
	case "numa_node":
		l.attrs |= hasNUMA
	case "physfn":
		l.attrs |= hasPhysfn
	case "sriov_totalvfs":
		l.attrs |= hasTotalVFs
	case "sriov_numvfs":
		l.attrs |= hasNumVFs
	case "resource":
		l.attrs |= hasResource
	case "reset_method":
		l.attrs |= hasResets
	case "enable":
		l.attrs |= hasEnable
	case "revision":
		l.attrs |= hasRevision
	case "current_link_speed":
		l.attrs |= hasSpeed
	case "max_link_speed":
		l.attrs |= hasMaxSpeed
	case "current_link_width":
		l.attrs |= hasWidth
	case "max_link_width":
		l.attrs |= hasMaxWidth
	case "vfio-dev":
		l.attrs |= hasVFIODev
	case "net":
		l.attrs |= hasNet
	case "infiniband":
		l.attrs |= hasRDMA
	case "drm":
		l.attrs |= hasDRM
	default:
		l.other(name)
	}
}

func (l *listing) other(name []byte) {
	const virtfn = "virtfn"
	switch {
	case len(name) > len(virtfn) && string(name[:len(virtfn)]) == virtfn:
		if n, err := strconv.ParseUint(string(name[len(virtfn):]), 10, 16); err == nil {
			l.virtfns = append(l.virtfns, int(n))
		}
	case isUUID(string(name)):
		l.mdevs = append(l.mdevs, string(name))
	case holdsDevices(name):
		l.subdirs = append(l.subdirs, string(name))
	}
}

// errVanished is the reason of functions that went away in mid-scan.
var errVanished = errors.New("vanished while it was read")

// vanished reports whether an error says that the device is no more.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO)
}

// lost is the reason for an attribute that was listed and cannot be read.
func lost(what string, err error) error {
	if vanished(err) {
		return fmt.Errorf("%w (%s)", errVanished, what)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// read reads one function. An error is the reason why it is left out: it
// vanished, or its identity, driver, group or physical function, without which
// it cannot be judged, is unreadable. Other fields stay at "unknown".
func (w *worker) read(p *place, f *topology.Function) error {
	*f = topology.Function{Address: p.addr, IOMMUGroup: -1, NUMA: topology.NUMAUnknown, VFIndex: -1}
	d, err := openDir(w.fsys, p.dir)
	if err != nil {
		return lost("directory", err)
	}
	defer d.close()
	l := &w.list
	*l = listing{virtfns: l.virtfns[:0], subdirs: l.subdirs[:0]}
	if err := d.each(w.dirents, l.add); err != nil {
		return lost("directory", err)
	}
	if err := w.links(d, l.attrs, f); err != nil {
		return err
	}
	twin := w.twin(f)
	if !twin {
		if err := w.identity(d, l.attrs, f); err != nil {
			return err
		}
	}
	wy := w.way(p.dir)
	f.Root, f.Path = wy.root, wy.path
	if l.attrs&hasNUMA != 0 {
		if b, err := d.read("numa_node", w.buf); err == nil {
			if n, err := intField(b); err == nil && n >= 0 {
				f.NUMA = n
			}
		}
	}
	if l.attrs&hasOverride != 0 {
		if b, err := d.read("driver_override", w.buf); err == nil {
			if s := w.strings.text(b); s != "(null)" {
				f.DriverOverride = s
			}
		}
	}
	if l.attrs&hasEnable != 0 {
		if b, err := d.read("enable", w.buf); err == nil {
			n, err := intField(b)
			f.Enabled = err == nil && n > 0
		}
	}
	if l.attrs&hasResource != 0 && !twin {
		if b, err := d.read("resource", w.buf); err == nil {
			w.regions(b, f)
		}
	}
	if l.attrs&hasResets != 0 {
		if b, err := d.read("reset_method", w.buf); err == nil {
			f.ResetMethods = w.words(b)
		}
	}
	w.link(d, l.attrs, f)
	if err := w.sriov(d, l, f); err != nil {
		return err
	}
	if len(l.mdevs) > 0 {
		slices.Sort(l.mdevs)
		f.Mdevs = l.mdevs
	}
	w.classes(p, l, f)
	if f.PF != nil && !twin {
		w.twins[*f.PF] = f
	}
	return nil
}

// twin fills what all virtual functions of a physical function have in common
// from one that was read in the same scan, if any: identity, class, revision
// and regions stand in the physical function's SR-IOV capability, not in theirs
// (PCIe base specification 9.3.3), and Linux keeps one copy of them.
func (w *worker) twin(f *topology.Function) bool {
	if f.PF == nil {
		return false
	}
	t := w.twins[*f.PF]
	if t == nil {
		return false
	}
	f.Vendor, f.Device, f.SubVendor, f.SubDevice, f.Class, f.Revision = t.Vendor, t.Device, t.SubVendor, t.SubDevice, t.Class, t.Revision
	f.Modalias, f.BARs, f.ROMBytes = t.Modalias, t.BARs, t.ROMBytes
	return true
}

// identity reads what the function is.
func (w *worker) identity(d handle, has attr, f *topology.Function) error {
	var id identity
	if has&hasUevent != 0 {
		b, err := d.read("uevent", w.buf)
		if vanished(err) {
			return lost("uevent", err)
		}
		if err == nil {
			id = parseUevent(b)
			f.Modalias = w.strings.text(id.modalias)
		}
	}
	if !id.hasID {
		// A capture without uevent, or one that is not the kernel's.
		v, err := w.hex(d, "vendor", 16)
		if err != nil {
			return err
		}
		dev, err := w.hex(d, "device", 16)
		if err != nil {
			return err
		}
		id.vendor, id.device = uint16(v), uint16(dev)
	}
	if !id.hasClass {
		c, err := w.hex(d, "class", 24)
		if err != nil {
			return err
		}
		id.class = uint32(c)
	}
	if !id.hasSub {
		if v, err := w.hex(d, "subsystem_vendor", 16); err == nil {
			id.subVendor = uint16(v)
		}
		if v, err := w.hex(d, "subsystem_device", 16); err == nil {
			id.subDevice = uint16(v)
		}
	}
	if f.Modalias == "" {
		if b, err := d.read("modalias", w.buf); err == nil {
			f.Modalias = w.strings.text(b)
		}
	}
	if has&hasRevision != 0 {
		if v, err := w.hex(d, "revision", 8); err == nil {
			f.Revision = uint8(v)
		}
	}
	f.Vendor, f.Device, f.SubVendor, f.SubDevice, f.Class = id.vendor, id.device, id.subVendor, id.subDevice, id.class
	return nil
}

func (w *worker) hex(d handle, file string, bits int) (uint64, error) {
	b, err := d.read(file, w.buf)
	if err != nil {
		return 0, lost(file, err)
	}
	v, err := hexField(b, bits)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return v, nil
}

// links reads the driver, the IOMMU group and the physical function.
func (w *worker) links(d handle, has attr, f *topology.Function) error {
	if has&hasDriver != 0 {
		t, err := d.link("driver")
		switch {
		case err == nil:
			f.Driver = w.strings.text([]byte(path.Base(t)))
		case !errors.Is(err, fs.ErrNotExist): // unbound since the listing
			return lost("driver", err)
		}
	}
	if has&hasGroup != 0 {
		t, err := d.link("iommu_group")
		if err != nil {
			return lost("iommu_group", err)
		}
		n, err := strconv.Atoi(path.Base(t))
		if err != nil || n < 0 {
			return fmt.Errorf("iommu_group: %w: link to %q", ErrParse, t)
		}
		f.IOMMUGroup = n
	}
	if has&hasPhysfn != 0 {
		t, err := d.link("physfn")
		if err != nil {
			return lost("physfn", err)
		}
		a, err := topology.ParseAddress(path.Base(t))
		if err != nil {
			return fmt.Errorf("physfn: %w", err)
		}
		if w.pfs[a] == nil {
			w.pfs[a] = &a
		}
		f.PF = w.pfs[a]
	}
	return nil
}

// way reads root complex and bridges out of a function's directory.
func (w *worker) way(dir string) way {
	parent := path.Dir(dir)
	if v, ok := w.ways[parent]; ok {
		return v
	}
	var v way
	for part := range strings.SplitSeq(parent, "/") {
		if isRoot(part) {
			// The last one counts: a VMD makes a root complex under a function.
			v = way{root: part}
			continue
		}
		if v.root == "" {
			continue
		}
		if a, err := topology.ParseAddress(part); err == nil {
			v.path = append(v.path, a)
		}
	}
	w.ways[parent] = v
	return v
}

func (w *worker) regions(b []byte, f *topology.Function) {
	bars, rom, err := parseResource(b)
	if err != nil {
		return
	}
	f.ROMBytes = rom
	if len(bars) == 0 {
		return
	}
	k := barSet{n: len(bars)}
	copy(k.bars[:], bars)
	if w.bars[k] == nil {
		w.bars[k] = bars
	}
	f.BARs = w.bars[k]
}

// words reads a line of words, nil when empty.
func (w *worker) words(b []byte) []string {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return nil
	}
	if v, ok := w.resets[string(b)]; ok {
		return v
	}
	v := strings.Fields(string(b))
	w.resets[string(b)] = v
	return v
}

// link reads the PCIe link. Virtual functions have none of their own: the
// kernel shows the physical function's limits there and "Unknown".
func (w *worker) link(d handle, has attr, f *topology.Function) {
	if f.PF != nil {
		return
	}
	for _, x := range []struct {
		bit   attr
		file  string
		parse func([]byte) int
		to    *int
	}{
		{hasSpeed, "current_link_speed", parseSpeed, &f.Link.SpeedMTs},
		{hasMaxSpeed, "max_link_speed", parseSpeed, &f.Link.MaxSpeedMTs},
		{hasWidth, "current_link_width", parseWidth, &f.Link.Width},
		{hasMaxWidth, "max_link_width", parseWidth, &f.Link.MaxWidth},
	} {
		if has&x.bit == 0 {
			continue
		}
		if b, err := d.read(x.file, w.buf); err == nil {
			*x.to = x.parse(b)
		}
	}
}
