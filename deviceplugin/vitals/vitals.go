// Package vitals remembers what a PCI function was like at its best, and says when it
// has got worse: a link that has lost lanes or is down, a reset method that is gone,
// fatal errors on the link.
//
// It is for package agent, which calls it for every function that is on offer.
//
// Traps:
//   - A slot with fewer lanes than the card is no fault: a link is measured by its own
//     best, not by what it could have.
//   - Speed is not judged: idle functions lower it to save power, and raise it again.
//   - A function that sleeps so deeply that its registers read as ones shows lanes that
//     cannot be; those say nothing.
package vitals

import (
	"fmt"
	"strings"
	"sync"

	"github.com/kubevfio/kubevfio/topology"
)

// Signs are what is looked at.
type Signs struct {
	Link   topology.Link
	Resets []string
	// Fatal counts fatal errors; Counted is false where the host does not.
	Fatal   uint64
	Counted bool
}

// Watch remembers. The zero value is ready; its methods are safe for concurrent use.
type Watch struct {
	mu sync.Mutex
	by map[topology.Address]*memory
}

type memory struct {
	width   int
	resets  []string
	fatal   uint64
	counted bool
	// hurt is how many fatal errors there were when the function was last cleaned.
	hurt uint64
}

// Look compares the signs with those before and says what is worse, empty when
// nothing is. What recovers is well again, but for fatal errors: they count until the
// function is [Watch.Cleaned].
func (w *Watch) Look(a topology.Address, s Signs) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = map[topology.Address]*memory{}
	}
	m := w.by[a]
	if m == nil {
		// Errors from before our time are somebody else's: the function is on offer.
		m = &memory{hurt: s.Fatal}
		w.by[a] = m
	}
	m.fatal, m.counted = s.Fatal, s.Counted
	if m.fatal < m.hurt {
		m.hurt = m.fatal // the function came anew, and its counters with it
	}
	if len(s.Resets) > 0 {
		m.resets = s.Resets
	}
	width, known := s.Link.Width, s.Link.MaxWidth > 0 && s.Link.Width <= s.Link.MaxWidth
	if known {
		m.width = max(m.width, width)
	}
	switch {
	case s.Counted && m.fatal > m.hurt:
		return fmt.Sprintf("its PCIe link reported %d fatal errors (aer_dev_fatal) since it was last reset", m.fatal-m.hurt)
	case known && width == 0 && m.width > 0:
		return "its PCIe link is down"
	case known && width < m.width:
		return fmt.Sprintf("its PCIe link has %d of the %d lanes that it had", width, m.width)
	case len(s.Resets) == 0 && len(m.resets) > 0:
		return "it cannot be reset any more: it had the methods " + strings.Join(m.resets, ", ")
	}
	return ""
}

// Cleaned says that a function was reset and checked between tenants.
func (w *Watch) Cleaned(a topology.Address) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.by[a]; m != nil {
		m.hurt = m.fatal
	}
}

// Keep forgets functions that are not on offer any more.
func (w *Watch) Keep(offered func(topology.Address) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for a := range w.by {
		if !offered(a) {
			delete(w.by, a)
		}
	}
}
