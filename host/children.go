package host

import (
	"path"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
)

// devices are the class devices on one function.
type devices struct {
	net, rdma, drm, block []string
	vfio                  string
}

// children are the class devices of all functions, found from the class side:
// one link per device instead of a directory per function, and devices behind
// a bus of their own (virtio, SCSI, USB) are found where they belong.
type children struct {
	net, rdma, drm, block, vfio bool // the class could be listed
	of                          map[topology.Address]*devices
}

func readClasses(fsys FS) *children {
	c := &children{of: map[topology.Address]*devices{}}
	c.net = c.class(fsys, "sys/class/net", func(d *devices, n string) { d.net = append(d.net, n) })
	c.rdma = c.class(fsys, "sys/class/infiniband", func(d *devices, n string) { d.rdma = append(d.rdma, n) })
	c.drm = c.class(fsys, "sys/class/drm", func(d *devices, n string) {
		if isDRM(n) {
			d.drm = append(d.drm, n)
		}
	})
	c.block = c.class(fsys, "sys/block", func(d *devices, n string) { d.block = append(d.block, n) }) ||
		c.class(fsys, "sys/class/block", func(d *devices, n string) { d.block = append(d.block, n) })
	c.vfio = c.class(fsys, "sys/class/vfio-dev", func(d *devices, n string) { d.vfio = n })
	for _, d := range c.of {
		slices.Sort(d.net)
		slices.Sort(d.rdma)
		slices.Sort(d.drm)
		slices.Sort(d.block)
	}
	return c
}

// isDRM keeps the nodes and leaves out connectors ("card0-HDMI-A-1") and the
// version file.
func isDRM(n string) bool {
	return (strings.HasPrefix(n, "card") || strings.HasPrefix(n, "render") || strings.HasPrefix(n, "controlD")) && !strings.Contains(n, "-")
}

// class puts the devices of one class to their functions. It reports false when
// the class has no link that leads into sys/devices: then the functions'
// directories are asked.
func (c *children) class(fsys FS, dir string, put func(*devices, string)) bool {
	h, err := openDir(fsys, dir)
	if err != nil {
		return false
	}
	defer h.close()
	var names []string
	if err := h.each(make([]byte, 1<<15), func(n []byte) { names = append(names, string(n)) }); err != nil {
		return false
	}
	any := false
	for _, n := range names {
		t, err := h.link(n)
		if err != nil {
			continue
		}
		if !strings.Contains(t, "devices/") {
			continue
		}
		any = true
		if a, ok := lastAddress(t); ok {
			d := c.of[a]
			if d == nil {
				d = &devices{}
				c.of[a] = d
			}
			put(d, n)
		}
	}
	return any
}

// lastAddress is the function that a device path passes through last.
func lastAddress(p string) (topology.Address, bool) {
	for p != "" {
		i := strings.LastIndexByte(p, '/')
		if part := p[i+1:]; len(part) >= 12 && part[len(part)-2] == '.' {
			if a, err := topology.ParseAddress(part); err == nil {
				return a, true
			}
		}
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return topology.Address{}, false
}

// holdsDevices tells the subdirectories of a function that may hold network or
// block devices on a bus of their own.
func holdsDevices(name []byte) bool {
	for _, p := range [...]string{"virtio", "nvme", "ata", "host", "usb"} {
		if len(name) >= len(p) && string(name[:len(p)]) == p {
			return true
		}
	}
	return false
}

// classes fills the class devices of one function, from the class side where
// that was read, else from the function's directory.
func (w *worker) classes(p *place, l *listing, f *topology.Function) {
	k := w.kids
	if k == nil {
		k = &children{}
	}
	if dev := k.of[f.Address]; dev != nil {
		f.Net, f.RDMA, f.DRM, f.Block, f.VFIODev = dev.net, dev.rdma, dev.drm, dev.block, dev.vfio
	}
	if !k.net && l.attrs&hasNet != 0 {
		f.Net = w.entries(p.dir+"/net", nil)
	}
	if !k.rdma && l.attrs&hasRDMA != 0 {
		f.RDMA = w.entries(p.dir+"/infiniband", nil)
	}
	if !k.drm && l.attrs&hasDRM != 0 {
		f.DRM = w.entries(p.dir+"/drm", isDRM)
	}
	if !k.vfio && l.attrs&hasVFIODev != 0 {
		if e := w.entries(p.dir+"/vfio-dev", nil); len(e) > 0 {
			f.VFIODev = e[0]
		}
	}
	if (!k.net || !k.block) && len(l.subdirs) > 0 {
		for _, s := range slices.Clone(l.subdirs) {
			w.deep(p.dir+"/"+s, 0, f, !k.net, !k.block)
		}
		slices.Sort(f.Net)
		slices.Sort(f.Block)
	}
}

// maxDeep bounds deep: a SAS expander's disks are ten levels down.
const maxDeep = 14

// deep finds network and block devices behind a function's own bus.
func (w *worker) deep(dir string, depth int, f *topology.Function, net, block bool) {
	if depth > maxDeep {
		return
	}
	entries, err := w.fsys.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		n := e.Name()
		if !e.IsDir() {
			continue
		}
		switch {
		case n == "net":
			if net {
				f.Net = append(f.Net, w.entries(dir+"/net", nil)...)
			}
		case n == "block":
			if block {
				f.Block = append(f.Block, w.entries(dir+"/block", nil)...)
			}
		case strings.HasPrefix(path.Base(dir), "nvme") && strings.HasPrefix(n, path.Base(dir)+"n"):
			if block {
				f.Block = append(f.Block, n)
			}
		case isAddress(n) || n == "power" || n == "subsystem":
		default:
			w.deep(dir+"/"+n, depth+1, f, net, block)
		}
	}
}

// entries lists a directory, sorted; nil when there is nothing.
func (w *worker) entries(dir string, keep func(string) bool) []string {
	d, err := openDir(w.fsys, dir)
	if err != nil {
		return nil
	}
	defer d.close()
	var out []string
	if err := d.each(w.dirents, func(n []byte) {
		if s := string(n); keep == nil || keep(s) {
			out = append(out, s)
		}
	}); err != nil {
		return nil
	}
	slices.Sort(out)
	return out
}
