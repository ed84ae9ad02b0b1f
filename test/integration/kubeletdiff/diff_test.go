package kubeletdiff

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
)

type (
	typesUID  = types.UID
	podObject = corev1.Pod
)

// check holds the three promises.
func (r *rig) check() {
	owner := map[string]string{}
	for _, p := range r.w.pods {
		if !p.live() {
			continue
		}
		h := handoff.FromPod(p.api)
		for _, c := range p.api.Spec.Containers {
			actual := r.k.devices(p, c.Name)
			for resource, ids := range actual {
				for _, id := range ids {
					if other := owner[id]; other != "" && other != p.api.Name {
						r.fail("unit %s is in two live pods: %s and %s", id, other, p.api.Name)
					}
					owner[id] = p.api.Name
				}
				if h.Assignment == nil {
					continue
				}
				var want []string
				for _, u := range h.Assignment.Containers[c.Name][resource] {
					want = append(want, u.String())
				}
				slices.Sort(want)
				if slices.Equal(want, ids) {
					continue
				}
				if p.started[c.Name] {
					r.fail("pod %s container %s runs with %v of %s, assigned are %v", p.api.Name, c.Name, ids, resource, want)
				}
				r.count("differences that the start caught")
				// It may be told late, but once kubelet answers it must be.
				holders, pods := r.k.holdersFail, r.k.podsFail
				r.k.holdersFail, r.k.podsFail = false, false
				if err := r.a.ledger.Reconcile(r.t.Context()); err != nil {
					r.fail("reconcile: %v", err)
				}
				r.k.holdersFail, r.k.podsFail = holders, pods
				if !r.reported(p) {
					r.fail("pod %s container %s holds %v of %s, assigned are %v, and nobody told", p.api.Name, c.Name, ids, resource, want)
				}
			}
		}
	}
}

// stormy is one random step.
func (r *rig) stormy() {
	switch n := r.rng.IntN(1000); {
	case n < 200:
		for range 1 + r.rng.IntN(2) {
			ours := r.rng.IntN(3) > 0
			ok := r.w.create(ours)
			r.trace("create, ours=%v: %v", ours, ok)
		}
	case n < 420:
		r.syncKubelet()
	case n < 560:
		p := r.pick(func(p *pod) bool { return p.live() && len(p.started) < len(p.api.Spec.Containers) })
		if p != nil {
			err := r.k.startContainers(p)
			r.trace("start %s: %v", p.api.Name, err)
			if err != nil {
				r.count("starts refused")
			} else {
				r.count("starts")
			}
		}
	case n < 640:
		if p := r.pick(func(p *pod) bool { return p.live() }); p != nil {
			r.trace("end of %s", p.api.Name)
			r.end(p)
		}
	case n < 740:
		if p := r.pick(func(p *pod) bool { return len(p.pending) > 0 }); p != nil {
			r.trace("status of %s reaches the API", p.api.Name)
			r.flush(p)
		}
	case n < 800:
		if p := r.pick(func(p *pod) bool { return !p.gone && (p.ended || p.rejected || !p.seen) }); p != nil {
			r.trace("delete %s", p.api.Name)
			r.remove(p)
		}
	case n < 830:
		r.kubeletForgets()
	case n < 930:
		r.w.deliver(1 + r.rng.IntN(4))
	case n < 940:
		if len(r.w.events) > 0 {
			r.trace("an informer event is lost")
			i := r.rng.IntN(len(r.w.events))
			r.w.events = slices.Delete(r.w.events, i, i+1)
		}
	case n < 950:
		r.w.relist()
	case n < 960:
		r.a.ledger.Sweep(r.t.Context())
	case n < 968:
		_ = r.a.ledger.Reconcile(r.t.Context()) // may fail: that is weather
	case n < 976:
		r.k.podsFail = !r.k.podsFail && r.rng.IntN(2) == 0
	case n < 982:
		r.k.holdersFail = !r.k.holdersFail && r.rng.IntN(2) == 0
	case n < 991:
		pool := pools()[r.rng.IntN(2)]
		u := pool.units[r.rng.IntN(len(pool.units))].String()
		r.sick[u] = !r.sick[u]
		if len(r.sick) > 0 && r.rng.IntN(3) == 0 {
			clear(r.sick)
		}
		r.trace("health of %s: sick=%v", u, r.sick[u])
		r.setDevices()
		if r.rng.IntN(2) == 0 {
			r.must(r.k.waitCapacity(r.capacity(), 5*time.Second))
		}
	case n < 996:
		r.restartAgent()
	default:
		r.restartKubelet()
	}
	r.clearUp()
	r.w.forget()
}

// clearUp keeps the weather changing: for a while news travel at once and pods
// that are refused or done are removed, then everything lags again. It also
// keeps the node from filling up, where nothing would happen any more.
func (r *rig) clearUp() {
	if r.rng.IntN(40) == 0 {
		r.foul = !r.foul
		r.trace("foul weather: %v", r.foul)
	}
	busy := 0
	for _, p := range r.w.pods {
		if p.live() {
			busy++
		}
	}
	if busy > 5 && r.rng.IntN(2) == 0 {
		if p := r.pick(func(p *pod) bool { return p.live() }); p != nil {
			r.trace("end of %s, the node is full", p.api.Name)
			r.end(p)
		}
	}
	if r.foul {
		return
	}
	r.k.podsFail, r.k.holdersFail = false, false
	for _, p := range r.w.pods {
		if len(p.pending) > 0 {
			r.flush(p)
		}
		if !p.gone && (p.ended || p.rejected) && r.rng.IntN(3) == 0 {
			r.remove(p)
		}
	}
	r.w.deliver(len(r.w.events))
	r.kubeletForgets()
}

// sunny is a step without faults: pods of our scheduler only, prompt news.
func (r *rig) sunny() {
	switch n := r.rng.IntN(10); {
	case n < 4:
		for range 1 + r.rng.IntN(4) {
			r.w.create(true)
		}
		r.syncKubelet()
	case n < 7:
		if p := r.pick(func(p *pod) bool { return p.live() && len(p.started) < len(p.api.Spec.Containers) }); p != nil {
			r.must(r.k.startContainers(p))
			r.flush(p)
			r.count("starts")
		}
	default:
		if p := r.pick(func(p *pod) bool { return p.live() }); p != nil {
			r.end(p)
			r.flush(p)
			r.remove(p)
			r.kubeletForgets()
		}
	}
	r.w.deliver(len(r.w.events))
	r.w.forget()
	for _, p := range r.w.pods {
		if p.rejected {
			r.fail("pod %s was refused in calm weather: %s", p.api.Name, r.lastReport(p))
		}
	}
}

func (r *rig) summary() string {
	var keys []string
	for k := range r.stats {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, " %s %d;", k, r.stats[k])
	}
	return b.String()
}

func seed() uint64 {
	if *seedFlag != 0 {
		return *seedFlag
	}
	return rand.Uint64N(1 << 40)
}

// TestCalm: without faults every assigned pod gets its units and starts.
func TestCalm(t *testing.T) {
	r := newRig(t, seed(), "none", "container")
	t.Logf("seed %d", r.seed)
	r.calm = true
	for r.step = range max(100, *stepsFlag/5) {
		r.sunny()
		r.check()
	}
	t.Logf("%d steps:%s", r.step+1, r.summary())
	if r.stats["assigned admitted"] == 0 || r.stats["starts"] == 0 {
		t.Fatal("nothing happened")
	}
}

// TestStorm: whatever happens, the promises hold.
func TestStorm(t *testing.T) {
	s := seed()
	for i, c := range []struct{ policy, scope string }{
		{"none", "container"}, {"best-effort", "container"}, {"restricted", "pod"}, {"single-numa-node", "container"},
	} {
		t.Run(c.policy, func(t *testing.T) {
			own := s + uint64(i)
			if *seedFlag != 0 {
				own = s // as a failure names it
			}
			r := newRig(t, own, c.policy, c.scope)
			t.Logf("seed %d", own)
			for r.step = range max(100, *stepsFlag/4) {
				r.stormy()
				r.check()
			}
			t.Logf("%d steps:%s", r.step+1, r.summary())
			if r.stats["assigned admitted"] == 0 || r.stats["foreign admitted"] == 0 || r.stats["starts"] == 0 {
				t.Fatal("nothing happened")
			}
		})
	}
}
