package devicetopology

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// reservation is our decision for one pod, kept from Reserve until the pod is
// deleted. It is immutable.
type reservation struct {
	node string
	// assignment as it goes into the Binding.
	assignment *v1alpha1.Assignment
	// encoded is its annotation value.
	encoded string
	// live: between Reserve and the end of binding. A reservation that is not
	// live is a tombstone of a failed cycle or the memory of a bound pod; the
	// pod's annotation then comes first.
	live bool
}

// ledger holds the reservations by pod UID.
type ledger struct {
	mu   sync.RWMutex
	pods map[types.UID]*reservation
}

func newLedger() *ledger { return &ledger{pods: map[types.UID]*reservation{}} }

func (l *ledger) get(uid types.UID) *reservation {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.pods[uid]
}

func (l *ledger) put(uid types.UID, r *reservation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pods[uid] = r
}

// settle turns a live reservation into a tombstone or the memory of a bound pod.
func (l *ledger) settle(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.pods[uid]; r != nil && r.live {
		c := *r
		c.live = false
		l.pods[uid] = &c
	}
}

func (l *ledger) drop(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pods, uid)
}
