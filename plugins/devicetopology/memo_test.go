package devicetopology

import (
	"sync"
	"testing"

	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
)

// TestMemos: a memo is found in the cycle that made it and in later ones, by its
// NodeInfo and no other, and what is kept for nodes that are gone is bounded.
func TestMemos(t *testing.T) {
	m := newMemos()
	a, b := framework.NewNodeInfo(), framework.NewNodeInfo()
	first, second := &nodeMemo{generation: 1}, &nodeMemo{generation: 2}
	if m.get(a) != nil {
		t.Error("a memo before there is one")
	}
	m.put(a, first)
	if m.get(a) != first || m.get(b) != nil {
		t.Error("the cycle that made the memo does not find it, or another node does")
	}
	m.put(a, second) // news within the cycle
	m.settle(2)
	if m.get(a) != second || m.get(b) != nil {
		t.Error("the next cycle does not find the latest memo, or another node does")
	}
	m.put(a, first)
	if m.any.Load() || m.get(a) != first {
		t.Error("a node that is known is not changed in place")
	}
	// Nodes come and go; two remain.
	for range 3 {
		for range spareMemos {
			m.put(framework.NewNodeInfo(), second)
		}
		m.settle(2)
	}
	if n := len(*m.table.Load()); n > 2*spareMemos {
		t.Errorf("%d memos for 2 nodes", n)
	}
}

// TestMemosConcurrently: Filter runs for many nodes at once.
func TestMemosConcurrently(t *testing.T) {
	m := newMemos()
	var nodes []fwk.NodeInfo
	for range 200 {
		nodes = append(nodes, framework.NewNodeInfo())
	}
	for cycle := range 20 {
		m.settle(len(nodes))
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i, ni := range nodes {
					if got := m.get(ni); got != nil && got.epoch != int64(i) {
						t.Errorf("node %d has the memo of node %d", i, got.epoch)
					}
					if i%8 == w && i < 10*(cycle+1) {
						m.put(ni, &nodeMemo{epoch: int64(i)})
					}
				}
			})
		}
		wg.Wait()
	}
	for i, ni := range nodes {
		if m.get(ni) == nil {
			t.Errorf("node %d has no memo", i)
		}
	}
}
