package agent

import (
	"sync"

	"github.com/kubevfio/kubevfio/topology"
)

// handedOver is a unit that a pod has got or left, or that was reset between the
// two; resource is empty for a reset.
type handedOver struct{ unit, resource string }

// hands are the units that changed hands and that the loop has not heard of. Safe
// for concurrent use; the zero value is ready.
type hands struct {
	mu    sync.Mutex
	units []handedOver
	wake  chan struct{}
}

func (h *hands) add(resource string, units ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, u := range units {
		h.units = append(h.units, handedOver{u, resource})
	}
	select {
	case h.channelLocked() <- struct{}{}:
	default:
	}
}

// changed has something to receive once a unit has changed hands.
func (h *hands) changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.channelLocked()
}

func (h *hands) channelLocked() chan struct{} {
	if h.wake == nil {
		h.wake = make(chan struct{}, 1)
	}
	return h.wake
}

// take gives the units and forgets them.
func (h *hands) take() []handedOver {
	h.mu.Lock()
	defer h.mu.Unlock()
	drain(h.channelLocked())
	out := h.units
	h.units = nil
	return out
}

// handed settles what follows from units' having changed hands: in most cases only
// that it is written down, for a unit that is offered and well stays so, and a new
// look at thousands of units beside an admission would cost the next one its time.
// It says false when that is not the case and the node must be looked at.
func (a *Agent) handed(p *picture) bool {
	units := a.hands.take()
	if p == nil {
		return false
	}
	up := map[topology.Address]string{}
	for _, h := range units {
		addr, err := topology.ParseAddress(h.unit)
		if err != nil {
			return false
		}
		s, o := p.selection.Find(addr)
		switch {
		case o == nil, o.Unit.ID != addr, o.NotReady != "":
			return false
		case h.resource != "" && h.resource != s.Pool.Spec.ResourceName:
			return false
		case h.resource == "" && a.sick(p, o.Unit, up) != p.faults[addr]:
			return false // only a reset tells more of a unit's health
		}
	}
	if err := a.remember(p); err != nil {
		a.cfg.Log.Warn("what pods hold could not be written down, trying again", "err", err)
		return false
	}
	return true
}
