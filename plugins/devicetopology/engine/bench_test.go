package engine

import (
	"fmt"
	"testing"

	"github.com/kubevfio/kubevfio/topology"
)

// hgx is a server with 2 sockets, 4 switches, 2 GPUs and 2 PFs of 8 VFs per
// switch: 8 GPUs, 64 VFs.
func hgx() *Spec {
	sp := &Spec{Resources: []string{"example.com/gpu", "example.com/vf"}, NUMA: []NUMASpec{{0, 0}, {1, 1}}}
	for r := range 4 {
		sp.Places = append(sp.Places, PlaceSpec{Name: fmt.Sprintf("pci0000:%x0", 2*r), Parent: -1})
	}
	for r := range 4 {
		sp.Places = append(sp.Places, PlaceSpec{Name: fmt.Sprintf("0000:%x1:00.0", 2*r), Parent: r})
		for g := range 2 {
			sp.Units = append(sp.Units, UnitSpec{ID: fmt.Sprintf("0000:%x%x:00.0", 2*r, 4+g), Place: 4 + r, Resource: 0, NUMA: r / 2, Ready: true})
			pf := fmt.Sprintf("0000:%x%x:00.0", 2*r, 8+g)
			for v := range 8 {
				sp.Units = append(sp.Units, UnitSpec{ID: fmt.Sprintf("0000:%x%x:10.%d", 2*r, 8+g, v), Place: 4 + r, Resource: 1, NUMA: r / 2, PF: pf, Ready: true})
			}
		}
	}
	return sp
}

func gpuVF(g, v int, level topology.Distance, required bool) *Request {
	return NewRequest([]Item{{"example.com/gpu", g}, {"example.com/vf", v}}, level, required)
}

func benchMix() *Mix {
	return &Mix{types: []mixType{
		{req: gpuVF(1, 1, topology.SameSwitch, true), weight: 400},
		{req: gpuVF(2, 2, topology.SameSwitch, true), weight: 300},
		{req: gpuVF(4, 4, topology.SameNUMA, true), weight: 200},
		{req: gpuVF(8, 8, topology.Other, false), weight: 100},
	}}
}

// benchStates are an empty and a scattered half-full node.
func benchStates(tb testing.TB) map[string]*State {
	in := &Interner{}
	out := map[string]*State{}
	for name, used := range map[string]int{"empty": 0, "half": 2} {
		n, err := NewNode(hgx(), in)
		if err != nil {
			tb.Fatal(err)
		}
		st := NewState(n)
		for i := range n.IDs {
			if used > 0 && i%used == 0 {
				st.Use(i)
			}
		}
		out[name] = st.Seal()
	}
	return out
}

func benchRequests() map[string]*Request {
	return map[string]*Request{
		"1+1-switch":    gpuVF(1, 1, topology.SameSwitch, true),
		"2+2-numa":      gpuVF(2, 2, topology.SameNUMA, true),
		"4+4-preferred": gpuVF(4, 4, topology.SameSwitch, false),
		"8+8":           gpuVF(8, 8, topology.Other, false),
		"2+8":           gpuVF(2, 8, topology.Other, false),
	}
}

// BenchmarkFeasible is what Filter costs per node.
func BenchmarkFeasible(b *testing.B) {
	for sn, st := range benchStates(b) {
		for rn, req := range benchRequests() {
			b.Run(sn+"/"+rn, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					Feasible(st, req)
				}
			})
		}
	}
}

// BenchmarkCold is feasibility and choice without a memo entry.
func BenchmarkCold(b *testing.B) {
	mix := benchMix()
	for sn, st := range benchStates(b) {
		for rn, req := range benchRequests() {
			b.Run(sn+"/"+rn, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := Feasible(st, req); ok {
						st.prof.compute(req, mix)
					}
				}
			})
		}
	}
}

// BenchmarkMemo is feasibility and choice with one.
func BenchmarkMemo(b *testing.B) {
	mix := benchMix()
	for sn, st := range benchStates(b) {
		for rn, req := range benchRequests() {
			b.Run(sn+"/"+rn, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					Feasible(st, req)
					st.prof.choose(req, mix)
				}
			})
		}
	}
}

// TestNoAllocation holds Filter's and scoring's promise.
func TestNoAllocation(t *testing.T) {
	mix := benchMix()
	for sn, st := range benchStates(t) {
		for rn, req := range benchRequests() {
			st.prof.choose(req, mix)
			if n := testing.AllocsPerRun(100, func() { Feasible(st, req) }); n != 0 {
				t.Errorf("%s/%s: Feasible allocates %v times", sn, rn, n)
			}
			if n := testing.AllocsPerRun(100, func() { st.prof.choose(req, mix) }); n != 0 {
				t.Errorf("%s/%s: a memoised choice allocates %v times", sn, rn, n)
			}
		}
	}
}
