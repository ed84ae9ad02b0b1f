package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/deviceplugin/cdi"
	"github.com/kubevfio/kubevfio/deviceplugin/publish"
	"github.com/kubevfio/kubevfio/host/bind"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
)

// picture is one look at the node. It is never changed once made.
type picture struct {
	host      *topology.Host
	units     []topology.Unit
	selection pool.Selection
	// faults are all reasons beyond the selection's, by unit.
	faults map[topology.Address]string
	// unitOf finds the unit of a function.
	unitOf map[topology.Address]*topology.Unit
	node   *corev1.Node
	paused bool
}

const (
	// settle is how long the loop waits for more news before it looks.
	settle = 150 * time.Millisecond
	// halfway is that time while devices are being prepared, unless that ends.
	halfway = time.Second
	// earlyLimit is how long the first look waits for what is prepared at boot.
	earlyLimit = 5 * time.Second
)

// begin starts to prepare a node that has booted, before anything that needs the
// API server.
func (a *Agent) begin(ctx context.Context) {
	boot, err := fs.ReadFile(a.fs, "proc/sys/kernel/random/boot_id")
	if err != nil {
		a.cfg.Log.Warn("cannot read the boot ID", "err", err)
	}
	a.boot = string(boot)
	if plan := a.early.due(a.boot); plan != nil {
		a.preparing = true
		go func() { a.done <- a.early.prepare(ctx, plan) }()
	}
}

// loop looks at the node whenever something has happened, and now and then.
func (a *Agent) loop(ctx context.Context) error {
	var prepared bind.Result // outcome of the last preparation
	preparing, asked := a.preparing, false
	if !a.cache.WaitForCacheSync(ctx) {
		return ctx.Err()
	}
	a.restore(ctx)
	defer a.stopPlugins()
	poll := time.NewTicker(a.cfg.Poll)
	defer poll.Stop()
	full := true
	// finish takes what a preparation has done; it says whether to look again.
	finish := func(r bind.Result) bool {
		preparing = false
		news := r.Changed || !sameReasons(prepared.Reasons, r.Reasons) || !asked
		prepared, full = r, full || r.Changed
		if !r.Retry.IsZero() {
			time.AfterFunc(time.Until(r.Retry), a.kick)
		}
		return news
	}
	if preparing {
		// A look now would tell everybody of devices that are not there yet, and take
		// processor time from their preparation on a node that has none to spare.
		select {
		case r := <-a.done:
			finish(r)
		case <-time.After(earlyLimit):
		case <-ctx.Done():
		}
	}
	var p *picture // the last one that could be made
	for ctx.Err() == nil {
		now, err := a.look(ctx, full, prepared.Reasons)
		if err != nil {
			a.cfg.Log.Error("cannot look at the node, trying again", "err", err)
			time.AfterFunc(5*time.Second, a.kick)
		} else {
			p = now
			if !preparing {
				preparing, asked = true, true
				go func() { a.done <- a.prepare(ctx, now) }()
			}
			if err := a.spread(ctx, p); err != nil && ctx.Err() == nil {
				a.cfg.Log.Error("not everything could be published, trying again", "err", err)
				time.AfterFunc(5*time.Second, a.kick)
			}
		}
		full = false
		for news := false; !news; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case r := <-a.done:
				news = finish(r)
			case <-a.trigger:
				news = true
			case <-a.hands.changed():
				pause(ctx, settle)
				news = len(prepared.Reasons) > 0 || !a.handed(p)
			case <-poll.C:
				news, full = true, true
			}
		}
		if preparing {
			// Each function that comes or goes is news, and a look at each of these
			// halves takes from what is being done its time.
			select {
			case r := <-a.done:
				if !finish(r) {
					pause(ctx, settle)
				}
			case <-time.After(halfway):
			case <-ctx.Done():
			}
		} else {
			pause(ctx, settle)
		}
		drain(a.trigger)
		a.hands.take() // the look sees them
	}
	return ctx.Err()
}

// prepare makes the host what the pools ask for.
func (a *Agent) prepare(ctx context.Context, p *picture) bind.Result {
	back := a.early.takeBack(ctx, &p.selection, p.paused)
	res := a.binder.Reconcile(ctx, p.host, &p.selection, p.paused)
	res.Changed = res.Changed || back
	return res
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func sameReasons(a, b map[topology.Address]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// look makes a picture. Without full the reading that uevents keep current is
// taken.
func (a *Agent) look(ctx context.Context, full bool, reasons map[topology.Address]string) (*picture, error) {
	p := &picture{faults: map[topology.Address]string{}, unitOf: map[topology.Address]*topology.Unit{}}
	if !full {
		p.host = a.scanner.Host()
	}
	if p.host == nil {
		start := time.Now()
		h, err := a.scanner.Scan(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the host: %w", err)
		}
		a.metrics.Rescan("full", time.Since(start))
		p.host = h
	}
	p.units = topology.Units(p.host)
	for i := range p.units {
		for _, m := range p.units[i].Members {
			p.unitOf[m] = &p.units[i]
		}
	}
	p.node = &corev1.Node{}
	if err := a.cache.Get(ctx, client.ObjectKey{Name: a.cfg.Node}, p.node); err != nil {
		return nil, fmt.Errorf("own Node: %w", err)
	}
	p.paused = p.node.Annotations[v1alpha1.PauseAnnotation] == "true"
	a.metrics.Pause(p.paused)
	var pools v1alpha1.DevicePoolList
	if err := a.cache.List(ctx, &pools); err != nil {
		return nil, fmt.Errorf("DevicePools: %w", err)
	}
	p.selection = pool.Select(pool.Input{
		Pools: pools.Items, Host: p.host, Units: p.units, Labels: p.node.Labels, Former: a.state.Former(p.host),
	})
	for id, why := range reasons {
		p.faults[id] = why
	}
	a.health(p)
	a.mu.Lock()
	a.picture = p
	a.mu.Unlock()
	return p, nil
}

// spread gives a picture to everybody who needs it: the scheduler before
// kubelet.
func (a *Agent) spread(ctx context.Context, p *picture) error {
	var errs []error
	owner := publish.Owner{Name: p.node.Name, UID: p.node.UID}
	wrote, err := a.publisher.Inventory(ctx, owner, a.inventory(ctx, p))
	if wrote || err != nil {
		a.metrics.Publish("NodeInventory", err)
	}
	errs = append(errs, err)
	errs = append(errs, a.writeCDI(p))
	a.updatePlugins(ctx, p)
	errs = append(errs, a.poolStatus(ctx, p))
	errs = append(errs, a.remember(p))
	a.mu.Lock()
	a.ready = a.ready || err == nil
	a.mu.Unlock()
	return errors.Join(errs...)
}

// writeCDI writes what the container runtime shall know. A unit that a pod holds
// stays as long as its group is known.
func (a *Agent) writeCDI(p *picture) error {
	var units []cdi.Unit
	var slots []cdi.Slot
	for i := range p.selection.Pools {
		s := &p.selection.Pools[i]
		if slot := s.Pool.Spec.Slot; slot != nil {
			if _, err := os.Stat(cdi.NodePath(a.cfg.HostDev, slot.HostPath)); err == nil {
				slots = append(slots, cdi.Slot{Name: cdi.SlotName(s.Pool.Spec.ResourceName), HostPath: slot.HostPath})
			}
		}
	}
	for _, u := range a.offered(p) {
		if u.Group >= 0 {
			units = append(units, cdi.Unit{ID: u.ID.String(), Group: u.Group, VFIODevs: a.deviceNodes(p, u)})
		}
	}
	spec, err := cdi.Build(units, slots)
	if err != nil {
		return err
	}
	changed, err := cdi.Write(a.cfg.CDIDir, spec)
	if changed {
		a.cfg.Log.Info("wrote CDI specification", "units", len(units), "slots", len(slots))
	}
	return err
}

// deviceNodes are the nodes by which iommufd's way opens a unit's functions, none
// where the kernel does not make them.
func (a *Agent) deviceNodes(p *picture, u *topology.Unit) []string {
	if !p.host.IOMMUFD {
		return nil
	}
	var out []string
	for _, m := range u.Members {
		f := p.host.Function(m)
		if f == nil || f.VFIODev == "" {
			continue
		}
		if _, err := os.Stat(cdi.NodePath(a.cfg.HostDev, cdi.DeviceNode+f.VFIODev)); err == nil {
			out = append(out, f.VFIODev)
		}
	}
	return out
}

// offered are the units that a pool offers now or that a pod holds.
func (a *Agent) offered(p *picture) []*topology.Unit {
	seen := map[topology.Address]bool{}
	var out []*topology.Unit
	for i := range p.selection.Pools {
		for _, o := range p.selection.Pools[i].Offers {
			if !seen[o.Unit.ID] && (o.NotReady == "" || a.held(o.Unit.ID.String())) {
				seen[o.Unit.ID] = true
				out = append(out, o.Unit)
			}
		}
	}
	for _, c := range a.ledger.Claims() {
		for _, id := range c.IDs {
			addr, err := topology.ParseAddress(id)
			if err != nil || seen[addr] || p.unitOf[addr] == nil || p.unitOf[addr].ID != addr {
				continue
			}
			seen[addr] = true
			out = append(out, p.unitOf[addr])
		}
	}
	slices.SortFunc(out, func(x, y *topology.Unit) int { return x.ID.Compare(y.ID) })
	return out
}

func (a *Agent) held(unit string) bool { return a.ledger.Holds(unit) }

// sweep keeps the ledger in step with the pods.
func (a *Agent) sweep(ctx context.Context) error {
	told := map[types.UID]bool{} // see tellRefused
	slow := time.NewTicker(30 * time.Second)
	defer slow.Stop()
	for {
		changed := a.pods.Changed()
		if a.pods.Synced() {
			a.ledger.Sweep(ctx)
			a.tellRefused(told)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-slow.C:
			if err := a.ledger.Reconcile(ctx); err != nil {
				a.cfg.Log.Warn("cannot compare allocations with kubelet's", "err", err)
			}
			continue
		case <-changed:
		}
		select { // pods change in bursts
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
