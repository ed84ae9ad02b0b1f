package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/deviceplugin/cdi"
	"github.com/kubevfio/kubevfio/deviceplugin/plugin"
	"github.com/kubevfio/kubevfio/topology"
)

// running is a plugin that runs.
type running struct {
	plugin *plugin.Plugin
	// slot is the character device of a virtual resource, empty for units.
	slot string
	stop context.CancelFunc
	done chan struct{}
}

// wanted is what a resource shall offer.
type wanted struct {
	slot    *v1alpha1.SlotSpec
	adopt   bool
	devices map[string]plugin.Device
}

// file is the character device of a virtual resource, empty for units.
func (w *wanted) file() string {
	if w.slot == nil {
		return ""
	}
	return w.slot.HostPath
}

// updatePlugins tells ledger and plugins what each resource offers. A resource
// that no pool has any more keeps its plugin while a pod holds a unit of it.
func (a *Agent) updatePlugins(ctx context.Context, p *picture) {
	want := map[string]*wanted{}
	for i := range p.selection.Pools {
		s := &p.selection.Pools[i]
		spec := &s.Pool.Spec
		w := want[spec.ResourceName]
		if w == nil {
			w = &wanted{devices: map[string]plugin.Device{}}
			want[spec.ResourceName] = w
		}
		// Of two pools with one resource name the stricter mode counts.
		w.adopt = spec.Mode == "Adopt" && (w.adopt || len(w.devices) == 0)
		if spec.Slot != nil {
			w.slot = spec.Slot
			a.addSlots(w, spec)
			continue
		}
		hints := spec.TopologyHints == nil || *spec.TopologyHints
		for _, o := range s.Offers {
			d := plugin.Device{ID: o.Unit.ID.String(), Healthy: o.NotReady == "" && p.faults[o.Unit.ID] == ""}
			if hints && o.Unit.NUMA != topology.NUMAUnknown {
				d.NUMA = &o.Unit.NUMA
			}
			w.devices[d.ID] = d
		}
	}
	for _, c := range a.ledger.Claims() {
		w := want[c.Resource]
		if w == nil {
			if a.plugins[c.Resource] == nil {
				continue
			}
			w = &wanted{devices: map[string]plugin.Device{}}
			want[c.Resource] = w
		}
		for _, id := range c.IDs {
			if _, ok := w.devices[id]; !ok {
				w.devices[id] = plugin.Device{ID: id}
			}
		}
	}
	for resource, w := range want {
		if w.slot == nil {
			a.ledger.SetPool(resource, w.adopt, slices.Collect(maps.Keys(w.devices)))
		}
		r := a.plugins[resource]
		if r != nil && r.slot != w.file() {
			a.stopPlugin(resource)
			r = nil
		}
		if r == nil {
			r = a.startPlugin(ctx, resource, w)
		}
		r.plugin.SetDevices(slices.Collect(maps.Values(w.devices)))
	}
	for resource := range a.plugins {
		if want[resource] == nil {
			a.stopPlugin(resource)
			a.ledger.RemovePool(resource)
		}
	}
	served := make([]*plugin.Plugin, 0, len(a.plugins))
	for _, r := range a.plugins {
		served = append(served, r.plugin)
	}
	a.mu.Lock()
	a.served = served
	a.mu.Unlock()
}

// addSlots makes the slots of a virtual resource; they are healthy while the
// host has the character device.
func (a *Agent) addSlots(w *wanted, spec *v1alpha1.DevicePoolSpec) {
	_, err := os.Stat(cdi.NodePath(a.cfg.HostDev, spec.Slot.HostPath))
	count := int(spec.Slot.Count)
	if count == 0 {
		count = 1000
	}
	name := cdi.SlotName(spec.ResourceName)
	for i := range count {
		id := fmt.Sprintf("%s-%d", name, i)
		w.devices[id] = plugin.Device{ID: id, Healthy: err == nil}
	}
}

func (a *Agent) startPlugin(ctx context.Context, resource string, w *wanted) *running {
	cfg := plugin.Config{
		Resource: resource, Dir: a.cfg.PluginDir, Watcher: a.watcher, Observer: a.metrics,
		Log: a.cfg.Log.With("part", "plugin"),
	}
	var h plugin.Handler
	if w.slot != nil {
		h = slots{agent: a, resource: resource, file: w.file()}
	} else {
		cfg.Steer, cfg.PreStart = true, true
		cfg.OnRegister = a.ledger.KubeletStarted
		h = units{agent: a, resource: resource}
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &running{plugin: plugin.New(cfg, h), slot: w.file(), stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		_ = r.plugin.Run(ctx) // it ends with ctx only
	}()
	a.plugins[resource] = r
	return r
}

func (a *Agent) stopPlugin(resource string) {
	r := a.plugins[resource]
	r.stop()
	<-r.done
	delete(a.plugins, resource)
}

func (a *Agent) stopPlugins() {
	for _, r := range a.plugins {
		r.stop()
	}
	for _, r := range a.plugins {
		<-r.done
	}
}

// slots serves a virtual resource: no identity, no steering.
type slots struct {
	agent          *Agent
	resource, file string
}

// Preferred implements plugin.Handler; kubelet is told not to ask.
func (slots) Preferred(_ context.Context, available, must []string, size int) ([]string, error) {
	out := slices.Clone(must)
	for _, id := range available {
		if len(out) >= size {
			break
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out, nil
}

// Allocate implements plugin.Handler.
func (s slots) Allocate(context.Context, []string) (*pluginapi.ContainerAllocateResponse, error) {
	if s.agent.cfg.DeviceFiles == ByPath {
		return &pluginapi.ContainerAllocateResponse{Devices: []*pluginapi.DeviceSpec{deviceFile(s.file)}}, nil
	}
	return &pluginapi.ContainerAllocateResponse{CdiDevices: []*pluginapi.CDIDevice{{Name: cdi.Name(cdi.SlotName(s.resource))}}}, nil
}

// PreStart implements plugin.Handler.
func (slots) PreStart(context.Context, []string) error { return nil }

// units serves the units of a resource.
type units struct {
	agent    *Agent
	resource string
}

// Preferred implements plugin.Handler.
func (u units) Preferred(ctx context.Context, available, must []string, size int) ([]string, error) {
	return u.agent.ledger.Preferred(ctx, u.resource, available, must, size)
}

// Allocate implements plugin.Handler. Everything in the answer must stay right
// over reboots, for kubelet replays it: addresses and CDI names. Paths of group
// nodes do not, so PreStart looks at them again.
func (u units) Allocate(ctx context.Context, ids []string) (*pluginapi.ContainerAllocateResponse, error) {
	g, err := u.agent.ledger.Allocate(ctx, u.resource, ids)
	if err != nil {
		return nil, err
	}
	u.agent.countGrant(u.resource, g)
	r := Response(u.resource, g.Units, u.agent.membersOf)
	if u.agent.cfg.DeviceFiles == ByPath {
		if err := u.agent.byPath(r, g.Units); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// PreStart implements plugin.Handler: the pod is the right one, the units are
// clean and on the bus.
func (u units) PreStart(ctx context.Context, ids []string) error {
	if _, err := u.agent.ledger.Verify(ctx, u.resource, ids); err != nil {
		return err
	}
	if u.agent.cfg.DeviceFiles == ByPath {
		if err := u.agent.sameGroups(ids); err != nil {
			return err
		}
	}
	return u.agent.keeper.Wait(ctx, ids)
}

// Response is what a container gets for units, in their order.
func Response(resource string, unitIDs []string, members func(string) []string) *pluginapi.ContainerAllocateResponse {
	name, all := v1alpha1.EnvName(resource), strings.Join(unitIDs, ",")
	type generic struct {
		DeviceID string   `json:"deviceID"`
		Members  []string `json:"members,omitempty"`
	}
	info := map[string]map[string]generic{}
	out := &pluginapi.ContainerAllocateResponse{Envs: map[string]string{
		v1alpha1.EnvKubeVirtPrefix + name: all,
		v1alpha1.EnvSRIOVPrefix + name:    all,
	}}
	for _, id := range unitIDs {
		g := generic{DeviceID: id}
		if m := members(id); len(m) > 1 {
			g.Members = m
		}
		info[id] = map[string]generic{"generic": g}
		out.CdiDevices = append(out.CdiDevices, &pluginapi.CDIDevice{Name: cdi.Name(id)})
	}
	if b, err := json.Marshal(info); err == nil {
		out.Envs[v1alpha1.EnvSRIOVPrefix+name+v1alpha1.EnvSRIOVInfoSuffix] = string(b)
	}
	return out
}

// membersOf lists the functions of a unit, leader first.
func (a *Agent) membersOf(id string) []string {
	p := a.last()
	addr, err := topology.ParseAddress(id)
	if p == nil || err != nil || p.unitOf[addr] == nil {
		return nil
	}
	var out []string
	for _, m := range p.unitOf[addr].Members {
		out = append(out, m.String())
	}
	return out
}
