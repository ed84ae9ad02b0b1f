package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
)

// Occupation is why the host itself needs a function.
type Occupation struct {
	// Class is [ErrProtected] or [ErrInUse].
	Class  error
	Reason string
}

// Occupied finds the functions that the host uses itself: controllers of the
// root file system, of mounted disks and swap, NICs that carry addresses or
// routes, directly or below bonds, bridges, device mappers and RAIDs.
//
// It reads sys/ and proc/1 (proc/self where that is not readable) of the tree.
// An error means that it cannot be known: then nothing may be taken.
func Occupied(fsys FS) (map[topology.Address]Occupation, error) {
	o := &occupied{fsys: fsys, of: map[topology.Address]Occupation{}}
	if err := o.disks(); err != nil {
		return nil, err
	}
	if err := o.nics(); err != nil {
		return nil, err
	}
	return o.of, nil
}

type occupied struct {
	fsys FS
	of   map[topology.Address]Occupation
}

// add records a reason; protected beats in use, the first stays otherwise.
func (o *occupied) add(a topology.Address, class error, reason string) {
	if old, ok := o.of[a]; ok && (errors.Is(old.Class, ErrProtected) || errors.Is(class, ErrInUse)) {
		return
	}
	o.of[a] = Occupation{Class: class, Reason: reason}
}

// proc reads a file of the host's first process, whose namespaces are the
// host's, else of our own.
func (o *occupied) proc(name string) ([]byte, error) {
	b, err := fs.ReadFile(o.fsys, "proc/1/"+name)
	if err != nil {
		var err2 error
		if b, err2 = fs.ReadFile(o.fsys, "proc/self/"+name); err2 != nil {
			return nil, fmt.Errorf("cannot tell what the host needs: %w", err)
		}
	}
	return b, nil
}

// mount is a line of mountinfo.
type mount struct {
	dev    string // "8:1"
	point  string
	source string
}

// parseMountinfo reads /proc/PID/mountinfo (proc(5)). Lines that are not in its
// form are left out.
func parseMountinfo(b []byte) []mount {
	var out []mount
	for len(b) > 0 {
		var l []byte
		l, b = cut(b)
		w := strings.Fields(string(l))
		if len(w) < 7 || strings.Count(w[2], ":") != 1 {
			continue
		}
		m := mount{dev: w[2], point: unescape(w[4])}
		if sep := slices.Index(w[6:], "-"); sep >= 0 && 6+sep+2 < len(w) {
			m.source = unescape(w[6+sep+2])
		}
		out = append(out, m)
	}
	return out
}

// unescape undoes the octal escapes of proc files (space, tab, new line,
// backslash).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// system are the mount points whose disks are the host's own.
func system(point string) bool {
	switch point {
	case "/", "/boot", "/boot/efi", "/usr", "/var", "/etc", "/home", "/sysroot", "/var/lib/kubelet", "/var/lib/containerd":
		return true
	}
	return false
}

func (o *occupied) disks() error {
	b, err := o.proc("mountinfo")
	if err != nil {
		return err
	}
	for _, m := range parseMountinfo(b) {
		class, reason := ErrInUse, "it holds a file system mounted at "+m.point
		if system(m.point) {
			class, reason = ErrProtected, "it holds the host's own file system at "+m.point
		}
		o.device(m.dev, m.source, func(a topology.Address) { o.add(a, class, reason) })
	}
	if b, err := fs.ReadFile(o.fsys, "proc/swaps"); err == nil {
		_, b = cut(b)
		for len(b) > 0 {
			var l []byte
			l, b = cut(b)
			if name, _, _ := strings.Cut(string(l), " "); strings.HasPrefix(name, "/dev/") {
				o.block(path.Base(name), 0, func(a topology.Address) { o.add(a, ErrProtected, "it holds swap "+name) })
			}
		}
	}
	return nil
}

// device finds the controllers of a mounted device by its number, or by its
// source's name where the number is the file system's own (btrfs, overlays).
func (o *occupied) device(dev, source string, found func(topology.Address)) {
	if t, err := o.fsys.ReadLink("sys/dev/block/" + dev); err == nil {
		o.blockDir(resolve("sys/dev/block", t), 0, found)
		return
	}
	if strings.HasPrefix(source, "/dev/") {
		o.block(path.Base(source), 0, found)
	}
}

// maxStack bounds how deep block devices and interfaces stack.
const maxStack = 12

func (o *occupied) block(name string, depth int, found func(topology.Address)) {
	t, err := o.fsys.ReadLink("sys/class/block/" + name)
	if err != nil {
		if t, err = o.fsys.ReadLink("sys/block/" + name); err != nil {
			return
		}
		o.blockDir(resolve("sys/block", t), depth, found)
		return
	}
	o.blockDir(resolve("sys/class/block", t), depth, found)
}

// blockDir finds the controllers below a block device: of itself, of what it is
// stacked on, and of all paths of a multipath NVMe namespace.
func (o *occupied) blockDir(dir string, depth int, found func(topology.Address)) {
	if depth > maxStack {
		return
	}
	if a, ok := lastAddress(dir); ok {
		found(a)
		return
	}
	if i := strings.Index(dir, "/nvme-subsystem/"); i >= 0 {
		rest := dir[i+len("/nvme-subsystem/"):]
		sub, _, _ := strings.Cut(rest, "/")
		sub = dir[:i] + "/nvme-subsystem/" + sub
		entries, err := o.fsys.ReadDir(sub)
		if err != nil {
			return
		}
		for _, e := range entries {
			if t, err := o.fsys.ReadLink(sub + "/" + e.Name()); err == nil {
				if a, ok := lastAddress(resolve(sub, t)); ok {
					found(a)
				}
			}
		}
		return
	}
	// A partition's slaves are its disk's.
	for _, d := range []string{dir, path.Dir(dir)} {
		entries, err := o.fsys.ReadDir(d + "/slaves")
		if err != nil {
			continue
		}
		for _, e := range entries {
			o.block(e.Name(), depth+1, found)
		}
		break
	}
}

// nics finds NICs with routes or addresses: of IPv4 by the routing table, in
// which every address has a subnet, and of IPv6 by the addresses.
func (o *occupied) nics() error {
	b, err := o.proc("net/route")
	if err != nil {
		return err
	}
	use := map[string]Occupation{}
	put := func(dev string, class error, reason string) {
		if old, ok := use[dev]; !ok || errors.Is(old.Class, ErrInUse) && errors.Is(class, ErrProtected) {
			use[dev] = Occupation{class, reason}
		}
	}
	for _, r := range parseRoutes(b) {
		if r.isDefault {
			put(r.dev, ErrProtected, "interface "+r.dev+" carries the default route")
		} else {
			put(r.dev, ErrInUse, "interface "+r.dev+" has addresses or routes")
		}
	}
	if b, err := o.proc("net/ipv6_route"); err == nil {
		for _, dev := range defaultRoutes6(b) {
			put(dev, ErrProtected, "interface "+dev+" carries the default route")
		}
	}
	if b, err := o.proc("net/if_inet6"); err == nil {
		for _, dev := range globalAddresses6(b) {
			put(dev, ErrInUse, "interface "+dev+" has addresses")
		}
	}
	for dev, u := range use {
		o.iface(dev, 0, func(a topology.Address) { o.add(a, u.Class, u.Reason) })
	}
	return nil
}

// iface finds the functions of an interface and of those that it is stacked on.
func (o *occupied) iface(name string, depth int, found func(topology.Address)) {
	t, err := o.fsys.ReadLink("sys/class/net/" + name)
	if err != nil || depth > maxStack {
		return
	}
	dir := resolve("sys/class/net", t)
	if a, ok := lastAddress(dir); ok {
		found(a)
	}
	entries, err := o.fsys.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if lower, ok := strings.CutPrefix(e.Name(), "lower_"); ok {
			o.iface(lower, depth+1, found)
		}
	}
	// A bridge's ports are named below brif.
	if ports, err := o.fsys.ReadDir(dir + "/brif"); err == nil {
		for _, e := range ports {
			o.iface(e.Name(), depth+1, found)
		}
	}
}

// route is a line of /proc/net/route.
type route struct {
	dev       string
	isDefault bool
}

// parseRoutes reads /proc/net/route: interface, destination, gateway, flags,
// three counters, mask, in hexadecimal.
func parseRoutes(b []byte) []route {
	var out []route
	_, b = cut(b) // the header
	for len(b) > 0 {
		var l []byte
		l, b = cut(b)
		w := strings.Fields(string(l))
		if len(w) < 8 || w[0] == "lo" {
			continue
		}
		out = append(out, route{dev: w[0], isDefault: w[1] == "00000000" && w[7] == "00000000"})
	}
	return out
}

// defaultRoutes6 reads /proc/net/ipv6_route: destination, its prefix length,
// and the interface in the last column.
func defaultRoutes6(b []byte) []string {
	var out []string
	for len(b) > 0 {
		var l []byte
		l, b = cut(b)
		w := strings.Fields(string(l))
		if len(w) == 10 && w[1] == "00" && strings.Trim(w[0], "0") == "" && w[9] != "lo" {
			out = append(out, w[9])
		}
	}
	return out
}

// globalAddresses6 reads /proc/net/if_inet6: address, index, prefix length,
// scope ("00" is global), flags, interface.
func globalAddresses6(b []byte) []string {
	var out []string
	for len(b) > 0 {
		var l []byte
		l, b = cut(b)
		w := strings.Fields(string(l))
		if len(w) == 6 && w[3] == "00" && w[5] != "lo" {
			out = append(out, w[5])
		}
	}
	return out
}

// VFIOUser finds a process that holds the function's VFIO device open: the text
// names its PID, empty when there is none. It looks through proc/*/fd.
func VFIOUser(fsys FS, f *topology.Function) string {
	if !f.VFIO() {
		return ""
	}
	users := VFIOUsers(fsys)
	for _, n := range VFIONodes(f) {
		if u, ok := users[n]; ok {
			return u + " has " + n + " open"
		}
	}
	return ""
}

// VFIOUsers are the processes that hold VFIO devices: the device's path below
// /dev ("/dev/vfio/12") to words that name the process.
func VFIOUsers(fsys FS) map[string]string {
	out := map[string]string{}
	procs, err := fsys.ReadDir("proc")
	if err != nil {
		return out
	}
	for _, p := range procs {
		if n := p.Name(); n[0] < '0' || n[0] > '9' {
			continue
		}
		d, err := openDir(fsys, "proc/"+p.Name()+"/fd")
		if err != nil {
			continue
		}
		var fds []string
		if err := d.each(make([]byte, 8<<10), func(n []byte) { fds = append(fds, string(n)) }); err == nil {
			for _, n := range fds {
				if t, err := d.link(n); err == nil && strings.HasPrefix(t, "/dev/vfio/") {
					out[t] = "process " + p.Name()
				}
			}
		}
		d.close()
	}
	return out
}

// VFIONodes are the device nodes by which a function's unit is opened.
func VFIONodes(f *topology.Function) []string {
	var out []string
	if f.IOMMUGroup >= 0 {
		out = append(out, "/dev/vfio/"+strconv.Itoa(f.IOMMUGroup))
	}
	if f.VFIODev != "" {
		out = append(out, "/dev/vfio/devices/"+f.VFIODev)
	}
	return out
}
