package engine

import (
	"strings"
	"testing"

	"github.com/kubevfio/kubevfio/topology"
)

// TestVariants: a container across two NUMA nodes leaves open how the memory
// manager remembers each of them.
func TestVariants(t *testing.T) {
	k := &Kubelet{Policy: PolicyBestEffort, StaticMemory: true, MemoryTypes: []string{"memory"}, NUMA: []KubeletNUMA{
		{ID: 0, CPUs: 4, Assignable: 4, Memory: []int64{100}}, {ID: 1, CPUs: 4, Assignable: 4, Memory: []int64{100}},
	}}
	l := k.NewLoad()
	l.UseMemory(k, "memory", []int{0}, 10)
	if v := l.variants(); v != nil {
		t.Errorf("allocations on single nodes leave %d variants", len(v))
	}
	l = k.NewLoad()
	l.UseMemory(k, "memory", []int{0, 1}, 10)
	if v := l.variants(); len(v) != 3 {
		t.Errorf("%d other states of two nodes in one group, want 3", len(v))
	}

	in := &Interner{}
	node, err := NewNode(&Spec{
		Resources: []string{"example.com/gpu"},
		NUMA:      []NUMASpec{{ID: 0}, {ID: 1}},
		Places:    []PlaceSpec{{Name: "pci0", Parent: -1}, {Name: "pci1", Parent: -1}},
		Units: []UnitSpec{
			{ID: "0000:01:00.0", Place: 0, NUMA: 0, Ready: true},
			{ID: "0000:02:00.0", Place: 1, NUMA: 1, Ready: true},
		},
	}, in)
	if err != nil {
		t.Fatal(err)
	}
	place := func(memory []MemoryNeed) *Placement {
		st := NewState(node)
		st.Kubelet, st.Load = k, l
		p, _ := Place(st.Seal(), in.Pod(NewPod([]Container{{Name: "c", Memory: memory, Items: []Item{{Resource: "example.com/gpu", Count: 1}}}}, topology.Other, false)), nil)
		return p
	}
	// With node 0 on its own kubelet takes the unit of node 0, with node 1 on its
	// own the other one: no choice is safe.
	if p := place([]MemoryNeed{{Type: "memory", Bytes: 20}}); p.ok || !strings.Contains(p.reason, "uncertain") {
		t.Errorf("placed %t, reason %q", p.ok, p.reason)
	}
	if p := place(nil); !p.ok {
		t.Errorf("a pod without memory of its own: %s", p.reason)
	}
}
