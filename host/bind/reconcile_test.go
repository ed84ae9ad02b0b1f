package bind_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/bind"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
	"golang.org/x/sys/unix"
)

// rig is an agent's loop without the rest of the agent.
type rig struct {
	t     *testing.T
	k     *hosttest.Kernel
	st    *host.State
	r     *bind.Reconciler
	pools []v1alpha1.DevicePool
	now   time.Time
}

func newRig(t *testing.T, m *hosttest.Machine, pools ...v1alpha1.DevicePool) *rig {
	t.Helper()
	r := &rig{t: t, k: hosttest.NewKernel(m, "vfio-pci", "igbvf"), pools: pools, now: time.Unix(1e9, 0)}
	var err error
	if r.st, err = host.OpenState(filepath.Join(t.TempDir(), "former.json")); err != nil {
		t.Fatal(err)
	}
	r.start()
	return r
}

// start makes a new reconciler, as a restarted agent does.
func (r *rig) start() {
	r.r = bind.New(bind.Config{
		Writer: host.NewWriter(host.WriterConfig{FS: r.k.Tree, Attrs: r.k, State: r.st}),
		Now:    func() time.Time { return r.now },
	})
}

func (r *rig) look() (*topology.Host, pool.Selection) {
	r.t.Helper()
	h, err := host.Read(context.Background(), r.k.Tree)
	if err != nil {
		r.t.Fatal(err)
	}
	return h, pool.Select(pool.Input{Pools: r.pools, Host: h, Units: topology.Units(h), Former: r.st.Former(h)})
}

// settle calls until nothing changes any more.
func (r *rig) settle() bind.Result {
	r.t.Helper()
	for range 10 {
		h, s := r.look()
		if res := r.r.Reconcile(context.Background(), h, &s, false); !res.Changed {
			return res
		}
	}
	r.t.Fatal("it does not settle")
	return bind.Result{}
}

func (r *rig) drivers(addrs ...string) string {
	r.t.Helper()
	h, _ := r.look()
	var out []string
	for _, a := range addrs {
		x, err := topology.ParseAddress(a)
		if err != nil {
			r.t.Fatal(err)
		}
		f := h.Function(x)
		if f == nil {
			out = append(out, "absent")
			continue
		}
		out = append(out, f.Driver)
	}
	return strings.Join(out, " ")
}

func mk(name string, spec v1alpha1.DevicePoolSpec) v1alpha1.DevicePool {
	p := v1alpha1.DevicePool{Spec: spec}
	p.Name, p.Spec.ResourceName = name, "example.com/"+name
	return p
}

func sel(s v1alpha1.DeviceSelector) []v1alpha1.DeviceSelector { return []v1alpha1.DeviceSelector{s} }

var gpuFunctions = []string{"0000:01:00.0", "0000:01:00.1", "0000:01:00.2", "0000:01:00.3"}

func gpuPool() v1alpha1.DevicePool {
	return mk("gpu", v1alpha1.DevicePoolSpec{Selectors: sel(v1alpha1.DeviceSelector{Addresses: []string{"0000:01:00.0"}})})
}

func TestBindsWholeUnit(t *testing.T) {
	r := newRig(t, hosttest.Desktop(), gpuPool())
	res := r.settle()
	if len(res.Reasons) != 0 || !res.Retry.IsZero() {
		t.Errorf("reasons %v, retry %v", res.Reasons, res.Retry)
	}
	if got := r.drivers(gpuFunctions...); got != "vfio-pci vfio-pci vfio-pci vfio-pci" {
		t.Errorf("drivers: %s", got)
	}
	if _, s := r.look(); s.Pools[0].Offers[0].NotReady != "" {
		t.Errorf("not ready: %s", s.Pools[0].Offers[0].NotReady)
	}
	n := len(r.k.Writes())
	r.start()
	r.settle()
	if w := r.k.Writes()[n:]; len(w) != 0 {
		t.Errorf("a restarted agent wrote %v", w)
	}
	r.pools = nil // the pool is deleted: devices stay
	r.settle()
	if w := r.k.Writes()[n:]; len(w) != 0 {
		t.Errorf("without pools it wrote %v", w)
	}
}

func TestHalfAUnitGoesBack(t *testing.T) {
	m := hosttest.Desktop()
	r := newRig(t, m, gpuPool())
	// The third function is held by somebody.
	usb := m.Function("0000:01:00.2")
	r.r = bind.New(bind.Config{
		Writer: host.NewWriter(host.WriterConfig{FS: r.k.Tree, Attrs: r.k, State: r.st, Busy: func(a topology.Address) string {
			if a == usb.Addr {
				return "a keyboard hangs on it"
			}
			return ""
		}}),
		Now: func() time.Time { return r.now },
	})
	res := r.settle()
	id := m.Function("0000:01:00.0").Addr
	if !strings.Contains(res.Reasons[id], "keyboard") || !strings.Contains(res.Reasons[id], "0000:01:00.2") {
		t.Errorf("reasons: %v", res.Reasons)
	}
	if got := r.drivers(gpuFunctions...); got != "nouveau snd_hda_intel xhci_hcd i2c_nvidia_gpu" {
		t.Errorf("drivers: %s", got)
	}
}

func TestMakesVFsThenBindsThem(t *testing.T) {
	r := newRig(t, hosttest.Lab(), mk("vf", v1alpha1.DevicePoolSpec{VFs: &v1alpha1.VFSpec{Count: 4}, Selectors: sel(v1alpha1.DeviceSelector{PFNames: []string{"enp65s0#1-2"}})}))
	if res := r.settle(); len(res.Reasons) != 0 {
		t.Fatalf("reasons: %v", res.Reasons)
	}
	// Only the VFs of the range are bound; 0000:41:01.0 does not exist any more.
	if got := r.drivers("0000:41:00.4", "0000:41:00.5", "0000:41:00.6", "0000:41:00.7", "0000:41:01.0"); got != " vfio-pci vfio-pci  absent" {
		t.Errorf("drivers: %q", got)
	}
}

func unit(m *hosttest.Machine, addrs ...string) (out []topology.Address) {
	for _, a := range addrs {
		out = append(out, m.Function(a).Addr)
	}
	return out
}

// TestOneCallDoesWhatItCan: units wait for virtual functions that are being made only
// where they depend on them, and interfaces are brought up once the functions are there.
func TestOneCallDoesWhatItCan(t *testing.T) {
	m := hosttest.Lab()
	r := newRig(t, m,
		mk("vf", v1alpha1.DevicePoolSpec{VFs: &v1alpha1.VFSpec{Count: 2}, Selectors: sel(v1alpha1.DeviceSelector{PFNames: []string{"enp65s0"}})}),
		mk("other", v1alpha1.DevicePoolSpec{Selectors: sel(v1alpha1.DeviceSelector{Addresses: []string{"0000:62:00.0"}})}))
	other := unit(m, "0000:62:00.0", "0000:62:00.1")
	for _, a := range other { // the machine has them bound
		if err := r.k.WriteAttr(context.Background(), a, "sys/bus/pci/drivers/vfio-pci/unbind", a.String()); err != nil {
			t.Fatal(err)
		}
	}
	var fail error // of the next attempt
	ups, done := make(chan string, 1), make(chan struct{}, 1)
	let := make(chan struct{})
	r.r = bind.New(bind.Config{
		Writer: host.NewWriter(host.WriterConfig{FS: r.k.Tree, Attrs: r.k, State: r.st}),
		LinkUp: func(_ context.Context, name string) error {
			ups <- name
			<-let
			return fail
		},
		LinkDone: func() { done <- struct{}{} },
		Now:      func() time.Time { return r.now },
	})
	call := func(paused bool) bind.Result {
		h, s := r.look()
		return r.r.Reconcile(context.Background(), h, &s, paused)
	}
	pf := m.Function("0000:41:00.0").Addr
	res := call(false)
	if got := r.drivers("0000:62:00.0", "0000:41:00.4", "0000:41:00.5"); !res.Changed || len(res.Reasons) > 0 || got != "vfio-pci  " {
		t.Fatalf("first call: %+v, drivers %q", res, got)
	}
	if _, told := res.VFs[pf]; !told || !slices.Equal(res.Bound, other) {
		t.Errorf("first call says that it bound %v and made functions of %v", res.Bound, res.VFs)
	}
	if len(ups) > 0 || r.r.Coming(pf) {
		t.Error("brought up before it had virtual functions")
	}
	fail = errors.New("no cable drum")
	res = call(false)
	if got := r.drivers("0000:41:00.4", "0000:41:00.5"); got != "vfio-pci vfio-pci" || len(res.Reasons) > 0 {
		t.Fatalf("second call, while the interface comes up: %+v, drivers %q", res, got)
	}
	if got := <-ups; got != "enp65s0" {
		t.Errorf("brought up %s", got)
	}
	if !r.r.Coming(pf) {
		t.Error("the interface is not said to be coming")
	}
	r.now = r.now.Add(time.Minute)
	if r.r.Coming(pf) {
		t.Error("an interface that does not come up is said to be coming for ever")
	}
	if res = call(false); res.Changed || len(res.Reasons) > 0 {
		t.Errorf("third call: %+v", res)
	}
	let <- struct{}{}
	<-done
	if res = call(false); !strings.Contains(res.Reasons[pf], "enp65s0") || !res.Retry.Equal(r.now.Add(10*time.Second)) || r.r.Coming(pf) {
		t.Errorf("the interface did not come up: %+v", res)
	}
	fail, r.now = nil, r.now.Add(time.Hour)
	if res = call(true); len(res.Reasons) > 0 {
		t.Errorf("a paused node wants to do %v", res.Reasons)
	}
	call(false)
	<-ups
	let <- struct{}{}
	<-done
	for range 2 {
		if res = call(false); res.Changed || len(res.Reasons) > 0 || r.r.Coming(pf) {
			t.Errorf("when it is up: %+v", res)
		}
	}
	if len(ups) > 0 {
		t.Error("brought up again")
	}
	// Another number of virtual functions may have taken it down.
	r.pools[0].Spec.VFs.Count = 3
	call(false)
	call(false)
	<-ups
	let <- struct{}{}
	<-done
}

// TestVFsThatStay: where the number of virtual functions cannot be changed, those that
// are there are bound.
func TestVFsThatStay(t *testing.T) {
	m := hosttest.Lab()
	r := newRig(t, m, mk("vf", v1alpha1.DevicePoolSpec{VFs: &v1alpha1.VFSpec{Count: 2}, Selectors: sel(v1alpha1.DeviceSelector{PFNames: []string{"enp65s0"}})}))
	r.k.Fail("drivers_probe", unix.EIO)
	r.settle()
	if got := r.drivers("0000:41:00.4", "0000:41:00.5"); got != " " {
		t.Fatalf("drivers %q", got)
	}
	r.k.Fail("drivers_probe", nil)
	r.k.Fail("sriov_numvfs", unix.ENOSPC)
	r.pools[0].Spec.VFs.Count = 3
	r.now = r.now.Add(time.Hour)
	res := r.settle()
	if got := r.drivers("0000:41:00.4", "0000:41:00.5"); got != "vfio-pci vfio-pci" {
		t.Errorf("drivers %q, %+v", got, res)
	}
	if why := res.Reasons[m.Function("0000:41:00.0").Addr]; why == "" {
		t.Errorf("reasons %v", res.Reasons)
	}
}

func TestPausesBetweenFailures(t *testing.T) {
	r := newRig(t, hosttest.Desktop(), gpuPool())
	r.k.Refuse("vfio-pci")
	res := r.settle()
	if len(res.Reasons) != 1 || !res.Retry.Equal(r.now.Add(10*time.Second)) {
		t.Fatalf("reasons %v, retry %v", res.Reasons, res.Retry)
	}
	tries := func() int { return len(r.k.Writes()) }
	n := tries()
	r.now = r.now.Add(5 * time.Second)
	if res = r.settle(); tries() != n || len(res.Reasons) != 1 {
		t.Errorf("tried again too early: %v", r.k.Writes()[n:])
	}
	r.now = r.now.Add(6 * time.Second)
	if res = r.settle(); tries() == n || !res.Retry.Equal(r.now.Add(20*time.Second)) {
		t.Errorf("second pause ends %v after now", res.Retry.Sub(r.now))
	}
	for range 10 {
		r.now = res.Retry
		res = r.settle()
	}
	if d := res.Retry.Sub(r.now); d != 5*time.Minute {
		t.Errorf("longest pause %v", d)
	}
	// A changed wish does not wait.
	n = tries()
	r.pools[0].Spec.Driver = "auto"
	if r.settle(); tries() == n {
		t.Error("the changed pool waited for the old pause")
	}
}

// TestFreed: what was in use is tried as soon as somebody lets go, what failed for
// another reason is not.
func TestFreed(t *testing.T) {
	r := newRig(t, hosttest.Desktop(), gpuPool())
	why := "pod ns/vm holds it"
	r.r = bind.New(bind.Config{
		Writer: host.NewWriter(host.WriterConfig{FS: r.k.Tree, Attrs: r.k, State: r.st, Busy: func(topology.Address) string { return why }}),
		Now:    func() time.Time { return r.now },
	})
	if res := r.settle(); len(res.Reasons) != 1 || !res.Retry.Equal(r.now.Add(10*time.Second)) {
		t.Fatalf("reasons %v, retry %v", res.Reasons, res.Retry)
	}
	r.r.Freed() // by somebody else
	if res := r.settle(); len(res.Reasons) != 1 || !res.Retry.Equal(r.now.Add(10*time.Second)) {
		t.Errorf("still in use: reasons %v, retry %v", res.Reasons, res.Retry)
	}
	why = ""
	if res := r.settle(); len(res.Reasons) != 1 {
		t.Errorf("nobody has said that it is free, and it was tried: %v", res.Reasons)
	}
	r.k.Refuse("vfio-pci")
	r.r.Freed()
	if res := r.settle(); len(res.Reasons) != 1 || len(r.k.Writes()) == 0 {
		t.Fatalf("not tried: %v", res.Reasons)
	}
	n := len(r.k.Writes())
	r.r.Freed()
	if r.settle(); len(r.k.Writes()) != n {
		t.Errorf("tried although it was the kernel that refused: %v", r.k.Writes()[n:])
	}
}

func TestPaused(t *testing.T) {
	r := newRig(t, hosttest.Desktop(), gpuPool())
	h, s := r.look()
	res := r.r.Reconcile(context.Background(), h, &s, true)
	if w := r.k.Writes(); len(w) != 0 || res.Changed || len(res.Reasons) != 1 {
		t.Errorf("wrote %v, result %+v", w, res)
	}
	for _, why := range res.Reasons {
		if !strings.Contains(why, "paused") {
			t.Errorf("reason: %s", why)
		}
	}
}

func TestLeavesAlone(t *testing.T) {
	cases := map[string]v1alpha1.DevicePoolSpec{
		"keep":    {Driver: "keep", Selectors: sel(v1alpha1.DeviceSelector{Addresses: []string{"0000:01:00.0"}})},
		"blocked": {Selectors: sel(v1alpha1.DeviceSelector{Drivers: []string{"e1000e"}})},
		"refused": {Companions: "Refuse", Selectors: sel(v1alpha1.DeviceSelector{Addresses: []string{"0000:01:00.0"}})},
	}
	for name, spec := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, hosttest.Desktop(), mk("p", spec))
			r.settle()
			if w := r.k.Writes(); len(w) != 0 {
				t.Errorf("wrote %v", w)
			}
		})
	}
}

// TestStuckUnitHoldsUpNobody: other units are bound while one is stuck.
func TestStuckUnitHoldsUpNobody(t *testing.T) {
	m := hosttest.Desktop()
	r := newRig(t, m, gpuPool(), mk("vgpu", v1alpha1.DevicePoolSpec{Selectors: sel(v1alpha1.DeviceSelector{Devices: []string{"2236"}})}))
	stuck := m.Function("0000:01:00.0").Addr
	release := r.k.Hang(stuck)
	defer release()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	h, s := r.look()
	res := r.r.Reconcile(ctx, h, &s, false)
	if !strings.Contains(res.Reasons[stuck], "stuck") {
		t.Errorf("reasons: %v", res.Reasons)
	}
	if got := r.drivers("0000:09:00.4", "0000:09:00.5"); got != "vfio-pci vfio-pci" {
		t.Errorf("drivers: %s (%v)", got, fmt.Sprint(slices.Compact(r.k.Writes())))
	}
}
