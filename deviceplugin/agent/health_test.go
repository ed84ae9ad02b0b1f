package agent

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/bind"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
)

// TestPFDown: virtual functions of a card whose interface is down are not on offer,
// unless it is down only because it is just being brought up.
func TestPFDown(t *testing.T) {
	m := hosttest.Lab()
	k := hosttest.NewKernel(m, "vfio-pci")
	state, err := host.OpenState(filepath.Join(t.TempDir(), "former.json"))
	if err != nil {
		t.Fatal(err)
	}
	called, let, done := make(chan string, 1), make(chan struct{}), make(chan struct{})
	a := &Agent{fs: k.Tree, binder: bind.New(bind.Config{
		Writer:   host.NewWriter(host.WriterConfig{FS: k.Tree, Attrs: k, State: state}),
		LinkUp:   func(_ context.Context, name string) error { called <- name; <-let; return nil },
		LinkDone: func() { close(done) },
	})}
	card := m.Function("0000:41:00.0")
	pf, flags := card.Addr, card.Dir()+"/net/enp65s0/flags"
	look := func() (*topology.Host, pool.Selection) {
		h, err := host.Read(t.Context(), k.Tree)
		if err != nil {
			t.Fatal(err)
		}
		p := v1alpha1.DevicePool{Spec: v1alpha1.DevicePoolSpec{ResourceName: "example.com/vf", VFs: &v1alpha1.VFSpec{Count: 2}, Selectors: []v1alpha1.DeviceSelector{{PFNames: []string{"enp65s0"}}}}}
		return h, pool.Select(pool.Input{Pools: []v1alpha1.DevicePool{p}, Host: h, Units: topology.Units(h)})
	}
	why := func() string {
		h, _ := look()
		return a.pfDown(&picture{host: h}, pf)
	}
	if got := why(); got != "" {
		t.Errorf("nothing is known of the interface: %q", got)
	}
	k.Tree.File(flags, "0x1002\n")
	if got := why(); !strings.Contains(got, "enp65s0") {
		t.Errorf("it is down: %q", got)
	}
	for range 2 { // virtual functions, then their interface
		h, sel := look()
		a.binder.Reconcile(t.Context(), h, &sel, false)
	}
	<-called
	if got := why(); got != "" {
		t.Errorf("it is being brought up: %q", got)
	}
	close(let)
	<-done
	if got := why(); !strings.Contains(got, "enp65s0") {
		t.Errorf("it did not come up: %q", got)
	}
	k.Tree.File(flags, "0x1003\n")
	if got := why(); got != "" {
		t.Errorf("it is up: %q", got)
	}
	if got := a.pfDown(&picture{host: &topology.Host{}}, pf); !strings.Contains(got, "gone") {
		t.Errorf("no such card: %q", got)
	}
}
