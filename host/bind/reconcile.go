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
	// LinkUp brings an interface of the host's network namespace up; nil leaves
	// interfaces alone. It is called beside everything else.
	LinkUp func(ctx context.Context, ifname string) error
	// LinkDone is called when an attempt to bring a physical function's interfaces up
	// has ended, well or not: the next call tells its reason. May be nil.
	LinkDone func()
	// Parallel is how many units are bound at once, 4 when zero.
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

// Reconciler binds. Reconcile is called by one goroutine at a time.
type Reconciler struct {
	cfg      Config
	failures map[topology.Address]*failure
	links    links
	freed    atomic.Bool // see Freed
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

// again takes a failed attempt down; news is true when the reason is another one,
// which is said once and not once per attempt.
func (f *failure) again(err error, now time.Time) (news bool) {
	news = f.reason != err.Error()
	f.reason = err.Error()
	f.pause = min(max(2*f.pause, firstPause), lastPause)
	f.next = now.Add(f.pause)
	return news
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
	return &Reconciler{
		cfg: c, failures: map[topology.Address]*failure{},
		links: links{raise: c.LinkUp, done: c.LinkDone, now: c.Now, log: c.Log, pfs: map[topology.Address]*link{}},
	}
}

// Freed says that a device is no longer in use: at the next call those that were
// are tried without waiting for their time. Safe for concurrent use.
func (r *Reconciler) Freed() { r.freed.Store(true) }

// Coming tells whether the interfaces of a physical function are down only because
// they are just being brought up. Safe for concurrent use.
func (r *Reconciler) Coming(pf topology.Address) bool { return r.links.coming(pf) }

// Result is what a call did.
type Result struct {
	// Changed: the host is not what it was; read it and select again.
	Changed bool
	// Bound are the functions that went to VFIO, and VFs the physical functions whose
	// number of virtual ones was changed, with the number before: what to undo.
	Bound []topology.Address
	VFs   map[topology.Address]int
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
	ok   func(*Result) // tells what was done; one call at a time, after success
	// waits: for the kernel's locks and a card's own pauses rather than for the
	// processor, so that it holds nobody up.
	waits bool
}

// Reconcile makes the changes that the selection asks for. With paused it
// changes nothing and says so where something is to be done.
func (r *Reconciler) Reconcile(ctx context.Context, h *topology.Host, sel *pool.Selection, paused bool) Result {
	if r.freed.Swap(false) {
		for _, f := range r.failures {
			if f.inUse {
				f.next, f.pause = time.Time{}, 0
			}
		}
	}
	want := vfWishes(h, sel)
	vfs, moving := r.vfJobs(h, want)
	still := func(u *topology.Unit) bool { return !dependsOn(h, u, moving) }
	coming := newResult()
	if !paused {
		coming = r.wantLinks(ctx, h, want)
	}
	res := r.run(ctx, append(vfs, r.unitJobs(h, sel, still)...), paused)
	res.add(coming)
	// Where the number of virtual functions stays as it is after all, those that are
	// there are of use.
	failed := map[topology.Address]bool{}
	for pf := range moving {
		if _, ok := res.Reasons[pf]; ok {
			failed[pf] = true
		}
	}
	if len(failed) > 0 {
		res.add(r.run(ctx, r.unitJobs(h, sel, func(u *topology.Unit) bool { return dependsOn(h, u, failed) }), paused))
	}
	return res
}

// dependsOn tells whether a unit has one of these physical functions, or virtual
// functions of one. A function that comes to a unit by the making of virtual ones
// shares a group with their physical function.
func dependsOn(h *topology.Host, u *topology.Unit, pfs map[topology.Address]bool) bool {
	return slices.ContainsFunc(u.Members, func(m topology.Address) bool {
		f := h.Function(m)
		return pfs[m] || f != nil && f.PF != nil && pfs[*f.PF]
	})
}

// vfWishes says how many VFs each physical function shall have. The first pool
// that names a number decides; what no pool names stays as it is.
func vfWishes(h *topology.Host, sel *pool.Selection) map[topology.Address]int {
	want := map[topology.Address]int{}
	for i := range sel.Pools {
		for _, p := range sel.Pools[i].PFs {
			if want[p.Address] == 0 {
				want[p.Address] = p.Count
			}
		}
	}
	for pf, n := range want {
		f := h.Function(pf)
		switch {
		case f == nil:
			delete(want, pf)
		case n == 0:
			want[pf] = f.NumVFs
		}
	}
	return want
}

// vfJobs makes and removes VFs; moving are the physical functions in question.
func (r *Reconciler) vfJobs(h *topology.Host, want map[topology.Address]int) (jobs []job, moving map[topology.Address]bool) {
	moving = map[topology.Address]bool{}
	for _, pf := range slices.SortedFunc(maps.Keys(want), topology.Address.Compare) {
		n := want[pf]
		if n <= 0 || h.Function(pf).NumVFs == n {
			continue
		}
		moving[pf] = true
		was := h.Function(pf).NumVFs
		jobs = append(jobs, job{
			id:    pf,
			want:  fmt.Sprintf("%d VFs", n),
			do:    func(ctx context.Context) error { return r.cfg.Writer.SetVFs(ctx, pf, n) },
			ok:    func(res *Result) { res.VFs[pf] = was },
			waits: true,
		})
	}
	return jobs, moving
}

// wantLinks has interfaces brought up where the virtual functions are there.
func (r *Reconciler) wantLinks(ctx context.Context, h *topology.Host, want map[topology.Address]int) Result {
	res := newResult()
	for pf, n := range want {
		f := h.Function(pf)
		if n <= 0 || f.NumVFs != n {
			continue
		}
		why, retry := r.links.want(ctx, pf, n, f.Net)
		if why != "" {
			res.Reasons[pf] = why
		}
		if !retry.IsZero() {
			res.retryAt(retry)
		}
	}
	return res
}

func (r *Reconciler) unitJobs(h *topology.Host, sel *pool.Selection, of func(*topology.Unit) bool) []job {
	var jobs []job
	for i := range sel.Pools {
		p := &sel.Pools[i]
		if p.Pool.Spec.Driver == pool.DriverKeep {
			continue
		}
		for _, o := range p.Offers {
			if o.NotReady == "" || o.Never || !of(o.Unit) {
				continue
			}
			u := o.Unit
			want := p.Pool.Spec.Driver
			if want == "" {
				want = pool.DriverDefault
			}
			var bound []topology.Address
			jobs = append(jobs, job{
				id: u.ID, want: want,
				do: func(ctx context.Context) (err error) {
					bound, err = r.bindUnit(ctx, h, u, want)
					return err
				},
				ok: func(res *Result) { res.Bound = append(res.Bound, bound...) },
			})
		}
	}
	return jobs
}

// bindUnit binds all members, or leaves all as they were; bound are those that VFIO
// did not have before.
func (r *Reconciler) bindUnit(ctx context.Context, h *topology.Host, u *topology.Unit, want string) (bound []topology.Address, err error) {
	primary := map[topology.Address]bool{}
	for _, p := range u.Primaries {
		primary[p] = true
	}
	for _, m := range u.Members {
		f := h.Function(m)
		if f == nil {
			return nil, fmt.Errorf("%s is not there", m)
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
				bound = append(bound, m)
			}
			continue
		}
		// Half a unit is of use to nobody: its functions go back to the host.
		back := context.WithoutCancel(ctx)
		for _, d := range bound {
			if berr := r.cfg.Writer.Bind(back, d, ""); berr != nil {
				err = errors.Join(err, fmt.Errorf("give %s back: %w", d, berr))
			}
		}
		return nil, err
	}
	return bound, nil
}

// run does jobs, several at a time, and keeps the accounts of failures.
func (r *Reconciler) run(ctx context.Context, jobs []job, paused bool) Result {
	res := newResult()
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
	var mu sync.Mutex // of the accounts
	var wg sync.WaitGroup
	slots := make(chan struct{}, r.cfg.Parallel)
	for _, j := range due {
		if !j.waits { // not in the goroutine: there may be thousands
			slots <- struct{}{}
		}
		wg.Go(func() {
			if !j.waits {
				defer func() { <-slots }()
			}
			err := j.do(ctx)
			mu.Lock()
			defer mu.Unlock()
			r.account(j, err, &res)
		})
	}
	wg.Wait()
	return res
}

// account takes down what became of a job.
func (r *Reconciler) account(j job, err error, res *Result) {
	if err == nil {
		delete(r.failures, j.id)
		res.Changed = true
		j.ok(res)
		r.cfg.Log.Info("prepared device", "address", j.id.String(), "for", j.want)
		return
	}
	f := r.failures[j.id]
	if f == nil || f.want != j.want {
		f = &failure{want: j.want}
		r.failures[j.id] = f
	}
	if f.again(err, r.cfg.Now()) {
		r.cfg.Log.Warn("cannot prepare device", "address", j.id.String(), "for", j.want, "error", err)
	}
	f.inUse = errors.Is(err, host.ErrInUse)
	res.Reasons[j.id] = f.reason
	res.retryAt(f.next)
}

func newResult() Result {
	return Result{Reasons: map[topology.Address]string{}, VFs: map[topology.Address]int{}}
}

// add takes another call's outcome in.
func (res *Result) add(o Result) {
	res.Changed = res.Changed || o.Changed
	res.Bound = append(res.Bound, o.Bound...)
	maps.Copy(res.VFs, o.VFs)
	maps.Copy(res.Reasons, o.Reasons)
	if !o.Retry.IsZero() {
		res.retryAt(o.Retry)
	}
}

func (res *Result) retryAt(t time.Time) {
	if res.Retry.IsZero() || t.Before(res.Retry) {
		res.Retry = t
	}
}
