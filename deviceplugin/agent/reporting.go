package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/deviceplugin/cdi"
	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
	"github.com/kubevfio/kubevfio/deviceplugin/kubeletconfig"
	"github.com/kubevfio/kubevfio/deviceplugin/metrics"
	"github.com/kubevfio/kubevfio/deviceplugin/seccomp"
	"github.com/kubevfio/kubevfio/deviceplugin/uevent"
	"github.com/kubevfio/kubevfio/host/inventory"
	"github.com/kubevfio/kubevfio/topology"
)

func (a *Agent) startEvents() {
	a.eventing.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: a.kube.CoreV1().Events("")})
}

func (a *Agent) installSeccomp() (bool, error) { return seccomp.Install(a.cfg.SeccompDir) }

// report is the ledger's voice: events on the pod, metrics, log.
func (a *Agent) report(r handoff.Report) {
	a.metrics.Handoff(r.Resource, string(r.Kind))
	a.cfg.Log.Warn("hand-off "+string(r.Kind), "resource", r.Resource, "pod", r.Namespace+"/"+r.Name, "podUID", r.PodUID, "message", r.Message)
	if r.PodUID == "" {
		return
	}
	reason := map[handoff.Kind]string{
		handoff.Refused: "DeviceRefused", handoff.Mismatch: "DeviceMismatch", handoff.Adopted: "DeviceAdopted",
	}[r.Kind]
	a.events.Event(&corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: r.Namespace, Name: r.Name, UID: types.UID(r.PodUID),
	}, corev1.EventTypeWarning, reason, r.Resource+": "+r.Message)
}

func (a *Agent) countGrant(resource string, g handoff.Grant) {
	outcome := "unassigned"
	if c, ok := a.ledger.Owner(g.Units[0]); ok && c.Assigned {
		outcome = "assigned"
	}
	a.metrics.Handoff(resource, outcome)
	a.cfg.Log.Info("gave units to a pod", "resource", resource, "pod", g.Namespace+"/"+g.Name, "container", g.Container,
		"units", g.Units, "outcome", outcome)
	a.hands.add(resource, g.Units...)
}

// released marks a unit that its pod has left.
func (a *Agent) released(unit string, c handoff.Claim) {
	a.cfg.Log.Info("unit is free again", "unit", unit, "resource", c.Resource, "pod", c.Namespace+"/"+c.Name)
	a.keeper.Soil(unit)
	a.binder.Freed()
	a.gone.add(c.PodUID)
	a.hands.add(c.Resource, unit)
}

// cleaned hears of each reset between tenants.
func (a *Agent) cleaned(unit string, d time.Duration, err error) {
	a.metrics.Reset(unit, d, err)
	if err == nil {
		a.binder.Freed() // what was still open a moment ago is not now
	}
	a.hands.add("", unit)
}

// inventory builds the NodeInventory's content.
func (a *Agent) inventory(ctx context.Context, p *picture) v1alpha1.NodeInventorySpec {
	return inventory.Build(inventory.Input{
		Host: p.host, Selection: &p.selection, Faults: p.faults, AgentVersion: a.cfg.Version,
		Kubelet: a.kubeletPolicy(ctx), Launcher: a.launcherSupport(p),
	})
}

// kubeletPolicy asks kubelet; when it does not answer the last answer stands.
func (a *Agent) kubeletPolicy(ctx context.Context) v1alpha1.KubeletPolicy {
	if a.kubelet == nil {
		return v1alpha1.KubeletPolicy{}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	body, err := a.kubelet.Get(ctx, kubeletconfig.Path)
	var policy v1alpha1.KubeletPolicy
	if err == nil {
		policy, err = kubeletconfig.Parse(body)
	}
	if err != nil {
		a.cfg.Log.Warn("cannot read kubelet's policies", "err", err)
		return a.policy
	}
	a.policy = policy
	return policy
}

// poolStatus writes this node's part of the pools' status.
func (a *Agent) poolStatus(ctx context.Context, p *picture) error {
	covered := map[string]bool{}
	var errs []error
	for i := range p.selection.Pools {
		s := &p.selection.Pools[i]
		covered[s.Pool.Name] = true
		entry := &v1alpha1.DevicePoolNodeStatus{Reasons: append([]string{}, s.Reasons...)}
		for _, o := range s.Offers {
			entry.Total++
			why := o.NotReady
			if fault := p.faults[o.Unit.ID]; fault != "" {
				why = fault
			}
			if why == "" {
				entry.Ready++
			} else {
				entry.Reasons = append(entry.Reasons, why)
			}
		}
		for _, pf := range s.PFs {
			if why := p.faults[pf.Address]; why != "" {
				entry.Reasons = append(entry.Reasons, why)
			}
		}
		for _, l := range s.Lost {
			entry.Reasons = append(entry.Reasons, fmt.Sprintf("%s belongs to pool %s", l.Address, l.Winner))
		}
		if slot := s.Pool.Spec.Slot; slot != nil {
			entry.Total = max(slot.Count, 1)
			if _, err := os.Stat(cdi.NodePath(a.cfg.HostDev, slot.HostPath)); err == nil {
				entry.Ready = entry.Total
			} else {
				entry.Reasons = append(entry.Reasons, "the node has no "+slot.HostPath)
			}
		}
		if entry.Total == 0 && len(entry.Reasons) == 0 {
			entry = nil // nothing to say about this node
		}
		err := a.publisher.PoolStatus(ctx, s.Pool.Name, a.cfg.Node, entry)
		if err == nil {
			err = a.publisher.Sums(ctx, s.Pool)
		}
		errs = append(errs, err)
	}
	for name := range a.spoken {
		if !covered[name] {
			errs = append(errs, a.publisher.PoolStatus(ctx, name, a.cfg.Node, nil))
		}
	}
	a.spoken = covered
	return errors.Join(errs...)
}

// countUnits counts for the gauges.
func (a *Agent) countUnits() map[metrics.Unit]int {
	counts := map[metrics.Unit]int{}
	p := a.last()
	if p == nil {
		return counts
	}
	for i := range p.selection.Pools {
		s := &p.selection.Pools[i]
		for _, o := range s.Offers {
			u := metrics.Unit{Pool: s.Pool.Name, Resource: s.Pool.Spec.ResourceName, State: "free", NUMA: o.Unit.NUMA}
			switch {
			case o.NotReady != "" || p.faults[o.Unit.ID] != "":
				u.State = "not_ready"
			case a.held(o.Unit.ID.String()):
				u.State = "held"
			}
			counts[u]++
		}
	}
	return counts
}

// listen turns the kernel's events into new looks.
func (a *Agent) listen(ctx context.Context) error {
	for ctx.Err() == nil {
		err := uevent.Listen(ctx, filepath.Join(a.cfg.Proc, "1/ns/net"), func(e uevent.Event) {
			if e.Address == nil {
				if e.Action == "lost" {
					a.rescanAll(ctx)
				}
				a.kick()
				return
			}
			start := time.Now()
			changed, err := a.rescan(*e.Address)
			a.metrics.Rescan("partial", time.Since(start))
			if err != nil {
				a.cfg.Log.Warn("cannot read a function after its event", "address", e.Address.String(), "err", err)
			}
			if changed {
				a.kick()
			}
		})
		if ctx.Err() != nil {
			break
		}
		a.cfg.Log.Warn("no device events; the slow poll goes on", "err", err)
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func (a *Agent) rescan(addr topology.Address) (bool, error) {
	if a.scanner.Host() == nil {
		return false, nil // the first look is still to come
	}
	return a.scanner.Rescan(addr)
}

func (a *Agent) rescanAll(ctx context.Context) {
	if _, err := a.scanner.Scan(ctx); err != nil && ctx.Err() == nil {
		a.cfg.Log.Warn("cannot read the host after lost events", "err", err)
	}
}
