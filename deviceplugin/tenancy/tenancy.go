// Package tenancy cleans units between tenants: a unit that a pod has left is
// reset and checked before a container of the next pod starts.
//
// It is for package agent. A unit stays offered meanwhile, for kubelet and
// scheduler have freed it already; only the start of the next container waits.
// A unit whose reset fails is a fault, tried again with growing pauses.
//
// Trap: a unit that some process still holds open is never reset under it.
package tenancy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// ErrNotClean is the class of errors about units that are not clean.
var ErrNotClean = errors.New("unit is not clean")

// Cleaner resets one unit and checks it; an error names the address and reason.
// It may take long.
type Cleaner interface {
	Clean(ctx context.Context, unit string) error
}

// Config of a Keeper; Cleaner is required.
type Config struct {
	Cleaner Cleaner
	// Changed is called, without locks, when a fault appears or goes.
	Changed func()
	// Observe hears of each attempt, for metrics.
	Observe func(unit string, d time.Duration, err error)
	// Grace is how long a unit may fail to be cleaned before it is a fault: its
	// former user may take a moment to let go. Default 5 s.
	Grace time.Duration
	// Retry is the first pause after a failure, doubled up to 5 minutes; default
	// 500 ms.
	Retry time.Duration
	Log   *slog.Logger
}

// Keeper knows which units are dirty.
type Keeper struct {
	cfg Config
	ctx context.Context // the life of the workers, set by Run

	mu    sync.Mutex
	dirty map[string]*job
}

type job struct {
	since time.Time
	fault string
	done  chan struct{} // closed when clean
	kick  chan struct{} // a waiter wants it now
	busy  bool          // a worker is on it
}

// New builds a keeper.
func New(cfg Config) *Keeper {
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	if cfg.Grace == 0 {
		cfg.Grace = 5 * time.Second
	}
	if cfg.Retry == 0 {
		cfg.Retry = 500 * time.Millisecond
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{cfg: cfg, dirty: map[string]*job{}}
}

// Run lets the workers work until ctx ends; units may be marked before.
func (k *Keeper) Run(ctx context.Context) {
	k.mu.Lock()
	k.ctx = ctx
	for unit, j := range k.dirty {
		k.startLocked(unit, j)
	}
	k.mu.Unlock()
	<-ctx.Done()
}

// Soil marks a unit as left by its tenant; it is cleaned in the background.
func (k *Keeper) Soil(unit string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dirty[unit] != nil {
		return
	}
	j := &job{since: time.Now(), done: make(chan struct{}), kick: make(chan struct{}, 1)}
	k.dirty[unit] = j
	k.startLocked(unit, j)
}

func (k *Keeper) startLocked(unit string, j *job) {
	if k.ctx == nil || j.busy {
		return
	}
	j.busy = true
	go k.work(k.ctx, unit, j)
}

// Forget drops a unit that is no longer the agent's.
func (k *Keeper) Forget(unit string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if j := k.dirty[unit]; j != nil {
		close(j.done)
		delete(k.dirty, unit)
	}
}

func (k *Keeper) work(ctx context.Context, unit string, j *job) {
	pause := k.cfg.Retry
	for {
		start := time.Now()
		err := k.cfg.Cleaner.Clean(ctx, unit)
		if ctx.Err() != nil {
			return
		}
		k.cfg.Observe(unit, time.Since(start), err)
		k.mu.Lock()
		if k.dirty[unit] != j {
			k.mu.Unlock()
			return
		}
		was := j.fault
		if err == nil {
			close(j.done)
			delete(k.dirty, unit)
		} else if time.Since(j.since) >= k.cfg.Grace {
			j.fault = err.Error()
		}
		now := j.fault
		k.mu.Unlock()
		switch {
		case err == nil:
			k.cfg.Log.Info("unit is clean for its next tenant", "unit", unit, "seconds", time.Since(j.since).Seconds())
			if was != "" {
				k.cfg.Changed()
			}
			return
		case was != now:
			k.cfg.Log.Warn("unit cannot be cleaned, trying again", "unit", unit, "err", err)
			k.cfg.Changed()
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
			pause = min(2*pause, 5*time.Minute)
		case <-j.kick:
			t.Stop()
			if rest := k.cfg.Retry - time.Since(start); rest > 0 {
				time.Sleep(rest)
			}
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// Wait returns when all the units are clean, or with [ErrNotClean] and the
// reason when ctx ends first.
func (k *Keeper) Wait(ctx context.Context, units []string) error {
	for _, unit := range units {
		for {
			k.mu.Lock()
			j := k.dirty[unit]
			k.mu.Unlock()
			if j == nil {
				break
			}
			select {
			case j.kick <- struct{}{}:
			default:
			}
			select {
			case <-j.done:
			case <-time.After(time.Second):
				// Kick it again: its pause may have grown long.
			case <-ctx.Done():
				k.mu.Lock()
				why := j.fault
				k.mu.Unlock()
				if why == "" {
					why = "its reset has not ended yet"
				}
				return fmt.Errorf("%w: %s: %s", ErrNotClean, unit, why)
			}
		}
	}
	return nil
}

// Faults gives the units that could not be cleaned, with reasons.
func (k *Keeper) Faults() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]string{}
	for unit, j := range k.dirty {
		if j.fault != "" {
			out[unit] = j.fault
		}
	}
	return out
}

// Dirty lists the units that are not clean, sorted.
func (k *Keeper) Dirty() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.dirty))
}
