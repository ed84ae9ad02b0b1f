package devicetopology

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

func klogNone() klog.Logger { return klog.Background().V(9) }

// world is the API server, the nodes and one scheduler at a time.
type world struct {
	t   *testing.T
	r   *rand.Rand
	h   *fakeHandle
	pl  *plugin
	now time.Time
	// api are the pods that the API server has, bound ones with NodeName.
	api map[types.UID]*corev1.Pod
	// lagging are events that the scheduler has not seen yet, in order; none
	// for longer than maxLag.
	lagging []event
	// late are Bindings that will still be written, within the API server's
	// limit for a request.
	late []event
	// ghosts are pods deleted by force whose guests still run, with the time at
	// which they end at the latest.
	ghosts map[types.UID]*ghost
	trace  []string
	bound  int
}

// event is something that happens at some time at the latest.
type event struct {
	by time.Time
	do func()
}

type ghost struct {
	pod *corev1.Pod
	by  time.Time
}

// What the plugin may rely on.
const (
	maxLag   = 20 * time.Second
	maxLate  = 60 * time.Second
	maxGuest = 60 * time.Second
)

func (w *world) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	for _, l := range w.trace[max(0, len(w.trace)-40):] {
		w.t.Log(l)
	}
	w.t.Fatalf(format, args...)
}

// restart replaces the scheduler: a new process, or another leader.
func (w *world) restart() {
	w.logf("restart")
	// A leader is replaced only after its lease: requests of its are over.
	for _, e := range w.late {
		e.do()
	}
	w.late, w.lagging = nil, nil
	w.h.pods = map[string][]*corev1.Pod{}
	for _, p := range w.api {
		if p.Spec.NodeName != "" {
			w.h.pods[p.Spec.NodeName] = append(w.h.pods[p.Spec.NodeName], p)
		}
	}
	// A ghost is unknown to a new scheduler; its node refuses a second tenant.
	clear(w.ghosts)
	w.pl = newTestPlugin(w.t, w.h)
	w.pl.ledger.now = func() time.Time { return w.now }
	for i, n := range w.h.nodes {
		w.pl.inv.set(testInventory(n.Name, 1+i%3, 3))
	}
}

// write is the API server taking a Binding.
func (w *world) write(b *corev1.Binding) error {
	p := w.api[b.UID]
	if p == nil {
		return apierrors.NewNotFound(corev1.Resource("pods"), b.Name)
	}
	if p.Spec.NodeName != "" {
		return apierrors.NewConflict(corev1.Resource("pods"), b.Name, errors.New("already bound"))
	}
	p = p.DeepCopy()
	p.Spec.NodeName = b.Target.Name
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	for k, v := range b.Annotations {
		p.Annotations[k] = v
	}
	w.api[p.UID] = p
	w.bound++
	w.lag(func() { w.see(p) })
	w.check()
	return nil
}

func (w *world) lag(f func()) { w.lagging = append(w.lagging, event{w.now.Add(maxLag), f}) }

// see is the scheduler's cache taking a bound pod.
func (w *world) see(p *corev1.Pod) {
	w.h.forget(p.Spec.NodeName, p.UID)
	w.h.pods[p.Spec.NodeName] = append(w.h.pods[p.Spec.NodeName], p)
	w.pl.observe(p, p)
}

// check: no unit has two tenants that our scheduler chose.
func (w *world) check() {
	holder := map[string]types.UID{}
	claim := func(p *corev1.Pod) {
		text, ok := p.Annotations[v1alpha1.AssignmentAnnotation]
		if !ok {
			return
		}
		a, err := v1alpha1.DecodeAssignment(text)
		if err != nil {
			w.fail("pod %s: %v", p.Name, err)
		}
		for _, rs := range a.Containers {
			for _, us := range rs {
				for _, u := range us {
					key := p.Spec.NodeName + " " + u.String()
					if old, ok := holder[key]; ok && old != p.UID {
						w.fail("%s is in pods %s and %s", key, old, p.UID)
					}
					holder[key] = p.UID
				}
			}
		}
	}
	for _, p := range w.api {
		if p.Spec.NodeName != "" && !terminated(p) {
			claim(p)
		}
	}
	for _, g := range w.ghosts {
		claim(g.pod)
	}
}

// schedule runs one scheduling cycle for a pod with a Binding of random fate.
func (w *world) schedule(p *corev1.Pod) {
	fate := w.r.IntN(10)
	w.h.bind = func(b *corev1.Binding) error {
		switch {
		case fate < 6:
			return w.write(b)
		case fate == 6:
			return apierrors.NewForbidden(corev1.Resource("pods"), b.Name, errors.New("refused"))
		case fate == 7: // written, but the answer is lost
			if err := w.write(b); err != nil {
				return err
			}
			return errors.New("connection reset")
		case fate == 8: // lost
			return apierrors.NewTimeoutError("lost", 1)
		default: // written later
			w.late = append(w.late, event{w.now.Add(maxLate), func() { _ = w.write(b) }})
			return apierrors.NewTimeoutError("slow", 1)
		}
	}
	order := w.r.Perm(len(w.h.nodes))
	for _, i := range order {
		node := w.h.nodes[i].Name
		state, st := filter(w.pl, w.h, p, node)
		if !st.IsSuccess() {
			continue
		}
		st = bindTo(w.pl, w.h, state, p, node)
		w.logf("schedule %s on %s: fate %d, %v", p.Name, node, fate, st.Code())
		return
	}
}

// step does one random thing.
func (w *world) step(n int) {
	w.now = w.now.Add(time.Duration(w.r.IntN(4000)) * time.Millisecond)
	w.arrive(false)
	w.catchUp(0)
	for uid, g := range w.ghosts {
		if w.now.After(g.by) {
			w.logf("guest of %s ends", g.pod.Name)
			delete(w.ghosts, uid)
		}
	}
	switch k := w.r.IntN(100); {
	case k < 25:
		p := testPod(fmt.Sprintf("p%d", n), int64(1+w.r.IntN(3)), []string{"", "required:root", "preferred:numa"}[w.r.IntN(3)])
		w.api[p.UID] = p
	case k < 60:
		if p := w.pick(func(p *corev1.Pod) bool { return p.Spec.NodeName == "" }); p != nil && !w.inCache(p.UID) {
			w.schedule(p)
		}
	case k < 75: // the informer catches up by some events
		w.catchUp(w.r.IntN(4))
	case k < 80: // slow Bindings arrive
		w.arrive(true)
	case k < 92: // a pod goes, with or without its guest
		p := w.pick(func(p *corev1.Pod) bool { return p.Spec.NodeName != "" || w.r.IntN(3) == 0 })
		if p == nil {
			return
		}
		p = p.DeepCopy()
		delete(w.api, p.UID)
		if w.r.IntN(2) == 0 && p.Spec.NodeName != "" {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			w.ghosts[p.UID] = &ghost{p, w.now.Add(maxGuest)}
			w.logf("force delete %s", p.Name)
			w.lag(func() { w.forgotten(p) })
			return
		}
		w.logf("delete %s", p.Name)
		w.lag(func() { w.forgotten(p) })
	case k < 97: // another scheduler binds a pod: kubelet picks what is free
		w.foreign(n)
	default:
		w.restart()
	}
	w.check()
}

// catchUp lets the scheduler see the next events.
func (w *world) catchUp(n int) {
	for ; len(w.lagging) > 0 && (n > 0 || w.now.After(w.lagging[0].by)); n-- {
		e := w.lagging[0]
		w.lagging = w.lagging[1:]
		e.do()
	}
}

// arrive writes slow Bindings: all, or those whose time is over.
func (w *world) arrive(all bool) {
	late := w.late
	w.late = nil
	for _, e := range late {
		if all || w.now.After(e.by) {
			e.do()
		} else {
			w.late = append(w.late, e)
		}
	}
}

func (w *world) forgotten(p *corev1.Pod) {
	w.h.forget(p.Spec.NodeName, p.UID)
	w.pl.forget(p)
}

func (w *world) foreign(n int) {
	p := testPod(fmt.Sprintf("foreign%d", n), 1, "")
	p.Spec.NodeName = w.h.nodes[w.r.IntN(len(w.h.nodes))].Name
	w.api[p.UID] = p
	w.lag(func() { w.see(p) })
	w.logf("foreign pod on %s", p.Spec.NodeName)
}

func (w *world) inCache(uid types.UID) bool {
	for _, ps := range w.h.pods {
		if slices.ContainsFunc(ps, func(p *corev1.Pod) bool { return p.UID == uid }) {
			return true
		}
	}
	return false
}

func (w *world) pick(ok func(*corev1.Pod) bool) *corev1.Pod {
	var ps []*corev1.Pod
	for _, p := range w.api {
		if ok(p) {
			ps = append(ps, p)
		}
	}
	if len(ps) == 0 {
		return nil
	}
	slices.SortFunc(ps, func(a, b *corev1.Pod) int {
		if a.UID < b.UID {
			return -1
		}
		return 1
	})
	return ps[w.r.IntN(len(ps))]
}

// TestNeverTwice runs random histories: lost, slow and refused Bindings,
// informer lag, restarts, foreign pods, force deletes. No unit may ever have two
// live tenants of ours.
func TestNeverTwice(t *testing.T) {
	runs, bound := 24, 0
	if testing.Short() {
		runs = 6
	}
	for seed := range runs {
		h := newFakeHandle(t, "a", "b", "c")
		w := &world{
			t: t, r: rand.New(rand.NewPCG(uint64(seed), 3)), h: h, now: time.Unix(1e9, 0),
			api: map[types.UID]*corev1.Pod{}, ghosts: map[types.UID]*ghost{},
		}
		w.restart()
		for n := range 300 {
			w.step(n)
		}
		bound += w.bound
	}
	if bound < runs*20 {
		t.Errorf("only %d pods were bound in %d runs: the test tests nothing", bound, runs)
	}
	t.Logf("%d pods bound in %d runs", bound, runs)
}
