package handoff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/topology"
)

const (
	gpu = "kubevfio.io/gpu"
	u0  = "0000:10:00.0"
	u1  = "0000:11:00.0"
	u2  = "0000:12:00.0"
	u3  = "0000:13:00.0"
)

// podList is a Source whose content tests change.
type podList struct {
	mu      sync.Mutex
	pods    []Pod
	err     error
	changed chan struct{}
}

func newList(pods ...Pod) *podList { return &podList{pods: pods, changed: make(chan struct{})} }

func (l *podList) Pods(context.Context) ([]Pod, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.pods), l.err
}

func (l *podList) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *podList) set(pods ...Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pods = pods
	close(l.changed)
	l.changed = make(chan struct{})
}

type holders struct {
	held []Held
	err  error
}

func (h *holders) Holders(context.Context) ([]Held, error) { return h.held, h.err }

// rig is a ledger with everything around it.
type rig struct {
	*Ledger
	kubelet, informer *podList
	holders           *holders
	reports           []Report
	released          []string
}

func newRig(t testing.TB, adopt bool, kubelet []Pod, informer []Pod) *rig {
	t.Helper()
	r := &rig{kubelet: newList(kubelet...), informer: newList(informer...), holders: &holders{}}
	r.Ledger = New(Config{
		Node: "n", Kubelet: r.kubelet, Informer: r.informer, Changed: r.informer.Changed, Holders: r.holders,
		Report:   func(rep Report) { r.reports = append(r.reports, rep) },
		Released: func(u string, _ Claim) { r.released = append(r.released, u) },
		Wait:     40 * time.Millisecond,
	})
	r.SetPool(gpu, adopt, []string{u0, u1, u2, u3})
	return r
}

// mk makes a pod that wants n of gpu; units make it an assigned one.
func mk(name string, n int, units ...string) Pod {
	uid := "uid-" + name
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(uid)}}
	p.Spec.NodeName = "n"
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
		Limits: corev1.ResourceList{gpu: resource.MustParse(fmt.Sprint(n)), corev1.ResourceCPU: resource.MustParse("1")}}}}
	if len(units) > 0 {
		a := v1alpha1.Assignment{Version: v1alpha1.AssignmentVersion, PodUID: uid, Node: "n",
			Containers: map[string]map[string][]topology.Address{"c": {gpu: nil}}}
		for _, u := range units {
			addr, err := topology.ParseAddress(u)
			if err != nil {
				panic(err)
			}
			a.Containers["c"][gpu] = append(a.Containers["c"][gpu], addr)
		}
		text, err := a.Encode()
		if err != nil {
			panic(err)
		}
		p.Annotations = map[string]string{v1alpha1.AssignmentAnnotation: text}
	}
	return FromPod(p)
}

func with(p Pod, f func(*Pod)) Pod {
	p.Containers = slices.Clone(p.Containers)
	f(&p)
	return p
}

func failed(p Pod) Pod  { return with(p, func(p *Pod) { p.Terminal = true }) }
func started(p Pod) Pod { return with(p, func(p *Pod) { p.Containers[0].Started = true }) }

func TestPreferred(t *testing.T) {
	broken := with(mk("broken", 1), func(p *Pod) { p.AssignmentErr = errForeignUID })
	all := []string{u0, u1, u2, u3}
	for name, tc := range map[string]struct {
		kubelet, informer []Pod
		available         []string
		must              []string
		size              int
		adopt             bool
		want              []string
		err               error
	}{
		"assigned":                     {kubelet: []Pod{mk("a", 1, u2)}, available: all, size: 1, want: []string{u2}},
		"assigned, in order":           {kubelet: []Pod{mk("a", 2, u3, u1)}, available: all, size: 2, want: []string{u3, u1}},
		"informer has not heard of it": {kubelet: []Pod{mk("a", 1, u2)}, available: all, size: 1, want: []string{u2}},
		"another size waits as well":   {kubelet: []Pod{mk("a", 1, u2), mk("b", 2, u0, u1)}, available: all, size: 2, want: []string{u0, u1}},
		"a refused pod is still listed": {kubelet: []Pod{mk("old", 1, u0), mk("a", 1, u2)}, informer: []Pod{failed(mk("old", 1, u0))},
			available: all, size: 1, want: []string{u2}},
		"a running pod is no candidate": {kubelet: []Pod{started(mk("old", 1, u0)), mk("a", 1, u2)}, available: all, size: 1, want: []string{u2}},
		"two come into question":        {kubelet: []Pod{mk("a", 1, u0), mk("b", 1, u1)}, available: all, size: 1, err: ErrAmbiguous},
		"nobody waits":                  {available: all, size: 1, err: ErrNoPod},
		"not assigned takes what nobody has a right to": {kubelet: []Pod{mk("f", 2)}, informer: []Pod{mk("a", 2, u0, u2)},
			available: all, size: 2, want: []string{u1, u3}},
		"not assigned and all reserved": {kubelet: []Pod{mk("f", 1)}, informer: []Pod{mk("a", 4, all...)}, available: all, size: 1, err: ErrReserved},
		"an ended pod reserves nothing": {kubelet: []Pod{mk("f", 1)}, informer: []Pod{failed(mk("a", 4, all...))}, available: all, size: 1, want: []string{u0}},
		"assigned but not offered":      {kubelet: []Pod{mk("a", 1, u2)}, available: []string{u0, u1}, size: 1, err: ErrMismatch},
		"assigned but not offered, adopt": {kubelet: []Pod{mk("a", 2, u2, u1)}, available: []string{u0, u1, u3}, size: 2, adopt: true,
			want: []string{u1, u0}},
		"kubelet insists on another": {kubelet: []Pod{mk("a", 2, u2, u1)}, available: all, must: []string{u0}, size: 2, err: ErrMismatch},
		"kubelet insists on ours":    {kubelet: []Pod{mk("a", 2, u2, u1)}, available: all, must: []string{u1}, size: 2, want: []string{u2, u1}},
		"another pod's annotation":   {kubelet: []Pod{broken}, available: all, size: 1, err: ErrMismatch},
		"assignment of another size": {kubelet: []Pod{with(mk("a", 2, u0), func(*Pod) {})}, available: all, size: 2, err: ErrMismatch},
		"nobody waits, adopt":        {available: all, size: 1, adopt: true, want: []string{u0}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tc.adopt, tc.kubelet, tc.informer)
			got, err := r.Preferred(t.Context(), gpu, tc.available, tc.must, tc.size)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("units (-want +got):\n%s", d)
			}
			if (err != nil) != (len(r.reports) > 0) {
				t.Errorf("error %v but reports %v", err, r.reports)
			}
		})
	}
}

func TestAllocate(t *testing.T) {
	for name, tc := range map[string]struct {
		kubelet, informer []Pod
		ids               []string
		adopt             bool
		want              Grant
		report            Kind
		err               error
	}{
		"assigned": {kubelet: []Pod{mk("a", 2, u3, u1)}, ids: []string{u1, u3},
			want: Grant{PodUID: "uid-a", Namespace: "ns", Name: "a", Container: "c", Units: []string{u3, u1}}},
		"not what was assigned": {kubelet: []Pod{mk("a", 1, u3)}, ids: []string{u1}, err: ErrMismatch, report: Refused},
		"not what was assigned, adopt": {kubelet: []Pod{mk("a", 1, u3)}, ids: []string{u1}, adopt: true, report: Adopted,
			want: Grant{PodUID: "uid-a", Namespace: "ns", Name: "a", Container: "c", Units: []string{u1}}},
		"not assigned": {kubelet: []Pod{mk("f", 1)}, ids: []string{u1},
			want: Grant{PodUID: "uid-f", Namespace: "ns", Name: "f", Container: "c", Units: []string{u1}}},
		"not assigned, another's unit":         {kubelet: []Pod{mk("f", 1)}, informer: []Pod{mk("a", 1, u1)}, ids: []string{u1}, err: ErrReserved, report: Refused},
		"set of a pod that is not meant":       {kubelet: []Pod{mk("f", 1)}, informer: []Pod{mk("a", 1, u1), mk("f", 1)}, ids: []string{u1}, err: ErrReserved, report: Refused},
		"two come into question":               {kubelet: []Pod{mk("a", 1, u0), mk("b", 1, u1)}, ids: []string{u0}, err: ErrAmbiguous, report: Refused},
		"unknown unit":                         {kubelet: []Pod{mk("a", 1, u0)}, ids: []string{"0000:99:00.0"}, err: ErrUnit, report: Refused},
		"a unit twice":                         {kubelet: []Pod{mk("a", 2, u0, u1)}, ids: []string{u0, u0}, err: ErrUnit, report: Refused},
		"nothing":                              {kubelet: []Pod{mk("a", 1, u0)}, err: ErrUnit, report: Refused},
		"nobody waits, adopt":                  {ids: []string{u1, u0}, adopt: true, want: Grant{Units: []string{u0, u1}}, report: Adopted},
		"foreign pod beside an assigned other": {kubelet: []Pod{started(mk("a", 1, u1)), mk("f", 1)}, ids: []string{u1}, err: ErrReserved, report: Refused},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tc.adopt, tc.kubelet, tc.informer)
			got, err := r.Allocate(t.Context(), gpu, tc.ids)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("grant (-want +got):\n%s", d)
			}
			var kind Kind
			if len(r.reports) > 0 {
				kind = r.reports[0].Kind
			}
			if kind != tc.report {
				t.Errorf("reported %q, want %q", kind, tc.report)
			}
			if n := len(r.Claims()); (n == 1) != (err == nil && got.PodUID != "") {
				t.Errorf("%d claims after %v", n, err)
			}
		})
	}
}

// TestNewest: kubelet adds a pod right before its admission, so the pod that
// came last is the one, also when a refused one still looks as if it waited.
func TestNewest(t *testing.T) {
	r := newRig(t, false, []Pod{mk("old", 1, u0)}, []Pod{mk("old", 1, u0)})
	r.Sweep(t.Context()) // sees "old" waiting
	r.kubelet.set(mk("old", 1, u0), mk("a", 1, u1))
	got, err := r.Preferred(t.Context(), gpu, []string{u0, u1}, nil, 1)
	if err != nil || !slices.Equal(got, []string{u1}) {
		t.Fatalf("%v, %v; want the newest pod's %s", got, err, u1)
	}
	// A new kubelet adds all pods again: order seen before means nothing.
	r.KubeletStarted()
	if _, err := r.Preferred(t.Context(), gpu, []string{u0, u1}, nil, 1); !errors.Is(err, ErrAmbiguous) {
		t.Fatalf("after kubelet's restart: %v, want %v", err, ErrAmbiguous)
	}
}

// TestInformerSettles: a call waits for the news that the other pod has failed.
func TestInformerSettles(t *testing.T) {
	r := newRig(t, false, []Pod{mk("old", 1, u0), mk("a", 1, u1)}, []Pod{mk("old", 1, u0)})
	go func() {
		time.Sleep(10 * time.Millisecond)
		r.informer.set(failed(mk("old", 1, u0)))
	}()
	got, err := r.Preferred(t.Context(), gpu, []string{u0, u1}, nil, 1)
	if err != nil || !slices.Equal(got, []string{u1}) {
		t.Fatalf("%v, %v; want %s", got, err, u1)
	}
}

// TestFallback: without kubelet's list a single candidate is taken, but not for
// certain: the start asks kubelet.
func TestFallback(t *testing.T) {
	r := newRig(t, false, nil, []Pod{mk("a", 1, u1)})
	r.kubelet.err = errors.New("connection refused")
	if _, err := r.Allocate(t.Context(), gpu, []string{u1}); err != nil {
		t.Fatal(err)
	}
	r.holders.err = errors.New("no socket")
	if _, err := r.Verify(t.Context(), gpu, []string{u1}); !errors.Is(err, ErrUnsure) {
		t.Fatalf("start without certainty: %v", err)
	}
	// It was another pod: kubelet knows.
	r.holders.err = nil
	r.kubelet.err = nil
	r.kubelet.set(mk("b", 1, u2))
	r.informer.set(mk("a", 1, u1), mk("b", 1, u2))
	r.holders.held = []Held{{Namespace: "ns", Name: "b", Container: "c", Resource: gpu, IDs: []string{u1}}}
	if _, err := r.Verify(t.Context(), gpu, []string{u1}); !errors.Is(err, ErrMismatch) {
		t.Fatalf("start of the wrong pod: %v, want %v", err, ErrMismatch)
	}
	if !slices.ContainsFunc(r.reports, func(r Report) bool { return r.Kind == Mismatch && r.Name == "b" }) {
		t.Errorf("the mismatch was not reported: %v", r.reports)
	}
	// And here it is right.
	r.holders.held = []Held{{Namespace: "ns", Name: "b", Container: "c", Resource: gpu, IDs: []string{u2}}}
	c, err := r.Verify(t.Context(), gpu, []string{u2})
	if err != nil || c.Name != "b" || !c.Assigned || !c.Sure {
		t.Fatalf("right pod: %+v, %v", c, err)
	}
}

// TestStartOfUnknownPod: what was believed at allocation does not let a pod start
// that kubelet names and nobody here knows.
func TestStartOfUnknownPod(t *testing.T) {
	r := newRig(t, false, []Pod{mk("f", 1)}, []Pod{mk("f", 1)})
	if _, err := r.Allocate(t.Context(), gpu, []string{u1}); err != nil {
		t.Fatal(err)
	}
	r.holders.held = []Held{{Namespace: "ns", Name: "a", Container: "c", Resource: gpu, IDs: []string{u1}}}
	if _, err := r.Verify(t.Context(), gpu, []string{u1}); !errors.Is(err, ErrUnsure) {
		t.Fatalf("the holder is not known: %v, want %v", err, ErrUnsure)
	}
	r.holders.held = nil
	if _, err := r.Verify(t.Context(), gpu, []string{u1}); !errors.Is(err, ErrUnsure) {
		t.Fatalf("kubelet names nobody: %v, want %v", err, ErrUnsure)
	}
	r.holders.err = errors.New("no socket")
	if _, err := r.Verify(t.Context(), gpu, []string{u1}); !errors.Is(err, ErrUnsure) {
		t.Fatalf("kubelet does not answer: %v, want %v", err, ErrUnsure)
	}
	r.holders.err = nil
	r.holders.held = []Held{{Namespace: "ns", Name: "a", Container: "c", Resource: gpu, IDs: []string{u1}}}
	r.kubelet.set(mk("f", 1), mk("a", 1, u2))
	if _, err := r.Verify(t.Context(), gpu, []string{u1}); !errors.Is(err, ErrMismatch) {
		t.Fatalf("the holder was assigned another: %v, want %v", err, ErrMismatch)
	}
}

// TestLostByKubelet: kubelet restarted before it wrote its checkpoint; it admits
// the pod again, and the pod gets the same units again.
func TestLostByKubelet(t *testing.T) {
	r := newRig(t, false, []Pod{mk("a", 1, u1)}, []Pod{mk("a", 1, u1)})
	for range 2 {
		if _, err := r.Allocate(t.Context(), gpu, []string{u1}); err != nil {
			t.Fatal(err)
		}
		r.KubeletStarted()
	}
	// With its word that it still knows, the pod is no candidate any more.
	r.holders.held = []Held{{Namespace: "ns", Name: "a", Container: "c", Resource: gpu, IDs: []string{u1}}}
	if _, err := r.Allocate(t.Context(), gpu, []string{u1}); !errors.Is(err, ErrNoPod) {
		t.Fatalf("%v, want %v", err, ErrNoPod)
	}
}

// TestRelease: a unit is released when its pod has ended, or another has it.
func TestRelease(t *testing.T) {
	r := newRig(t, false, []Pod{mk("a", 1, u1)}, []Pod{mk("a", 1, u1)})
	if _, err := r.Allocate(t.Context(), gpu, []string{u1}); err != nil {
		t.Fatal(err)
	}
	r.informer.set() // deleted, says the API; kubelet still has it
	r.Sweep(t.Context())
	if len(r.released) != 0 {
		t.Fatalf("released %v while kubelet has the pod", r.released)
	}
	// Kubelet gives the unit to the next pod before anybody told us.
	r.kubelet.set(mk("b", 1, u1))
	r.informer.set(mk("b", 1, u1))
	if _, err := r.Allocate(t.Context(), gpu, []string{u1}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{u1}, r.released); d != "" {
		t.Fatalf("released (-want +got):\n%s", d)
	}
	r.informer.set(failed(mk("b", 1, u1)))
	r.kubelet.set(failed(mk("b", 1, u1)))
	r.Sweep(t.Context())
	if d := cmp.Diff([]string{u1, u1}, r.released); d != "" {
		t.Fatalf("released (-want +got):\n%s", d)
	}
	if c := r.Claims(); len(c) != 0 {
		t.Errorf("claims left: %v", c)
	}
}

// TestInitContainer: kubelet hands an init container's unit on without asking.
func TestInitContainer(t *testing.T) {
	p := mk("f", 1)
	p.Containers = []Container{{Name: "init", Init: true, Limits: map[string]int{gpu: 1}}, {Name: "c", Limits: map[string]int{gpu: 1}}}
	r := newRig(t, false, []Pod{p}, nil)
	for _, c := range []string{"init", "c"} {
		g, err := r.Allocate(t.Context(), gpu, []string{u1})
		if err != nil || g.Container != c {
			t.Fatalf("%+v, %v; want container %s", g, err, c)
		}
	}
	if len(r.released) != 0 {
		t.Errorf("released within the pod: %v", r.released)
	}
	r.kubelet.set()
	r.Sweep(t.Context())
	if d := cmp.Diff([]string{u1}, r.released); d != "" {
		t.Errorf("released (-want +got):\n%s", d)
	}
}

// TestMismatchOnce: what kubelet reports in the pod's status is compared, and a
// difference told once.
func TestMismatchOnce(t *testing.T) {
	p := with(started(mk("a", 1, u1)), func(p *Pod) { p.Containers[0].Devices = map[string][]string{gpu: {u2}} })
	r := newRig(t, false, nil, []Pod{p})
	for range 3 {
		r.Sweep(t.Context())
	}
	if len(r.reports) != 1 || r.reports[0].Kind != Mismatch {
		t.Fatalf("reports %v, want one mismatch", r.reports)
	}
	if c, ok := r.Owner(u2); !ok || c.Name != "a" || c.Assigned {
		t.Errorf("the unit's owner is %+v, %v", c, ok)
	}
}

// TestRestore: claims of an earlier process hold until somebody knows better.
func TestRestore(t *testing.T) {
	r := newRig(t, false, []Pod{mk("a", 1, u1), mk("gone", 1, u2)}, []Pod{mk("a", 1, u1), mk("gone", 1, u2)})
	r.Restore([]Claim{
		{PodUID: "uid-a", Namespace: "ns", Name: "a", Container: "c", Resource: gpu, IDs: []string{u1}},
		{PodUID: "uid-gone", Namespace: "ns", Name: "gone", Container: "c", Resource: gpu, IDs: []string{u2}},
	})
	r.holders.held = []Held{{Namespace: "ns", Name: "a", Container: "c", Resource: gpu, IDs: []string{u1}}}
	if err := r.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	claims := r.Claims()
	if len(claims) != 1 || claims[0].Name != "a" || !claims[0].Sure || !claims[0].Assigned {
		t.Errorf("claims %+v, want a's only, certain", claims)
	}
	if d := cmp.Diff([]string{u2}, r.released); d != "" {
		t.Errorf("released (-want +got):\n%s", d)
	}
}

func BenchmarkAllocate4096(b *testing.B) {
	units := make([]string, 4096)
	for i := range units {
		units[i] = topology.Address{Bus: uint8(i / 256), Device: uint8(i / 8 % 32), Function: uint8(i % 8)}.String()
	}
	pods := make([]Pod, 110)
	for i := range pods {
		pods[i] = started(mk(fmt.Sprint("p", i), 1, units[i]))
	}
	pods = append(pods, mk("new", 1, units[4000]))
	l := New(Config{Node: "n", Kubelet: newList(pods...), Informer: newList(pods...)})
	l.SetPool(gpu, false, units)
	for b.Loop() {
		if _, err := l.Preferred(b.Context(), gpu, units, nil, 1); err != nil {
			b.Fatal(err)
		}
		if _, err := l.Allocate(b.Context(), gpu, units[4000:4001]); err != nil {
			b.Fatal(err)
		}
		l.KubeletStarted()
	}
}
