package bind

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/pool"
	"github.com/kubevfio/kubevfio/topology"
)

// Config is what a reconciler works with; Writer is needed.
type Config struct {
	Writer host.Writer
	// Variants of the running kernel, for pools with driver "auto"; nil binds
	// vfio-pci for them.
	Variants *host.Variants
	// Parallel is how many devices are worked on at once, 4 when zero.
	Parallel int
	// Now is the clock, time.Now when nil.
	Now func() time.Time
	Log *slog.Logger
}

// Pauses between attempts at a device that failed.
const (
	firstPause = 10 * time.Second
	lastPause  = 5 * time.Minute
)

// Reconciler binds. Its method is called by one goroutine at a time.
type Reconciler struct {
	cfg      Config
	failures map[topology.Address]*failure
	// ready are physical functions that were brought up since the start, with
	// the number of VFs that they had.
	ready map[topology.Address]int
	freed atomic.Bool // see Freed
}

// failure is the last attempt at a device that failed.
type failure struct {
	reason string
	want   string
	pause  time.Duration
	next   time.Time
	// inUse: somebody had the device.
	inUse bool
}

// New makes a reconciler.
func New(c Config) *Reconciler {
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Reconciler{cfg: c, failures: map[topology.Address]*failure{}, ready: map[topology.Address]int{}}
}

// Freed says that a device is no longer in use: at the next call those that were
// are tried without waiting for their time. Safe for concurrent use.
func (r *Reconciler) Freed() { r.freed.Store(true) }

// Result is what a call did.
type Result struct {
	// Changed: the host is not what it was; read it and select again.
	Changed bool
	// Reasons why units or physical functions are not as the pools ask, by unit
	// ID or address of the physical function.
	Reasons map[topology.Address]string
	// Retry is when another call may get further; zero when nothing failed.
	Retry time.Time
}

// job is one device to change.
type job struct {
	id   topology.Address
	want string // tells whether a failure is of the same wish
	do   func(context.Context) error
	ok   func() // called after success, by one goroutine; may be nil
}

// Reconcile makes the changes that the selection asks for. With paused it
// changes nothing and says so where something is to be done.
func (r *Reconciler) Reconcile(ctx context.Context, h *topology.Host, sel *pool.Selection, paused bool) Result {
	if r.freed.Swap(false) {
		for _, f := range r.failures {
			if f.inUse {
				f.next, f.pause = time.Time{}, firstPause/2
			}
		}
	}
	res := r.run(ctx, r.vfJobs(h, sel), paused)
	if res.Changed {
		// Units may consist of functions that came or went just now.
		return res
	}
	units := r.run(ctx, r.unitJobs(h, sel), paused)
	maps.Copy(units.Reasons, res.Reasons)
	if !res.Retry.IsZero() {
		units.retryAt(res.Retry)
	}
	return units
}

func (r *Reconciler) vfJobs(h *topology.Host, sel *pool.Selection) []job {
	// The first pool that names a number decides; 0 takes what is there.
	want := map[topology.Address]int{}
	for i := range sel.Pools {
		for _, p := range sel.Pools[i].PFs {
			if want[p.Address] == 0 {
				want[p.Address] = p.Count
			}
		}
	}
	var jobs []job
	for _, pf := range slices.SortedFunc(maps.Keys(want), topology.Address.Compare) {
		f := h.Function(pf)
		if f == nil {
			continue
		}
		n := want[pf]
		if n == 0 {
			n = f.NumVFs
		}
		if done, ok := r.ready[pf]; n == 0 || f.NumVFs == n && ok && done == n {
			continue
		}
		jobs = append(jobs, job{
			id:   pf,
			want: fmt.Sprintf("%d VFs", n),
			do:   func(ctx context.Context) error { return r.cfg.Writer.SetVFs(ctx, pf, n) },
			ok:   func() { r.ready[pf] = n },
		})
	}
	return jobs
}

func (r *Reconciler) unitJobs(h *topology.Host, sel *pool.Selection) []job {
	var jobs []job
	for i := range sel.Pools {
		p := &sel.Pools[i]
		if p.Pool.Spec.Driver == pool.DriverKeep {
			continue
		}
		for _, o := range p.Offers {
			if o.NotReady == "" || o.Never {
				continue
			}
			u := o.Unit
			want := p.Pool.Spec.Driver
			if want == "" {
				want = pool.DriverDefault
			}
			jobs = append(jobs, job{id: u.ID, want: want, do: func(ctx context.Context) error {
				return r.bindUnit(ctx, h, u, want)
			}})
		}
	}
	return jobs
}

// bindUnit binds all members, or leaves all as they were.
func (r *Reconciler) bindUnit(ctx context.Context, h *topology.Host, u *topology.Unit, want string) error {
	primary := map[topology.Address]bool{}
	for _, p := range u.Primaries {
		primary[p] = true
	}
	var done []topology.Address
	for _, m := range u.Members {
		f := h.Function(m)
		if f == nil {
			return fmt.Errorf("%s is not there", m)
		}
		driver := pool.DriverDefault
		switch {
		case !primary[m]:
			// Any VFIO driver will do for a companion.
			if f.VFIO() {
				continue
			}
		case want == pool.DriverAuto:
			driver = r.cfg.Variants.Best(f.Modalias)
		default:
			driver = want
		}
		err := r.cfg.Writer.Bind(ctx, m, driver)
		if err == nil {
			if !f.VFIO() {
				done = append(done, m)
			}
			continue
		}
		// Half a unit is of use to nobody: its functions go back to the host.
		back := context.WithoutCancel(ctx)
		for _, d := range done {
			if berr := r.cfg.Writer.Bind(back, d, ""); berr != nil {
				err = errors.Join(err, fmt.Errorf("give %s back: %w", d, berr))
			}
		}
		return err
	}
	return nil
}

// run does jobs, several at a time, and keeps the accounts of failures.
func (r *Reconciler) run(ctx context.Context, jobs []job, paused bool) Result {
	res := Result{Reasons: map[topology.Address]string{}}
	now := r.cfg.Now()
	var due []job
	for _, j := range jobs {
		f := r.failures[j.id]
		switch {
		case paused:
			res.Reasons[j.id] = "the node is paused; to be done: " + j.want
		case f != nil && f.want == j.want && now.Before(f.next):
			res.Reasons[j.id] = f.reason
			res.retryAt(f.next)
		default:
			due = append(due, j)
		}
	}
	errs := make([]error, len(due))
	var wg sync.WaitGroup
	slots := make(chan struct{}, r.cfg.Parallel)
	for i := range due {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = due[i].do(ctx)
		})
	}
	wg.Wait()
	for i, j := range due {
		err := errs[i]
		if err == nil {
			delete(r.failures, j.id)
			if j.ok != nil {
				j.ok()
			}
			res.Changed = true
			r.cfg.Log.Info("prepared device", "address", j.id.String(), "for", j.want)
			continue
		}
		f := r.failures[j.id]
		if f == nil || f.want != j.want {
			f = &failure{want: j.want, pause: firstPause / 2}
			r.failures[j.id] = f
		}
		if f.reason != err.Error() {
			// Once per reason, not once per attempt.
			r.cfg.Log.Warn("cannot prepare device", "address", j.id.String(), "for", j.want, "error", err)
		}
		f.reason, f.inUse = err.Error(), errors.Is(err, host.ErrInUse)
		f.pause = min(2*f.pause, lastPause)
		f.next = r.cfg.Now().Add(f.pause)
		res.Reasons[j.id] = f.reason
		res.retryAt(f.next)
	}
	return res
}

func (res *Result) retryAt(t time.Time) {
	if res.Retry.IsZero() || t.Before(res.Retry) {
		res.Retry = t
	}
}
