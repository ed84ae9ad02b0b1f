package hosttest

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/topology"
	"golang.org/x/sys/unix"
)

// Kernel answers writes to a machine's tree as Linux' PCI core does. It is a
// [host.AttrWriter] and safe for use by several goroutines.
type Kernel struct {
	Tree *host.Tree

	mu      sync.Mutex
	m       *Machine
	by      map[topology.Address]*Function
	natural map[topology.Address]string
	refuse  map[string]bool
	hang    map[topology.Address]chan struct{}
	fail    map[string]error
	writes  []string
}

// NewKernel puts a machine under a kernel; drivers are PCI drivers that it has
// beside those that functions are bound to.
func NewKernel(m *Machine, drivers ...string) *Kernel {
	k := &Kernel{
		Tree:    m.Tree(),
		m:       m,
		by:      map[topology.Address]*Function{},
		natural: map[topology.Address]string{},
		refuse:  map[string]bool{},
		hang:    map[topology.Address]chan struct{}{},
		fail:    map[string]error{},
	}
	for _, d := range drivers {
		k.Tree.MkdirAll("sys/bus/pci/drivers/" + d)
	}
	for _, f := range m.funcs {
		k.by[f.Addr] = f
		if !topology.IsVFIODriver(f.Driver) {
			k.natural[f.Addr] = f.Driver
		}
	}
	// The host's own needs: nothing, until a test says otherwise.
	k.Tree.File("proc/1/mountinfo", "1 0 0:2 / / rw - rootfs rootfs rw\n")
	k.Tree.File("proc/1/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n")
	return k
}

// Refuse makes a driver's probe fail for every function.
func (k *Kernel) Refuse(driver string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuse[driver] = true
}

// Fail makes writes to an attribute, named by its last path element, fail;
// nil makes them work again.
func (k *Kernel) Fail(attr string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail[attr] = err
}

// Hang makes the unbinding of a function block until the result is called.
func (k *Kernel) Hang(a topology.Address) (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := make(chan struct{})
	k.hang[a] = c
	return sync.OnceFunc(func() {
		k.mu.Lock()
		delete(k.hang, a)
		k.mu.Unlock()
		close(c)
	})
}

// Unplug takes a function off the bus without a word, as a dying device does.
func (k *Kernel) Unplug(a topology.Address) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.by[a]; f != nil {
		k.drop(f)
	}
}

// Plug puts an unplugged function back, bound to its natural driver.
func (k *Kernel) Plug(f *Function) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.by[f.Addr] = f
	f.Driver, f.Override, f.vfio = k.natural[f.Addr], "", ""
	f.write(k.Tree)
}

// Writes are all writes so far as "name=value", in order.
func (k *Kernel) Writes() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string{}, k.writes...)
}

// WriteAttr implements [host.AttrWriter].
func (k *Kernel) WriteAttr(ctx context.Context, a topology.Address, name, value string) error {
	v := strings.TrimSpace(value)
	attr := path.Base(name)
	k.mu.Lock()
	k.writes = append(k.writes, name+"="+v)
	err, hang := k.fail[attr], k.hang[a]
	k.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if attr == "unbind" && hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return &host.ChangeError{Address: a, Class: host.ErrStuck, Reason: "writing to " + name + " has not returned"}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.answer(name, attr, v); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (k *Kernel) answer(name, attr, v string) error {
	switch {
	case name == "sys/bus/pci/drivers_probe":
		f, err := k.named(v)
		if err != nil {
			return err
		}
		if f.Driver == "" {
			k.probe(f)
		}
		return nil
	case strings.HasPrefix(name, "sys/bus/pci/drivers/"):
		f, err := k.named(v)
		if err != nil {
			return err
		}
		if attr != "unbind" || path.Base(path.Dir(name)) != f.Driver {
			return unix.ENODEV
		}
		k.setVFs(f, 0)
		k.bind(f, "")
		return nil
	}
	f, err := k.named(path.Base(path.Dir(name)))
	if err != nil {
		return unix.ENOENT
	}
	switch attr {
	case "driver_override":
		f.Override = v
		k.Tree.File(f.dir+"/driver_override", orNull(v)+"\n")
	case "sriov_numvfs":
		n, err := strconv.Atoi(v)
		switch {
		case err != nil:
			return unix.EINVAL
		case n > f.TotalVFs:
			return unix.ERANGE
		case n > 0 && len(f.vfs) > 0:
			return unix.EBUSY
		}
		k.setVFs(f, n)
	case "sriov_drivers_autoprobe", "reset", "reset_subordinate":
		k.Tree.File(f.dir+"/"+attr, v+"\n")
	default:
		return unix.EACCES
	}
	return nil
}

func (k *Kernel) named(addr string) (*Function, error) {
	a, err := topology.ParseAddress(addr)
	if err != nil || k.by[a] == nil {
		return nil, unix.ENODEV
	}
	return k.by[a], nil
}

// probe binds the driver that the override names, else the natural one.
func (k *Kernel) probe(f *Function) {
	want := k.natural[f.Addr]
	if f.Override != "" {
		want = f.Override
	}
	if want == "" || k.refuse[want] {
		return
	}
	if _, err := k.Tree.ReadDir("sys/bus/pci/drivers/" + want); err != nil {
		return
	}
	k.bind(f, want)
}

// bind moves the links and class devices; the empty name unbinds.
func (k *Kernel) bind(f *Function, driver string) {
	t := k.Tree
	if f.Driver != "" {
		t.Remove("sys/bus/pci/drivers/" + f.Driver + "/" + f.Addr.String())
		t.Remove(f.dir + "/driver")
		for _, n := range f.Net {
			t.Remove("sys/class/net/" + n)
		}
		t.Remove(f.dir + "/net")
	}
	if f.vfio != "" {
		t.Remove("sys/class/vfio-dev/" + f.vfio)
		t.Remove(f.dir + "/vfio-dev")
		f.vfio = ""
	}
	f.Driver = driver
	t.File(f.dir+"/uevent", uevent(f, driver))
	if driver == "" {
		return
	}
	link(t, f.dir+"/driver", "sys/bus/pci/drivers/"+driver)
	link(t, "sys/bus/pci/drivers/"+driver+"/"+f.Addr.String(), f.dir)
	if topology.IsVFIODriver(driver) {
		if !k.m.spec.NoIOMMU && !k.m.spec.NoIOMMUFD {
			f.vfio = "vfio" + strconv.Itoa(k.m.vfio)
			k.m.vfio++
		}
		saved := f.Fn
		f.Net, f.RDMA, f.DRM, f.Block = nil, nil, nil, nil
		f.writeClasses(t)
		f.Fn = saved
		f.Driver = driver
		return
	}
	f.writeClasses(t)
}

// setVFs makes exactly n VFs.
func (k *Kernel) setVFs(f *Function, n int) {
	if f.TotalVFs == 0 {
		return
	}
	for i, v := range f.vfs {
		k.drop(v)
		k.Tree.Remove(f.dir + "/virtfn" + strconv.Itoa(i))
	}
	f.vfs = nil
	if n > 0 {
		before := len(k.m.funcs)
		f.AddVFs(n, f.vf)
		for _, v := range k.m.funcs[before:] {
			v.Driver, v.vfio = "", ""
			k.by[v.Addr] = v
			k.natural[v.Addr] = f.vfNatural
			v.write(k.Tree)
			if b, err := fs.ReadFile(k.Tree, f.dir+"/sriov_drivers_autoprobe"); err == nil && strings.TrimSpace(string(b)) == "1" {
				k.probe(v)
			}
		}
	}
	k.Tree.File(f.dir+"/sriov_numvfs", strconv.Itoa(n)+"\n")
	k.Tree.File(f.dir+"/sriov_offset", strconv.Itoa(f.offset)+"\n")
	k.Tree.File(f.dir+"/sriov_stride", strconv.Itoa(f.stride)+"\n")
}

// drop removes a function from the tree.
func (k *Kernel) drop(f *Function) {
	k.bind(f, "")
	k.Tree.Remove("sys/bus/pci/devices/" + f.Addr.String())
	k.Tree.Remove(f.dir)
	if f.grp >= 0 {
		k.Tree.Remove("sys/kernel/iommu_groups/" + strconv.Itoa(f.grp) + "/devices/" + f.Addr.String())
	}
	delete(k.by, f.Addr)
}
