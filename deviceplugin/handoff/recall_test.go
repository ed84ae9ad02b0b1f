package handoff

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// counted is kubelet's list, with how often it was read.
type counted struct {
	*podList
	reads int
}

func (c *counted) Pods(ctx context.Context) ([]Pod, error) {
	c.reads++
	return c.podList.Pods(ctx)
}

// TestRecall: an Allocate for what was preferred just now needs no second look at
// kubelet's list; whatever comes between brings the look back.
func TestRecall(t *testing.T) {
	all := []string{u0, u1, u2, u3}
	const other = "kubevfio.io/nic"
	for name, tc := range map[string]struct {
		between func(*rig)
		ids     []string
		reads   int
		err     error
	}{
		"right after":         {ids: []string{u2, u1}, reads: 1},
		"in another order":    {ids: []string{u1, u2}, reads: 1},
		"kubelet took others": {ids: []string{u0, u2}, reads: 2, err: ErrMismatch},
		"a new kubelet":       {between: func(r *rig) { r.KubeletStarted() }, ids: []string{u2, u1}, reads: 2},
		"another question": {between: func(r *rig) {
			_, _ = r.Preferred(t.Context(), other, []string{u3}, nil, 1) // nobody wants it: refused
		}, ids: []string{u2, u1}, reads: 3},
		"an Allocate that is no unit": {between: func(r *rig) {
			_, _ = r.Allocate(t.Context(), gpu, []string{"nonsense"})
		}, ids: []string{u2, u1}, reads: 2},
		"a claim came meanwhile": {between: func(r *rig) {
			r.holders.held = []Held{{Namespace: "ns", Name: "a", Container: "c", Resource: gpu, IDs: []string{u2, u1}}}
			if err := r.Reconcile(t.Context()); err != nil {
				t.Error(err)
			}
		}, ids: []string{u2, u1}, reads: 3, err: ErrNoPod},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, false, []Pod{mk("a", 2, u2, u1)}, nil)
			c := &counted{podList: r.kubelet}
			r.cfg.Kubelet = c
			r.SetPool(other, false, []string{u3})
			got, err := r.Preferred(t.Context(), gpu, all, nil, 2)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{u2, u1}, got); diff != "" {
				t.Fatal(diff)
			}
			if tc.between != nil {
				tc.between(r)
			}
			g, err := r.Allocate(t.Context(), gpu, tc.ids)
			if !errors.Is(err, tc.err) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if err == nil && (g.PodUID != "uid-a" || !cmp.Equal(g.Units, []string{u2, u1})) {
				t.Errorf("granted %+v", g)
			}
			if c.reads != tc.reads {
				t.Errorf("kubelet's list was read %d times, want %d", c.reads, tc.reads)
			}
		})
	}
}

// TestRecallUnsure: what was answered on the informer's word alone is asked
// again.
func TestRecallUnsure(t *testing.T) {
	a := mk("a", 1, u2)
	r := newRig(t, false, nil, []Pod{a})
	r.kubelet.err = errors.New("no answer")
	if _, err := r.Preferred(t.Context(), gpu, []string{u2}, nil, 1); err != nil {
		t.Fatal(err)
	}
	// Now kubelet's list says that another pod is under admission.
	r.kubelet.err = nil
	r.kubelet.set(mk("b", 1, u1))
	if _, err := r.Allocate(t.Context(), gpu, []string{u2}); !errors.Is(err, ErrMismatch) {
		t.Errorf("got %v", err)
	}
}
