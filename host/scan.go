package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubevfio/kubevfio/topology"
)

// readLimit is how long one function may take to read. Some attributes take
// the device's lock in the kernel, which a stuck unbind holds for ever. The limit
// is generous because an overloaded node must not lose devices by it.
const readLimit = 30 * time.Second

// errReadStuck is the reason of functions whose reading has not returned.
var errReadStuck = errors.New("a read has not returned: the kernel holds the device")

// stuckReads are functions with a read that has not returned. They are left out
// until it does, so that each costs one thread and not one per scan.
type stuckReads struct {
	mu    sync.Mutex
	since map[topology.Address]time.Time
}

func (s *stuckReads) add(a topology.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since[a] = time.Now()
}

func (s *stuckReads) remove(a topology.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.since, a)
}

// reason is why a function must not be read now, nil when it may.
func (s *stuckReads) reason(a topology.Address) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.since[a]; ok {
		return fmt.Errorf("%w since %s", errReadStuck, t.UTC().Format(time.RFC3339))
	}
	return nil
}

// States of a place in a scan: who first moves it from pending decides.
const (
	pending = iota
	read
	abandoned
)

// scan is one reading of all functions by several workers.
type scan struct {
	fsys    FS
	kids    *children
	stuck   *stuckReads
	places  []place
	out     []topology.Function
	reasons []error
	state   []atomic.Int32
	next    atomic.Int64
	wg      sync.WaitGroup
}

// progress is what a worker is at: the place's number plus one, and since when
// in nanoseconds.
type progress struct {
	at, since, end atomic.Int64
}

func (s *scan) run(ctx context.Context, workers int) {
	var all []*progress
	start := func(lo, hi int) *progress {
		p := &progress{}
		s.wg.Add(1)
		go s.work(ctx, p, lo, hi)
		return p
	}
	for range workers {
		all = append(all, start(0, 0))
	}
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	tick := time.NewTicker(readLimit / 20)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case now := <-tick.C:
			for i, p := range all {
				j := int(p.at.Load()) - 1
				if j < 0 || now.UnixNano()-p.since.Load() < int64(readLimit) {
					continue
				}
				// Marked before the worker may unmark it.
				s.stuck.add(s.places[j].addr)
				if !s.state[j].CompareAndSwap(pending, abandoned) {
					s.stuck.remove(s.places[j].addr)
					continue
				}
				// The worker is lost to the kernel; another one goes on with
				// what it had taken.
				s.reasons[j] = errReadStuck
				all[i] = start(j+1, int(p.end.Load()))
				s.wg.Done()
			}
		}
	}
}

// work reads the places lo to hi, then whatever is left. A worker that was
// abandoned ends without a word when the kernel lets it go.
func (s *scan) work(ctx context.Context, p *progress, lo, hi int) {
	w := newWorker(s.fsys, s.kids)
	for ctx.Err() == nil {
		p.end.Store(int64(hi))
		for j := lo; j < hi; j++ {
			pl := &s.places[j]
			if err := s.stuck.reason(pl.addr); err != nil {
				s.reasons[j] = err
				continue
			}
			p.since.Store(time.Now().UnixNano())
			p.at.Store(int64(j) + 1)
			var f topology.Function
			err := w.read(pl, &f)
			if !s.state[j].CompareAndSwap(pending, read) {
				s.stuck.remove(pl.addr)
				return
			}
			p.at.Store(0)
			s.out[j], s.reasons[j] = f, err
		}
		lo = int(s.next.Add(chunk)) - chunk
		if lo >= len(s.places) {
			break
		}
		hi = min(lo+chunk, len(s.places))
	}
	s.wg.Done()
}

// guarded reads one function in a goroutine that is given up when the kernel
// does not return. The worker is the goroutine's own then.
func guarded(stuck *stuckReads, w *worker, a topology.Address) (f topology.Function, lost bool, err error) {
	if err := stuck.reason(a); err != nil {
		return f, false, err
	}
	type result struct {
		f   topology.Function
		err error
	}
	done := make(chan result, 1)
	var state atomic.Int32
	go func() {
		f, err := readOne(w, a)
		if !state.CompareAndSwap(pending, read) {
			stuck.remove(a)
			return
		}
		done <- result{f, err}
	}()
	timer := time.NewTimer(readLimit)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.f, false, r.err
	case <-timer.C:
	}
	// Marked before the goroutine may unmark it.
	stuck.add(a)
	if !state.CompareAndSwap(pending, abandoned) {
		stuck.remove(a)
		r := <-done
		return r.f, false, r.err
	}
	return f, true, errReadStuck
}
