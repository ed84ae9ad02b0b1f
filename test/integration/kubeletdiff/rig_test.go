package kubeletdiff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/kubevfio/kubevfio/deviceplugin/agent"
	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
	"github.com/kubevfio/kubevfio/deviceplugin/plugin"
)

// handler is the agent's without the host behind it.
type handler struct {
	ledger   *handoff.Ledger
	resource string
}

func (h handler) Preferred(ctx context.Context, available, must []string, size int) ([]string, error) {
	return h.ledger.Preferred(ctx, h.resource, available, must, size)
}

func (h handler) Allocate(ctx context.Context, ids []string) (*pluginapi.ContainerAllocateResponse, error) {
	g, err := h.ledger.Allocate(ctx, h.resource, ids)
	if err != nil {
		return nil, err
	}
	return agent.Response(h.resource, g.Units, func(string) []string { return nil }), nil
}

func (h handler) PreStart(ctx context.Context, ids []string) error {
	_, err := h.ledger.Verify(ctx, h.resource, ids)
	return err
}

// process is one life of the agent.
type process struct {
	ledger  *handoff.Ledger
	plugins map[string]*plugin.Plugin
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// rig holds world, kubelet and agent together.
type rig struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	w       *world
	k       *kubelet
	a       *process
	step    int
	sick    map[string]bool
	calm    bool // no faults at all
	foul    bool // news lag and get lost
	mu      sync.Mutex
	reports map[string][]handoff.Report // by pod UID
	all     []handoff.Report
	late    sync.WaitGroup // events on their way
	heard   int            // len(all) before the pod's admission
	stats   map[string]int
}

func newRig(t *testing.T, seed uint64, policy, scope string) *rig {
	r := &rig{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), sick: map[string]bool{},
		reports: map[string][]handoff.Report{}, stats: map[string]int{},
		k: &kubelet{policy: policy, scope: scope},
	}
	r.w = &world{rng: r.rng, clock: time.Unix(1_700_000_000, 0), inf: &informer{pods: map[typesUID]*podObject{}, changed: make(chan struct{})}}
	r.must(loseCheckpoint())
	r.must(r.k.start(nil))
	r.k.ready = true
	r.startAgent(nil)
	t.Cleanup(func() {
		r.stopAgent()
		if err := r.k.stop(); err != nil {
			t.Errorf("stop kubelet: %v", err)
		}
	})
	r.must(r.k.waitCapacity(r.capacity(), 5*time.Second))
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.fail("%v", err)
	}
}

func (r *rig) fail(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("step %d, policy %s, scope %s, replay with -seed=%d: %s", r.step, r.k.policy, r.k.scope, r.seed, fmt.Sprintf(format, args...))
}

func (r *rig) trace(format string, args ...any) {
	if *traceFlag {
		fmt.Printf("%6d %s\n", r.step, fmt.Sprintf(format, args...))
	}
}

func (r *rig) count(what string) { r.stats[what]++ }

// capacity that kubelet shall show.
func (r *rig) capacity() map[string]int {
	out := map[string]int{}
	for _, p := range pools() {
		for _, u := range p.units {
			if !r.sick[u.String()] {
				out[p.resource]++
			}
		}
	}
	return out
}

func (r *rig) startAgent(claims []handoff.Claim) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &process{plugins: map[string]*plugin.Plugin{}, cancel: cancel}
	a.ledger = handoff.New(handoff.Config{
		Node: node, Kubelet: r.k, Informer: r.w.inf, Changed: r.w.inf.Changed, Holders: r.k, Wait: 25 * time.Millisecond,
		Report: func(rep handoff.Report) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reports[rep.PodUID] = append(r.reports[rep.PodUID], rep)
			r.all = append(r.all, rep)
		},
	})
	var log *slog.Logger
	if *traceFlag {
		log = slog.New(slog.NewTextHandler(os.Stdout, nil))
	}
	watcher := plugin.NewWatcher(pluginDir, 50*time.Millisecond, log)
	a.done.Go(func() { _ = watcher.Run(ctx) })
	for _, pool := range pools() {
		var ids []string
		for _, u := range pool.units {
			ids = append(ids, u.String())
		}
		a.ledger.SetPool(pool.resource, false, ids)
	}
	a.ledger.Restore(claims)
	_ = a.ledger.Reconcile(ctx) // kubelet may be down; as the agent does
	for _, pool := range pools() {
		p := plugin.New(plugin.Config{
			Resource: pool.resource, Dir: pluginDir, Watcher: watcher, Steer: true, PreStart: true,
			Batch: 5 * time.Millisecond, Settle: 40 * time.Millisecond, StreamWait: 2 * time.Second,
			OnRegister: a.ledger.KubeletStarted, Log: log,
		}, handler{a.ledger, pool.resource})
		a.plugins[pool.resource] = p
	}
	r.a = a
	r.setDevices()
	for _, p := range a.plugins {
		a.done.Go(func() { _ = p.Run(ctx) })
	}
}

func (r *rig) setDevices() {
	for _, pool := range pools() {
		var devices []plugin.Device
		for _, u := range pool.units {
			numa := numaOf(u)
			devices = append(devices, plugin.Device{ID: u.String(), Healthy: !r.sick[u.String()], NUMA: &numa})
		}
		r.a.plugins[pool.resource].SetDevices(devices)
	}
}

func (r *rig) stopAgent() {
	r.a.cancel()
	r.a.done.Wait()
}

// reported says whether the agent told of the pod.
func (r *rig) reported(p *pod) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.reports[p.uid()]) > 0
}

// pick takes a random pod that fits.
func (r *rig) pick(fits func(*pod) bool) *pod {
	var out []*pod
	for _, p := range r.w.pods {
		if fits(p) {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out[r.rng.IntN(len(out))]
}

// syncKubelet gives kubelet the pods that are bound: one batch.
func (r *rig) syncKubelet() {
	batch := r.w.queue
	r.w.queue = nil
	if len(batch) == 0 {
		return
	}
	batch = slices.DeleteFunc(batch, func(p *pod) bool { return p.gone })
	// What is on its way may arrive while kubelet waits for the plugin.
	if n := len(r.w.events); n > 0 && r.rng.IntN(2) == 0 {
		late := r.w.events
		r.w.events = nil
		r.late.Go(func() {
			time.Sleep(3 * time.Millisecond)
			for _, f := range late {
				f(r.w.inf)
			}
		})
		defer r.late.Wait() // an informer never mixes up the order
	}
	for _, p := range r.k.order(batch) {
		r.mu.Lock()
		r.heard = len(r.all)
		r.mu.Unlock()
		r.k.admit([]*pod{p}, func(p *pod) (bool, bool) {
			if r.calm {
				return false, false
			}
			before, after := r.rng.IntN(12) == 0, r.rng.IntN(20) == 0
			p.vetoed = before || after
			return before, after
		})
		kind := "foreign"
		if p.assigned {
			kind = "assigned"
		}
		switch {
		case p.admitted:
			r.count(kind + " admitted")
		case p.vetoed:
			r.count(kind + " rejected by others")
		case p.rejected:
			r.count(kind + " refused: " + r.why(p))
		}
		r.trace("admission of %s (%s): admitted=%v %v", p.api.Name, kind, p.admitted, r.lastReport(p))
	}
}

// why classes a refusal; what the ledger did not say is kubelet's own.
func (r *rig) why(p *pod) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := append(slices.Clone(r.reports[p.uid()]), r.reports[""]...)
	if len(l) == 0 || r.heard == len(r.all) {
		return "by kubelet"
	}
	last := r.all[len(r.all)-1]
	for _, class := range []error{handoff.ErrNoPod, handoff.ErrAmbiguous, handoff.ErrMismatch, handoff.ErrReserved, handoff.ErrUnit, handoff.ErrUnsure} {
		if errors.Is(last.Err, class) {
			return class.Error()
		}
	}
	return string(last.Kind)
}

func (r *rig) lastReport(p *pod) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.reports[p.uid()]
	if len(l) == 0 {
		return ""
	}
	return l[len(l)-1].Message
}

// flush sends kubelet's pending status writes of a pod to the API.
func (r *rig) flush(p *pod) {
	for _, f := range p.pending {
		f()
	}
	p.pending = nil
	if !p.gone {
		r.w.send(p)
	}
}

// end lets a pod's containers end: kubelet knows at once, the API later.
func (r *rig) end(p *pod) {
	p.ended = true
	p.pending = append(p.pending, func() {
		p.api = p.api.DeepCopy()
		p.api.Status.Phase = "Succeeded"
	})
}

// remove deletes a pod from the API; kubelet forgets it when it hears of it.
func (r *rig) remove(p *pod) {
	p.gone = true
	p.pending = nil
	r.w.send(p)
}

// kubeletForgets lets kubelet hear of deletions.
func (r *rig) kubeletForgets() {
	r.k.list = slices.DeleteFunc(r.k.list, func(p *pod) bool {
		if p.gone && (p.ended || p.rejected || !p.admitted) {
			p.dropped = true
			return true
		}
		return false
	})
}

func (r *rig) restartKubelet() {
	lost := r.rng.IntN(4) == 0
	wait := r.rng.IntN(5) > 0
	r.trace("kubelet restarts, checkpoint lost: %v, plugins first: %v", lost, wait)
	r.must(r.k.stop())
	if lost {
		r.must(loseCheckpoint())
	}
	var running, batch []*pod
	for _, p := range r.w.pods {
		if p.seen && !p.dropped && p.admitted && !p.ended && len(p.started) > 0 {
			running = append(running, p)
		}
		if p.gone {
			p.dropped, p.ended = true, true // kubelet kills what it finds orphaned
			continue
		}
		if !p.seen {
			continue
		}
		if p.ended {
			batch = append(batch, p)
			continue
		}
		if p.rejected && r.rng.IntN(2) == 0 {
			r.flush(p) // the refusal made it to the API
		} else if p.rejected {
			p.pending, p.rejected = nil, false // it did not: the pod is admitted anew
		}
		batch = append(batch, p)
	}
	r.must(r.k.start(running))
	if wait {
		r.must(r.k.waitCapacity(r.capacity(), 10*time.Second))
	}
	was := map[*pod]bool{}
	for _, p := range batch {
		was[p] = p.admitted
		p.admitted = false
	}
	r.k.admit(batch, func(*pod) (bool, bool) { return false, false })
	for _, p := range batch {
		if was[p] && p.rejected {
			r.count("pods that a kubelet restart cost")
			p.ended = true // kubelet kills what it refuses
		}
	}
	r.k.ready = true
	r.must(r.k.waitCapacity(r.capacity(), 10*time.Second))
	r.syncKubelet()
}

func (r *rig) restartAgent() {
	forget := r.rng.IntN(3) == 0
	claims := r.a.ledger.Claims()
	r.trace("agent restarts, state file lost: %v", forget)
	r.stopAgent()
	if forget {
		claims = nil
	}
	// What happens while no agent runs:
	if r.rng.IntN(2) == 0 {
		if p := r.pick(func(p *pod) bool { return p.live() }); p != nil {
			r.end(p)
			r.flush(p)
		}
	}
	r.startAgent(claims)
	r.must(r.k.waitCapacity(r.capacity(), 10*time.Second))
}
