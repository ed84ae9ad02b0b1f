package plugin

import (
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// Between admissions kubelet starts containers, for a tenth of a second and more.
// That is when garbage is best collected: a collection that falls into a call
// makes it two or three times as long, and kubelet's calls about thousands of
// devices leave enough to bring one on every few dozen.
const (
	// quietAfter is how long after an Allocate the next call of the same admission
	// would have come.
	quietAfter = 2 * time.Millisecond
	// quietShare is the part of the way to the next collection from which it is
	// worth having at once.
	quietShare = 0.25
)

// quiet collects garbage between admissions. The zero value is ready, and safe for
// concurrent use.
type quiet struct{ pending atomic.Bool }

// soon collects in a moment if there is enough.
func (q *quiet) soon() {
	if q.pending.Swap(true) {
		return
	}
	time.AfterFunc(quietAfter, func() {
		q.pending.Store(false)
		if worthCollecting() {
			runtime.GC()
		}
	})
}

// worthCollecting asks the runtime how far it is on its way from the last
// collection to the next (package runtime/metrics).
func worthCollecting() bool {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/goal:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	for i := range s {
		if s[i].Value.Kind() != metrics.KindUint64 {
			return false // a runtime that does not say
		}
	}
	live, goal, now := s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()
	return now > live && goal > live && float64(now-live) > quietShare*float64(goal-live)
}
