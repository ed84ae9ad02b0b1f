package devicetopology

import (
	"sync"
	"sync/atomic"
	"time"

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

// hold keeps units of a node taken for a pod that NodeInfo does not show: its
// Binding may still be on its way, or it was deleted by force and its guest may
// still run. It is immutable.
type hold struct {
	assignment *v1alpha1.Assignment
	until      time.Time
}

// Times for which a hold lasts when nothing ends it earlier.
const (
	// holdBinding outlives the API server's limit for one request (60 s).
	holdBinding = 90 * time.Second
	// holdForced is how long a node may take to end a guest whose pod is gone.
	holdForced = 2 * time.Minute
)

// ledger holds reservations by pod UID and holds by node. It is safe for
// concurrent use.
type ledger struct {
	mu    sync.RWMutex
	pods  map[types.UID]*reservation
	holds map[string]map[types.UID]*hold
	// epoch changes with the holds: node states that were memoised before are
	// then built anew. Reservations need no epoch: they change together with
	// NodeInfo.
	epoch atomic.Int64
	now   func() time.Time
}

func newLedger() *ledger {
	return &ledger{pods: map[types.UID]*reservation{}, holds: map[string]map[types.UID]*hold{}, now: time.Now}
}

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

// hold keeps units taken on a node for a pod for some time.
func (l *ledger) hold(node string, uid types.UID, a *v1alpha1.Assignment, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds[node] == nil {
		l.holds[node] = map[types.UID]*hold{}
	}
	l.holds[node][uid] = &hold{assignment: a, until: l.now().Add(d)}
	l.epoch.Add(1)
}

// release ends the holds of a pod on a node, or on all nodes when it is empty.
func (l *ledger) release(node string, uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, hs := range l.holds {
		if _, ok := hs[uid]; ok && (node == "" || n == node) {
			delete(hs, uid)
			if len(hs) == 0 {
				delete(l.holds, n)
			}
			l.epoch.Add(1)
		}
	}
}

// held are the assignments of a node's holds that are not over. next is when
// the first of them ends, zero when there is none.
func (l *ledger) held(node string) (out map[types.UID]*v1alpha1.Assignment, next time.Time) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	hs := l.holds[node]
	if len(hs) == 0 {
		return nil, time.Time{}
	}
	now := l.now()
	out = map[types.UID]*v1alpha1.Assignment{}
	for uid, h := range hs {
		if h.until.Before(now) {
			continue
		}
		out[uid] = h.assignment
		if next.IsZero() || h.until.Before(next) {
			next = h.until
		}
	}
	return out, next
}

// sweep removes holds that are over and reports whether there were any.
func (l *ledger) sweep() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, any := l.now(), false
	for n, hs := range l.holds {
		for uid, h := range hs {
			if h.until.Before(now) {
				delete(hs, uid)
				any = true
			}
		}
		if len(hs) == 0 {
			delete(l.holds, n)
		}
	}
	if any {
		l.epoch.Add(1)
	}
	return any
}
