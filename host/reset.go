package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kubevfio/kubevfio/topology"
)

// Reset implements [Writer]. Functions with a reset of their own get that; when
// one has none, the bus of all is reset by the bridge above, provided that
// nothing but the unit hangs on it.
func (w *sysfsWriter) Reset(ctx context.Context, members []topology.Address) error {
	var fns []*topology.Function
	for _, a := range members {
		defer w.lock(a)()
		f, err := w.function(a)
		if err != nil {
			return err
		}
		if why := VFIOUser(w.FS, &f); why != "" {
			return refuse(a, ErrInUse, why)
		}
		fns = append(fns, &f)
	}
	own := !slices.ContainsFunc(fns, func(f *topology.Function) bool { return len(f.ResetMethods) == 0 })
	switch {
	case own:
		for _, f := range fns {
			if err := w.write(ctx, f.Address, attrPath(f.Address, "reset"), "1"); err != nil {
				return w.kernel(f.Address, "reset", err)
			}
		}
	default:
		if err := w.resetBus(ctx, fns); err != nil {
			return err
		}
	}
	for _, f := range fns {
		if err := Answers(w.FS, f.Address); err != nil {
			return refuse(f.Address, ErrRefused, "after its reset: "+err.Error())
		}
	}
	return nil
}

// resetBus resets what is below the bridge above a unit.
func (w *sysfsWriter) resetBus(ctx context.Context, fns []*topology.Function) error {
	lead := fns[0]
	none := func(why string) error { return refuse(lead.Address, ErrUnsupported, "no way to reset it: "+why) }
	if len(lead.Path) == 0 {
		return none("it has no reset method and no bridge above")
	}
	bridge := lead.Path[len(lead.Path)-1]
	for _, f := range fns {
		if len(f.Path) == 0 || f.Path[len(f.Path)-1] != bridge {
			return none(fmt.Sprintf("%s has no reset method and hangs elsewhere", f.Address))
		}
	}
	link, err := w.FS.ReadLink(pciDevicesDir + "/" + bridge.String())
	dir := pciDevicesDir + "/" + bridge.String()
	if err == nil {
		dir = resolve(pciDevicesDir, link)
	}
	entries, err := w.FS.ReadDir(dir)
	if err != nil {
		return none(err.Error())
	}
	can := false
	for _, e := range entries {
		can = can || e.Name() == "reset_subordinate"
		a, err := topology.ParseAddress(e.Name())
		if err != nil {
			continue
		}
		if !slices.ContainsFunc(fns, func(f *topology.Function) bool { return f.Address == a }) {
			return none(fmt.Sprintf("%s is on the same bus and not of the unit", a))
		}
	}
	if !can {
		return none(fmt.Sprintf("the kernel cannot reset the bus below %s (reset_subordinate, Linux 6.14)", bridge))
	}
	if err := w.write(ctx, lead.Address, attrPath(bridge, "reset_subordinate"), "1"); err != nil {
		return w.kernel(lead.Address, "reset_subordinate of "+bridge.String(), err)
	}
	return nil
}

// errDead says that a function's configuration space reads as all ones.
var errDead = errors.New("it does not answer: its configuration space is all ones")

// Answers checks that a function is on the bus: the first word of its
// configuration space is not all ones. A virtual function has all ones there by
// the specification, so its command word decides. Where the tree has no
// configuration space nothing is known and nothing said.
func Answers(fsys FS, a topology.Address) error {
	dir := pciDevicesDir + "/" + a.String()
	if t, err := fsys.ReadLink(dir); err == nil {
		dir = resolve(pciDevicesDir, t)
	}
	d, err := openDir(fsys, dir)
	if err != nil {
		return fmt.Errorf("it is gone: %w", err)
	}
	defer d.close()
	var buf [64]byte
	b, err := d.read("config", buf[:])
	if err != nil || len(b) < 8 {
		return nil // without config nothing can be said; see above
	}
	ones := func(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0xff }) }
	if ones(b[:8]) {
		return errDead
	}
	return nil
}
