package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kubevfio/kubevfio/topology"
	"golang.org/x/sys/unix"
)

// Writer is everything that KubeVFIO changes on a host. Every error is a
// [ChangeError] or wraps a fault of the agent's own files.
//
// Calls for different devices may be made at once; calls for one device wait
// for each other.
type Writer interface {
	// Bind makes a driver the function's driver, loading its module; the empty
	// name gives the function back to the driver that it had before KubeVFIO.
	// On failure the former driver is bound again.
	Bind(ctx context.Context, a topology.Address, driver string) error
	// SetVFs makes a physical function have n virtual functions, not bound to
	// any driver.
	SetVFs(ctx context.Context, pf topology.Address, n int) error
	// Reset resets the functions of a unit, all of them, so that nothing of the
	// last tenant stays, and checks that they answer.
	Reset(ctx context.Context, members []topology.Address) error
}

// WriterConfig is what a writer works with. FS, Attrs and State are needed.
type WriterConfig struct {
	// FS is the host's tree, with the host's own proc/ (see [WithProc]).
	FS FS
	// Attrs writes to the same tree.
	Attrs AttrWriter
	State *State
	// Modprobe loads a module into the host's kernel; nil when modules need no
	// loading.
	Modprobe func(ctx context.Context, module string) error
	// Busy says why a function must not be touched that the host itself does
	// not know: the pod that holds it. Nil when there is no such knowledge.
	Busy func(a topology.Address) string
	Log  *slog.Logger
}

// sysfsWriter is the Writer of a tree.
type sysfsWriter struct {
	WriterConfig
	mu    sync.Mutex
	locks map[topology.Address]*sync.Mutex
}

// NewWriter makes the writer of a host's tree.
func NewWriter(c WriterConfig) Writer {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &sysfsWriter{WriterConfig: c, locks: map[topology.Address]*sync.Mutex{}}
}

// lock serialises the calls for one device.
func (w *sysfsWriter) lock(a topology.Address) func() {
	w.mu.Lock()
	l := w.locks[a]
	if l == nil {
		l = &sync.Mutex{}
		w.locks[a] = l
	}
	w.mu.Unlock()
	l.Lock()
	return l.Unlock
}

func (w *sysfsWriter) function(a topology.Address) (topology.Function, error) {
	f, err := ReadFunction(w.FS, a)
	if errors.Is(err, ErrStuck) {
		return f, err
	}
	if err != nil {
		return f, refuse(a, ErrUnsupported, "cannot be read: "+err.Error())
	}
	return f, nil
}

// free refuses functions that somebody uses.
func (w *sysfsWriter) free(fs ...*topology.Function) error {
	taken, err := Occupied(w.FS)
	if err != nil {
		return refuse(fs[0].Address, ErrProtected, err.Error())
	}
	for _, f := range fs {
		if o, ok := taken[f.Address]; ok {
			return refuse(f.Address, o.Class, o.Reason)
		}
		if w.Busy != nil {
			if why := w.Busy(f.Address); why != "" {
				return refuse(f.Address, ErrInUse, why)
			}
		}
		if why := VFIOUser(w.FS, f); why != "" {
			return refuse(f.Address, ErrInUse, why)
		}
	}
	return nil
}

// slowWrite is how long a write takes that is worth a line in the log.
const slowWrite = time.Second

func (w *sysfsWriter) write(ctx context.Context, a topology.Address, name, value string) error {
	start := time.Now()
	err := w.Attrs.WriteAttr(ctx, a, name, value)
	took, level := time.Since(start), slog.LevelDebug
	if took >= slowWrite {
		level = slog.LevelInfo // somebody will ask where the time went
	}
	w.Log.LogAttrs(ctx, level, "wrote sysfs attribute", slog.String("address", a.String()), slog.String("name", name),
		slog.String("value", strings.TrimSpace(value)), slog.Float64("seconds", took.Seconds()), slog.Any("error", err))
	return err
}

// sameDriver compares driver names as the kernel compares module names.
func sameDriver(a, b string) bool {
	return strings.ReplaceAll(a, "-", "_") == strings.ReplaceAll(b, "-", "_")
}

// Bind implements [Writer].
func (w *sysfsWriter) Bind(ctx context.Context, a topology.Address, driver string) error {
	defer w.lock(a)()
	f, err := w.function(a)
	if err != nil {
		return err
	}
	if f.Transparent() {
		return refuse(a, ErrProtected, "it is a bridge")
	}
	release := driver == ""
	want, override := driver, driver
	if release {
		was, known := w.State.driver(&f)
		if !known && !f.VFIO() {
			return nil // never ours
		}
		want, override = was, ""
	}
	if sameDriver(f.Driver, want) && (release || sameDriver(f.DriverOverride, override)) {
		if release {
			return w.released(ctx, &f)
		}
		return nil
	}
	if err := w.free(&f); err != nil {
		return err
	}
	if f.NumVFs > 0 {
		return refuse(a, ErrInUse, fmt.Sprintf("it has %d virtual functions; they would vanish with its driver", f.NumVFs))
	}
	if !release {
		if w.Modprobe != nil {
			if err := w.Modprobe(ctx, want); err != nil {
				return refuse(a, ErrUnsupported, fmt.Sprintf("load module %s: %v", want, err))
			}
		}
		name, ok := w.driverName(want)
		if !ok {
			return refuse(a, ErrUnsupported, "the kernel has no PCI driver "+want)
		}
		want, override = name, name
		if !f.VFIO() {
			if err := w.State.remember(&f); err != nil {
				return err
			}
		}
	}
	if err := w.rebind(ctx, &f, want, override); err != nil {
		return err
	}
	if release {
		return w.State.forget(a)
	}
	return nil
}

// driverName is a driver's name in the kernel, which compares it to the
// override letter by letter: module vfio_pci has the driver vfio-pci.
func (w *sysfsWriter) driverName(name string) (string, bool) {
	entries, err := w.FS.ReadDir("sys/bus/pci/drivers")
	if err != nil {
		return "", false
	}
	found := ""
	for _, e := range entries {
		if e.Name() == name {
			return name, true
		}
		if sameDriver(e.Name(), name) {
			found = e.Name()
		}
	}
	return found, found != ""
}

// released finishes a release of a function that has its former driver again.
func (w *sysfsWriter) released(ctx context.Context, f *topology.Function) error {
	if f.DriverOverride != "" {
		if err := w.write(ctx, f.Address, attrPath(f.Address, "driver_override"), "\n"); err != nil {
			return w.kernel(f.Address, "driver_override", err)
		}
	}
	return w.State.forget(f.Address)
}

func driverDir(driver string) string { return "sys/bus/pci/drivers/" + driver }

func attrPath(a topology.Address, attr string) string {
	return pciDevicesDir + "/" + a.String() + "/" + attr
}

// kernel makes a ChangeError of a failed write.
func (w *sysfsWriter) kernel(a topology.Address, step string, err error) error {
	var c *ChangeError
	if errors.As(err, &c) {
		return err
	}
	class := ErrRefused
	if errors.Is(err, unix.EBUSY) {
		class = ErrInUse
	}
	return refuse(a, class, step+": "+err.Error())
}

// rebind moves a function from its driver to another one; want is empty when
// no driver is expected in the end. On failure it is moved back, except when
// the kernel holds a write up: then nothing more is done to the device.
func (w *sysfsWriter) rebind(ctx context.Context, f *topology.Function, want, override string) error {
	err := w.move(ctx, f, override)
	if err == nil {
		now, rerr := w.function(f.Address)
		switch {
		case rerr != nil:
			return rerr
		case sameDriver(now.Driver, want):
			return nil
		case want == "" && !now.VFIO():
			return nil // the host's own choice of driver is as good as none
		}
		err = refuse(f.Address, ErrRefused, fmt.Sprintf("driver %s did not take it (driver now: %s); see the kernel's log", nonEmpty(want), nonEmpty(now.Driver)))
	}
	if errors.Is(err, ErrStuck) {
		return err
	}
	// The former driver must come back even when the caller has given up.
	back := context.WithoutCancel(ctx)
	now, rerr := w.function(f.Address)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	if berr := w.move(back, &now, f.DriverOverride); berr != nil {
		return errors.Join(err, fmt.Errorf("roll back to %s: %w", nonEmpty(f.Driver), berr))
	}
	return err
}

func nonEmpty(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// move sets the override, unbinds and probes.
func (w *sysfsWriter) move(ctx context.Context, f *topology.Function, override string) error {
	a := f.Address
	if f.DriverOverride != override {
		// A new line clears the override (sysfs-bus-pci).
		if err := w.write(ctx, a, attrPath(a, "driver_override"), override+"\n"); err != nil {
			return w.kernel(a, "driver_override", err)
		}
	}
	if f.Driver != "" {
		err := w.write(ctx, a, driverDir(f.Driver)+"/unbind", a.String())
		// Gone already: somebody else unbound it in between.
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return w.kernel(a, "unbind from "+f.Driver, err)
		}
	}
	if err := w.write(ctx, a, "sys/bus/pci/drivers_probe", a.String()); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return w.kernel(a, "drivers_probe", err)
	}
	return nil
}

// SetVFs implements [Writer].
func (w *sysfsWriter) SetVFs(ctx context.Context, a topology.Address, n int) error {
	defer w.lock(a)()
	pf, err := w.function(a)
	if err != nil {
		return err
	}
	switch {
	case pf.TotalVFs <= 0:
		return refuse(a, ErrUnsupported, "it has no SR-IOV capability")
	case n < 0 || n > pf.TotalVFs:
		return refuse(a, ErrUnsupported, fmt.Sprintf("%d virtual functions asked for, it can have %d", n, pf.TotalVFs))
	case pf.Driver == "":
		return refuse(a, ErrUnsupported, "it has no driver, which virtual functions need")
	case pf.NumVFs < 0:
		return refuse(a, ErrUnsupported, "the kernel does not say how many virtual functions it has (sriov_numvfs)")
	}
	if pf.NumVFs == n {
		return nil
	}
	if why := w.busy(a); why != "" {
		return refuse(a, ErrInUse, why)
	}
	var vfs []*topology.Function
	for _, v := range pf.VFs {
		f, err := ReadFunction(w.FS, v)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return refuse(a, ErrInUse, "cannot tell whether its virtual function "+v.String()+" is free: "+err.Error())
		}
		vfs = append(vfs, &f)
	}
	if len(vfs) > 0 {
		if err := w.free(vfs...); err != nil {
			var c *ChangeError
			if errors.As(err, &c) && c.Address != a {
				return refuse(a, c.Class, "its virtual function "+c.Address.String()+": "+c.Reason)
			}
			return err
		}
	}
	// Without this the host's VF driver would take each new function, to be
	// unbound again a moment later.
	if err := w.write(ctx, a, attrPath(a, "sriov_drivers_autoprobe"), "0"); err != nil && !errors.Is(err, unix.ENOENT) {
		return w.kernel(a, "sriov_drivers_autoprobe", err)
	}
	if err := w.resize(ctx, &pf, pf.NumVFs, n); err != nil {
		if errors.Is(err, ErrStuck) {
			return err
		}
		if berr := w.resize(context.WithoutCancel(ctx), &pf, -1, pf.NumVFs); berr != nil {
			return errors.Join(err, fmt.Errorf("roll back to %d virtual functions: %w", pf.NumVFs, berr))
		}
		return err
	}
	for _, v := range pf.VFs {
		// What these functions were bound to before says nothing of new ones.
		if err := w.State.forget(v); err != nil {
			return err
		}
	}
	return nil
}

func (w *sysfsWriter) busy(a topology.Address) string {
	if w.Busy == nil {
		return ""
	}
	return w.Busy(a)
}

// resize goes from a number of VFs (-1: unknown) to another, by way of 0 as the
// kernel demands, and verifies.
func (w *sysfsWriter) resize(ctx context.Context, pf *topology.Function, from, to int) error {
	name := attrPath(pf.Address, "sriov_numvfs")
	if from < 0 {
		now, err := w.function(pf.Address)
		if err != nil {
			return err
		}
		if from = now.NumVFs; from == to {
			return nil
		}
	}
	steps := []int{to}
	if from > 0 && to > 0 {
		steps = []int{0, to}
	}
	for _, n := range steps {
		if err := w.write(ctx, pf.Address, name, strconv.Itoa(n)); err != nil {
			return w.kernel(pf.Address, "sriov_numvfs="+strconv.Itoa(n), err)
		}
	}
	now, err := w.function(pf.Address)
	if err != nil {
		return err
	}
	if now.NumVFs != to {
		return refuse(pf.Address, ErrRefused, fmt.Sprintf("%d virtual functions asked for, the kernel made %d", to, now.NumVFs))
	}
	return nil
}
