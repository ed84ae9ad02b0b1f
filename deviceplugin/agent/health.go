package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/deviceplugin/vitals"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/topology"
)

// health adds to a picture the faults that the selection does not see: drivers,
// groups and companions are judged there.
func (a *Agent) health(p *picture) {
	add := func(id topology.Address, why string) {
		if p.faults[id] == "" {
			p.faults[id] = why
		}
	}
	for id, why := range a.keeper.Faults() {
		if addr, err := topology.ParseAddress(id); err == nil {
			add(addr, why)
		}
	}
	for addr, what := range a.writes.Stuck() {
		if u := p.unitOf[addr]; u != nil {
			add(u.ID, fmt.Sprintf("%s: a write to %s is stuck in the kernel", addr, path.Base(what)))
		}
	}
	up := map[topology.Address]string{}
	a.vitals.Keep(func(m topology.Address) bool { return p.host.Function(m) != nil })
	for i := range p.selection.Pools {
		for _, o := range p.selection.Pools[i].Offers {
			if o.NotReady != "" {
				continue
			}
			if why := a.sick(p, o.Unit, up); why != "" {
				add(o.Unit.ID, why)
			}
		}
	}
}

// sick says why a unit that is bound as it should be cannot be used, empty when
// it can. up remembers what was found out about physical functions.
func (a *Agent) sick(p *picture, u *topology.Unit, up map[topology.Address]string) string {
	if u.Group >= 0 {
		node := filepath.Join(a.cfg.HostDev, "vfio", strconv.Itoa(u.Group))
		if _, err := os.Stat(node); err != nil {
			return fmt.Sprintf("%s: no device node /dev/vfio/%d", u.ID, u.Group)
		}
	}
	for _, m := range u.Members {
		if err := host.Answers(a.fs, m); err != nil {
			return fmt.Sprintf("%s: %v", m, err)
		}
		f := p.host.Function(m)
		if f == nil {
			continue
		}
		// The node of iommufd's way. Every kernel has the name in sysfs; one without
		// CONFIG_VFIO_DEVICE_CDEV has none of the nodes, and not their folder.
		nodes := filepath.Join(a.cfg.HostDev, "vfio", "devices")
		if _, err := os.Stat(nodes); err == nil && f.VFIODev != "" {
			if _, err := os.Stat(filepath.Join(nodes, f.VFIODev)); err != nil {
				return fmt.Sprintf("%s: no device node /dev/vfio/devices/%s", m, f.VFIODev)
			}
		}
		signs := vitals.Signs{Link: f.Link, Resets: f.ResetMethods}
		signs.Fatal, signs.Counted = host.FatalErrors(a.fs, m)
		if why := a.vitals.Look(m, signs); why != "" {
			return fmt.Sprintf("%s: %s", m, why)
		}
	}
	f := p.host.Function(u.ID)
	if f == nil || f.PF == nil {
		return ""
	}
	why, known := up[*f.PF]
	if !known {
		why = a.pfDown(p, *f.PF)
		up[*f.PF] = why
	}
	return why
}

// pfDown says that a physical function cannot serve its virtual functions.
func (a *Agent) pfDown(p *picture, pf topology.Address) string {
	f := p.host.Function(pf)
	if f == nil {
		return fmt.Sprintf("its physical function %s is gone", pf)
	}
	coming := a.binder.Coming(pf) // asked first: it may be up a moment later
	for _, n := range f.Net {
		b, err := fs.ReadFile(a.fs, "sys/class/net/"+n+"/flags")
		if err != nil {
			continue // not in this view of the network; nothing is known
		}
		flags, err := strconv.ParseUint(strings.TrimSpace(string(b)), 0, 32)
		if err == nil && flags&unix.IFF_UP == 0 && !coming {
			return fmt.Sprintf("%s: interface %s of its physical function is down", pf, n)
		}
	}
	return ""
}

// cleaner resets units between tenants.
type cleaner struct{ agent *Agent }

// Clean implements tenancy.Cleaner.
func (c cleaner) Clean(ctx context.Context, unit string) (err error) {
	addr, err := topology.ParseAddress(unit)
	if err != nil {
		return err
	}
	p := c.agent.last()
	if p == nil {
		return errNoPicture
	}
	u := p.unitOf[addr]
	if u == nil {
		return fmt.Errorf("%w: %s", fs.ErrNotExist, unit)
	}
	if s, _ := p.selection.Find(addr); s != nil && s.Pool.Spec.Reset == "Never" {
		return nil
	}
	if busy, err := groupOpen(c.agent.cfg.HostDev, u.Group); err != nil {
		return fmt.Errorf("%s: %w", unit, err)
	} else if busy {
		return fmt.Errorf("%w: %s: some process still holds /dev/vfio/%d open", host.ErrInUse, unit, u.Group)
	}
	defer func() {
		if err == nil {
			for _, m := range u.Members {
				c.agent.vitals.Cleaned(m)
			}
		}
	}()
	if err := c.agent.writer.Reset(ctx, u.Members); err != nil {
		if errors.Is(err, host.ErrUnsupported) {
			// VFIO resets what it can when the device is opened; there is no more
			// to be had from this hardware, and the admin offered it.
			c.agent.cfg.Log.Warn("unit has no way to be reset between tenants", "unit", unit, "err", err)
			return nil
		}
		return err
	}
	return nil
}

var errNoPicture = errors.New("the node has not been looked at yet")

// groupOpen asks the kernel whether a process holds the group: a group can be
// opened once.
func groupOpen(dev string, group int) (bool, error) {
	if group < 0 {
		return false, nil
	}
	fd, err := unix.Open(filepath.Join(dev, "vfio", strconv.Itoa(group)), unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return false, nil // not bound: nobody can hold it by VFIO
	case err != nil:
		return false, fmt.Errorf("open group %d: %w", group, err)
	}
	return false, unix.Close(fd)
}

// launcherSupport is what launcher pods find here.
func (a *Agent) launcherSupport(p *picture) v1alpha1.LauncherSupport {
	_, kvm := os.Stat(filepath.Join(a.cfg.HostDev, "kvm"))
	_, seccomp := os.Stat(filepath.Join(a.cfg.SeccompDir, v1alpha1.SeccompProfile))
	return v1alpha1.LauncherSupport{
		Seccomp: seccomp == nil, KVM: kvm == nil, IOMMUFD: p.host.IOMMUFD, PhysAddrBits: int32(p.host.PhysAddrBits),
	}
}
