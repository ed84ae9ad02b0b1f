package engine

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/kubevfio/kubevfio/topology"
)

// Profile is what search needs to know of a node's free units: how many per
// cell, not which. Nodes with equal shapes and equal free counts share one
// profile, and with it the memo of earlier choices. It is immutable but for
// that memo, and safe for concurrent use.
type Profile struct {
	shape *Shape
	// free counts the free units per cell.
	free []uint16
	// unknown[r] units of resource r are held by pods that do not say which.
	unknown []uint16
	// sums are the free units by resource of every domain, never below 0:
	// the domains of the levels in order, then the whole node.
	sums []int32
	// memo holds the latest choices, found by request and mix.
	memo [memoSlots]atomic.Pointer[verdict]
	next atomic.Uint32
}

// memoSlots is how many requests a profile remembers.
const memoSlots = 8

// verdict is a memoised choice.
type verdict struct {
	req *Request
	mix *Mix
	res result
}

// result is a choice in terms of cells.
type result struct {
	ok    bool
	level topology.Distance
	cost  Cost
	// take counts units per cell.
	take []uint16
	// before and after are the copies of each type of the mix that fit without
	// and with the request.
	before, after copies
	// worth is by type of the mix.
	worth [maxTypes]worth
}

func (p *Profile) lookup(req *Request, mix *Mix) *result {
	for i := range p.memo {
		if v := p.memo[i].Load(); v != nil && v.req == req && v.mix == mix {
			return &v.res
		}
	}
	return nil
}

func (p *Profile) remember(req *Request, mix *Mix, res *result) {
	i := (p.next.Add(1) - 1) % memoSlots
	p.memo[i].Store(&verdict{req: req, mix: mix, res: *res})
}

// sum is the free units of a resource in the domain with that number.
func (p *Profile) sum(dom, res int) int {
	return int(p.sums[dom*len(p.shape.resources)+res])
}

func newProfile(s *Shape, free, unknown []uint16) *Profile {
	p := &Profile{shape: s, free: free, unknown: unknown}
	p.sums = make([]int32, len(s.doms)*len(s.resources))
	for d := range s.doms {
		for r := range s.resources {
			n := 0
			for _, c := range s.doms[d].cells[r] {
				n += int(free[c])
			}
			p.sums[d*len(s.resources)+r] = int32(max(0, n-int(unknown[r])))
		}
	}
	return p
}

// maxProfiles bounds the interner's table of profiles; beyond it the table
// starts afresh, which costs recomputation and nothing else.
const maxProfiles = 1 << 16

// profiles interns profiles.
type profiles struct {
	mu sync.Mutex
	m  map[string]*Profile
}

// profile returns the shared profile for free counts of a shape.
func (in *Interner) profile(s *Shape, free, unknown []uint16) *Profile {
	buf := make([]byte, 0, 8+2*(len(free)+len(unknown)))
	buf = binary.LittleEndian.AppendUint64(buf, s.id)
	for _, f := range free {
		buf = binary.LittleEndian.AppendUint16(buf, f)
	}
	for _, u := range unknown {
		buf = binary.LittleEndian.AppendUint16(buf, u)
	}
	ps := &in.profiles
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p, ok := ps.m[string(buf)]; ok {
		return p
	}
	if ps.m == nil || len(ps.m) >= maxProfiles {
		ps.m = map[string]*Profile{}
	}
	p := newProfile(s, free, unknown)
	ps.m[string(buf)] = p
	return p
}
