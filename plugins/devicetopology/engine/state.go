package engine

import (
	"slices"
	"sync/atomic"
)

// State is what of a node is free. Build it with [NewState] and the Use
// methods, then call [State.Seal]; from then on it is read only and safe for
// concurrent use.
type State struct {
	Node *Node
	// Kubelet and Load are the node's kubelet and what its managers have handed
	// out; nil where they do not matter. Set them before Seal.
	Kubelet *Kubelet
	Load    *Load
	// taken has a bit per unit that is used or not ready.
	taken bitset
	// free and unknown become the profile's.
	free    []uint16
	unknown []uint16
	// used[r] counts units of resource r that pods hold, known or not.
	used []uint16

	prof *Profile

	memo     [placementSlots]atomic.Pointer[placed]
	nextMemo atomic.Uint32
	why      atomic.Pointer[why]
}

// NewState is the state of a node without pods.
func NewState(n *Node) *State {
	s := &State{
		Node:    n,
		taken:   newBitset(len(n.IDs)),
		free:    make([]uint16, len(n.Shape.cells)),
		unknown: make([]uint16, len(n.Shape.resources)),
		used:    make([]uint16, len(n.Shape.resources)),
	}
	for i := range n.IDs {
		if n.ready.has(i) {
			s.free[n.Shape.unitCell[i]]++
		} else {
			s.taken.set(i)
		}
	}
	return s
}

// Use marks a unit as held by a pod. It reports whether nobody held it before:
// false tells of two pods that claim the same unit.
func (s *State) Use(unit int) bool {
	res := s.Node.Shape.ResourceOf(unit)
	if s.taken.has(unit) {
		// A unit that is not ready may well be held by a pod.
		if !s.Node.ready.has(unit) {
			s.used[res]++
			return true
		}
		return false
	}
	s.taken.set(unit)
	s.free[s.Node.Shape.unitCell[unit]]--
	s.used[res]++
	return true
}

// UseUnknown marks n units of a resource as held by a pod that does not say
// which. Search then takes the worst case for every request: all of them may
// sit in the very domain that it looks at.
func (s *State) UseUnknown(res, n int) {
	s.unknown[res] += uint16(n)
	s.used[res] += uint16(n)
}

// Seal ends the building of the state and returns it.
func (s *State) Seal() *State {
	s.prof = s.Node.Shape.in.profile(s.Node.Shape, s.free, s.unknown)
	return s
}

// Clone is an unsealed copy.
func (s *State) Clone() *State {
	return &State{
		Node: s.Node, Kubelet: s.Kubelet, Load: s.Load,
		taken:   slices.Clone(s.taken),
		free:    slices.Clone(s.free),
		unknown: slices.Clone(s.unknown),
		used:    slices.Clone(s.used),
	}
}

// Free is the number of units of a resource that can be handed out for sure.
func (s *State) Free(res int) int { return s.prof.sum(s.Node.Shape.wholeDom, res) }

// Used is the number of units of a resource that pods hold.
func (s *State) Used(res int) int { return int(s.used[res]) }

// Taken reports whether a unit is used or not ready.
func (s *State) Taken(unit int) bool { return s.taken.has(unit) }
