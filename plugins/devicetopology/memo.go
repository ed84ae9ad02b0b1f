package devicetopology

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	fwk "k8s.io/kube-scheduler/framework"

	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
)

// nodeMemo is a node's state and what it was built from. It is immutable but for
// news.
type nodeMemo struct {
	// generation is the NodeInfo's, which is unique to a content of all nodes.
	generation int64
	entry      *nodeEntry
	// usage is nil without a report; appeared tells then whether there is one by now.
	usage    *nodeUsage
	appeared int64
	// epoch is that of the holds, until when one of them ends, zero for never.
	epoch int64
	until time.Time
	state *engine.State
	// news is how much had been heard of inventories and usage when the memo was
	// last found current: nothing more since, and there is nothing to look at.
	news atomic.Int64
}

// memos finds a node's memo by the address of its NodeInfo in the scheduler's
// snapshot, which stays the same while the node is there. By name each look
// costs several times as much: with thousands of nodes nothing of a table is in
// the processor's caches, and names make it several tables and twice as many
// places. States of clones (preemption dry runs, nominated pods) have other
// addresses; they are computed and not stored.
//
// Readers take no lock. New NodeInfos are collected and join the table between
// two cycles.
type memos struct {
	table atomic.Pointer[map[fwk.NodeInfo]*memoCell]

	mu sync.Mutex
	// fresh are those that are not in the table yet.
	fresh map[fwk.NodeInfo]*memoCell
	any   atomic.Bool // fresh has some
}

type memoCell struct{ memo atomic.Pointer[nodeMemo] }

func newMemos() *memos {
	m := &memos{fresh: map[fwk.NodeInfo]*memoCell{}}
	m.table.Store(&map[fwk.NodeInfo]*memoCell{})
	return m
}

// get is the last memo of a NodeInfo, nil when there is none.
func (m *memos) get(ni fwk.NodeInfo) *nodeMemo {
	if c := (*m.table.Load())[ni]; c != nil {
		return c.memo.Load()
	}
	if !m.any.Load() {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.fresh[ni]; c != nil {
		return c.memo.Load()
	}
	return nil
}

func (m *memos) put(ni fwk.NodeInfo, memo *nodeMemo) {
	if c := (*m.table.Load())[ni]; c != nil {
		c.memo.Store(memo)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.fresh[ni]
	if c == nil {
		c = &memoCell{}
		m.fresh[ni] = c
		m.any.Store(true)
	}
	c.memo.Store(memo)
}

// settle takes what is new into the table, once per cycle over so many nodes. A
// table that holds many more is one of nodes that are gone: it starts afresh.
func (m *memos) settle(nodes int) {
	if !m.any.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.table.Load()
	next := make(map[fwk.NodeInfo]*memoCell, len(old)+len(m.fresh))
	if len(old) <= 2*nodes+spareMemos {
		maps.Copy(next, old)
	}
	maps.Copy(next, m.fresh)
	m.table.Store(&next)
	m.fresh = map[fwk.NodeInfo]*memoCell{}
	m.any.Store(false)
}

// spareMemos is how many more memos there may be than twice the nodes.
const spareMemos = 1024
