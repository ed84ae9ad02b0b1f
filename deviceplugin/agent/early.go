package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/bind"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
)

// early prepares a node that has booted again before the API server has said
// which pools there are: by what they asked for when the agent last looked. A
// busy node takes its time for that answer, and binding takes time as well.
//
// It binds only functions that were bound before the reboot (the host's state
// file knows them, by address and card): a function that is new waits for the
// pools' word. Virtual functions are made wherever the remembered pools want
// them. What no pool asks for any more is taken back once they have spoken.
type early struct {
	file   string
	fs     host.FS
	state  *host.State
	writer host.Writer
	binder *bind.Reconciler
	log    *slog.Logger

	kept  string                   // the file's content
	bound []topology.Address       // by us, before the pools spoke
	vfs   map[topology.Address]int // physical functions that we gave VFs, and their number before
}

// plan is what the pools asked of this node.
type plan struct {
	// BootID of the node when this was written.
	BootID string            `json:"bootID"`
	Paused bool              `json:"paused,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Pools  []plannedPool     `json:"pools"`
}

type plannedPool struct {
	Name string                  `json:"name"`
	Spec v1alpha1.DevicePoolSpec `json:"spec"`
}

// keep writes down what the pools ask for; it does nothing when that is what is
// written already.
func (e *early) keep(bootID string, p *picture) error {
	m := plan{BootID: bootID, Paused: p.paused, Labels: p.node.Labels, Pools: []plannedPool{}}
	for i := range p.selection.Pools {
		o := p.selection.Pools[i].Pool
		m.Pools = append(m.Pools, plannedPool{o.Name, o.Spec})
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the pools to remember: %w", err)
	}
	if string(b) == e.kept {
		return nil
	}
	if err := replaceFile(e.file, b); err != nil {
		return fmt.Errorf("remember the pools: %w", err)
	}
	e.kept = string(b)
	return nil
}

// due gives the plan of an earlier boot, nil when there is nothing to do early.
func (e *early) due(bootID string) *plan {
	b, err := os.ReadFile(e.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var m plan
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		e.log.Warn("the pools of the last boot are not readable; waiting for the API server", "file", e.file, "err", err)
		return nil
	}
	if bootID == "" || m.BootID == bootID || m.Paused || len(m.Pools) == 0 {
		return nil
	}
	return &m
}

// prepare does what the plan asks for.
func (e *early) prepare(ctx context.Context, m *plan) bind.Result {
	var pools []v1alpha1.DevicePool
	for _, p := range m.Pools {
		pools = append(pools, v1alpha1.DevicePool{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Spec: p.Spec})
	}
	e.log.Info("the node has booted: preparing its devices as they were", "pools", len(pools))
	e.vfs = map[topology.Address]int{}
	var res bind.Result
	for range 2 { // virtual functions first, then what is bound
		h, err := host.Read(ctx, e.fs)
		if err != nil {
			e.log.Warn("cannot read the host; waiting for the API server", "err", err)
			break
		}
		former := e.state.Former(h)
		sel := pool.Select(pool.Input{Pools: pools, Host: h, Units: topology.Units(h), Labels: m.Labels, Former: former})
		for i := range sel.Pools {
			sel.Pools[i].Offers = slices.DeleteFunc(sel.Pools[i].Offers, func(o pool.Offer) bool {
				return slices.ContainsFunc(o.Unit.Primaries, func(a topology.Address) bool { _, ok := former[a]; return !ok })
			})
		}
		changed := res.Changed
		res = e.binder.Reconcile(ctx, h, &sel, false)
		e.bound = append(e.bound, res.Bound...)
		maps.Copy(e.vfs, res.VFs)
		if !res.Changed {
			res.Changed = changed
			break
		}
	}
	return res
}

// takeBack undoes what was done early and no pool asks for; it says whether it
// changed the host. The first selection by the pools' own word decides.
func (e *early) takeBack(ctx context.Context, sel *pool.Selection, paused bool) bool {
	bound, vfs := e.bound, e.vfs
	e.bound, e.vfs = nil, nil
	for i := range sel.Pools {
		for _, o := range sel.Pools[i].Offers {
			bound = slices.DeleteFunc(bound, func(a topology.Address) bool { return slices.Contains(o.Unit.Members, a) })
		}
		for _, pf := range sel.Pools[i].PFs {
			delete(vfs, pf.Address)
		}
	}
	if len(bound)+len(vfs) == 0 {
		return false
	}
	if paused {
		e.log.Warn("devices were prepared at boot that no pool asks for any more; the node is paused", "functions", bound, "virtualFunctionsOf", slices.Collect(maps.Keys(vfs)))
		return false
	}
	for _, a := range bound {
		if err := e.writer.Bind(ctx, a, ""); err != nil {
			e.log.Warn("cannot give a device back that was prepared at boot and that no pool asks for any more", "address", a.String(), "err", err)
			continue
		}
		e.log.Info("gave back a device that was prepared at boot: no pool asks for it any more", "address", a.String())
	}
	for pf, n := range vfs {
		if err := e.writer.SetVFs(ctx, pf, n); err != nil {
			e.log.Warn("cannot remove virtual functions that were made at boot and that no pool asks for any more", "address", pf.String(), "err", err)
		}
	}
	return true
}
