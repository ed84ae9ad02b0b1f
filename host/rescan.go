package host

import (
	"errors"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/kubevfio/kubevfio/topology"
)

// ReadFunction reads one function. When the host does not have it the error is
// of class [fs.ErrNotExist]; when the kernel does not return from the read, of
// class [ErrStuck].
func ReadFunction(fsys FS, a topology.Address) (topology.Function, error) {
	f, lost, err := guarded(&stuckReads{since: map[topology.Address]time.Time{}}, newWorker(fsys, nil), a)
	if lost {
		return f, refuse(a, ErrStuck, err.Error())
	}
	return f, err
}

func readOne(w *worker, a topology.Address) (topology.Function, error) {
	var f topology.Function
	name := a.String()
	p := place{addr: a, name: name, dir: pciDevicesDir + "/" + name}
	t, err := w.fsys.ReadLink(p.dir)
	switch {
	case err == nil:
		p.dir = resolve(pciDevicesDir, t)
	case errors.Is(err, fs.ErrNotExist):
		return f, &fs.PathError{Op: "read", Path: p.dir, Err: fs.ErrNotExist}
	}
	clear(w.twins) // what an earlier reading found may be another device's
	if err := w.read(&p, &f); err != nil {
		return f, err
	}
	if f.IOMMUGroup >= 0 {
		if d, err := openDir(w.fsys, groupsDir); err == nil {
			if b, err := d.read(strconv.Itoa(f.IOMMUGroup)+"/type", w.buf); err == nil {
				f.IOMMUGroupType = w.strings.text(b)
			}
			d.close()
		}
	}
	if f.PF != nil {
		f.VFIndex = w.vfIndex(path.Dir(p.dir), &f)
	}
	return f, nil
}

// vfIndex computes a VF's number from its PF's first offset and stride (SR-IOV
// capability, PCIe base specification 9.3.3): the distance of routing IDs.
func (w *worker) vfIndex(bus string, f *topology.Function) int {
	d, err := openDir(w.fsys, bus+"/"+f.PF.String())
	if err != nil {
		return -1
	}
	defer d.close()
	var v [2]int
	for i, file := range [...]string{"sriov_offset", "sriov_stride"} {
		b, err := d.read(file, w.buf)
		if err != nil {
			return -1
		}
		if v[i], err = intField(b); err != nil {
			return -1
		}
	}
	rid := func(a topology.Address) int { return int(a.Bus)<<8 | int(a.Device)<<3 | int(a.Function) }
	n := rid(f.Address) - rid(*f.PF) - v[0]
	if n < 0 || n > 0 && (v[1] <= 0 || n%v[1] != 0) {
		return -1
	}
	if n == 0 {
		return 0
	}
	return n / v[1]
}

// Rescan reads one function again, as after a uevent that names it, and reports
// whether anything about it changed. A function that is gone leaves the
// reading; a new one enters it. The list of virtual functions of a physical
// function is read with the physical function: the kernel sends it an event of
// its own when the number changes.
//
// The error says why a function that is there could not be read; it is then in
// [topology.Host.Skipped].
func (s *Scanner) Rescan(a topology.Address) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		return false, errors.New("rescan before the first scan")
	}
	k := s.known
	if s.host != nil {
		// The last reading is someone else's to keep: write to a copy.
		k.shared = true
	}
	f, lost, err := guarded(s.stuck, k.worker, a)
	if lost {
		k.worker = newWorker(s.fsys, nil) // the old one is the kernel's now
	}
	i, had := slices.BinarySearchFunc(k.functions, a, func(f topology.Function, a topology.Address) int { return f.Address.Compare(a) })
	name := a.String()
	skips := len(k.base.Skipped)
	k.base.Skipped = slices.DeleteFunc(slices.Clone(k.base.Skipped), func(s topology.Skip) bool { return s.Address == name })
	skipChanged := skips != len(k.base.Skipped)
	switch {
	case err != nil:
		gone := vanished(err) || errors.Is(err, errVanished)
		if !gone {
			k.base.Skipped = append(k.base.Skipped, topology.Skip{Address: name, Reason: err.Error()})
			slices.SortFunc(k.base.Skipped, func(a, b topology.Skip) int { return compareText(a.Address, b.Address) })
			skipChanged = true
		} else {
			err = nil
		}
		if had {
			k.own()
			k.functions = slices.Delete(k.functions, i, i+1)
		}
		changed = had
	case !had:
		k.own()
		k.functions = slices.Insert(k.functions, i, f)
		changed = true
	default:
		if f.PF != nil && f.VFIndex < 0 {
			f.VFIndex = k.functions[i].VFIndex
		}
		if f.IOMMUGroup < 0 {
			// The full scan may know it from the groups' side.
			f.IOMMUGroup, f.IOMMUGroupType = k.functions[i].IOMMUGroup, k.functions[i].IOMMUGroupType
		}
		if changed = !reflect.DeepEqual(f, k.functions[i]); changed {
			k.own()
			k.functions[i] = f
		}
	}
	if changed || skipChanged {
		s.host = nil
	}
	return changed, err
}

// own makes the list of functions the scanner's alone.
func (k *known) own() {
	if k.shared {
		k.functions = slices.Clone(k.functions)
		k.shared = false
	}
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
