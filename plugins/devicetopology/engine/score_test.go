package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubevfio/kubevfio/topology"
)

// plainNode is a node with GPUs of one switch each, one switch per NUMA node.
func plainNode(t *testing.T, in *Interner, gpus int) *State {
	t.Helper()
	sp := &Spec{Resources: []string{"example.com/gpu"}, NUMA: []NUMASpec{{0, 0}}}
	for g := range gpus {
		sp.Places = append(sp.Places, PlaceSpec{Name: string(rune('a' + g)), Parent: -1})
		sp.Units = append(sp.Units, UnitSpec{ID: string(rune('a' + g)), Place: g, Ready: true})
	}
	n, err := NewNode(sp, in)
	if err != nil {
		t.Fatal(err)
	}
	return NewState(n).Seal()
}

// TestScoreCPU: CPU decides between nodes by what the mix could still do there.
func TestScoreCPU(t *testing.T) {
	in := &Interner{}
	small, large := plainNode(t, in, 2), plainNode(t, in, 8)
	req := NewRequest([]Item{{"example.com/gpu", 1}}, topology.Other, false)
	p := in.Pod(NewPod([]Container{{Name: "vm", Items: req.Items}}, topology.Other, false))
	var seen Observer
	// Three of four pods are modest, one wants so much that the mean of all is more
	// than the small node has.
	for i := range 64 {
		seen.Observe(p.Request, Resources{MilliCPU: int64(4000 + 20000*(i%4/3))})
	}
	score := func(st *State, have, need int64) int64 {
		return Score(st, p, seen.Mix(), Resources{MilliCPU: have}, Resources{MilliCPU: need})
	}
	if a, b := score(small, 8000, 8000), score(large, 96000, 8000); a >= b {
		t.Errorf("all CPUs of a node with two GPUs: %d points, %d where others remain: a GPU is stranded", a, b)
	}
	if a, b := score(small, 8000, 4000), score(small, 8000, 8000); a <= b {
		t.Errorf("half of the CPUs: %d points, all of them: %d", a, b)
	}
	// What nobody could use any more either way is not lost.
	if a, b := score(large, 96000, 8000), score(large, 96000, 4000); a != b {
		t.Errorf("plenty of CPUs remain, yet %d and %d points", a, b)
	}
}

func TestNeeds(t *testing.T) {
	e := &observed{}
	for i := range 2 * needsKept {
		e.add(Resources{MilliCPU: int64(i)})
	}
	// The latest 32 are 32 to 63; in parts of eight.
	want := [needParts]Resources{{MilliCPU: 36}, {MilliCPU: 44}, {MilliCPU: 52}, {MilliCPU: 60}}
	if d := cmp.Diff(want, e.needs()); d != "" {
		t.Errorf("needs (-want +got):\n%s", d)
	}
	one := &observed{}
	one.add(Resources{MilliCPU: 7, Memory: 9})
	if got := one.needs(); got[0] != one.recent[0] || got[needParts-1] != one.recent[0] {
		t.Errorf("needs of one request: %v", got)
	}
}
