package engine

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/kubevfio/kubevfio/topology"
)

// cases is how many random cases a differential test runs: ORACLE_CASES, or a
// number that fits a unit test.
func cases(t *testing.T, def int) int {
	t.Helper()
	s := os.Getenv("ORACLE_CASES")
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("ORACLE_CASES: %v", err)
	}
	return n
}

// randomSpec is a small node of any shape: nested switches, unknown NUMA nodes,
// several functions per PF, fabric sets, units that are not ready.
func randomSpec(r *rand.Rand) *Spec {
	sp := &Spec{Resources: []string{"example.com/gpu", "example.com/vf", "example.com/nvme"}[:1+r.IntN(3)]}
	sockets := 1 + r.IntN(2)
	numa := sockets * (1 + r.IntN(2))
	for n := range numa {
		socket := n % sockets
		if r.IntN(8) == 0 {
			socket = -1
		}
		sp.NUMA = append(sp.NUMA, NUMASpec{ID: n, Socket: socket})
	}
	roots := 1 + r.IntN(4)
	for i := range roots {
		sp.Places = append(sp.Places, PlaceSpec{Name: fmt.Sprintf("pci%04x", i), Parent: -1})
	}
	for i := range r.IntN(5) {
		sp.Places = append(sp.Places, PlaceSpec{Name: fmt.Sprintf("sw%d", i), Parent: r.IntN(len(sp.Places))})
	}
	rootNUMA := make([]int, len(sp.Places))
	for i := range sp.Places {
		rootNUMA[i] = r.IntN(numa+1) - 1
		if p := sp.Places[i].Parent; p >= 0 {
			rootNUMA[i] = rootNUMA[p]
		}
	}
	for i := range 1 + r.IntN(9) {
		place := r.IntN(len(sp.Places))
		u := UnitSpec{
			ID: fmt.Sprintf("0000:%02x:00.0", i), Place: place, Resource: r.IntN(len(sp.Resources)),
			NUMA: rootNUMA[place], Ready: r.IntN(8) > 0,
		}
		if r.IntN(10) == 0 {
			u.NUMA = topology.NUMAUnknown
		}
		if u.Resource == 1 {
			u.PF = fmt.Sprintf("0000:%02x:00.1", place*2+r.IntN(2))
		}
		sp.Units = append(sp.Units, u)
	}
	if r.IntN(4) == 0 {
		for range 1 + r.IntN(4) {
			var set []string
			for _, u := range sp.Units {
				if u.Resource == 0 && r.IntN(2) == 0 {
					set = append(set, u.ID)
				}
			}
			if len(set) > 0 {
				sp.Fabric = append(sp.Fabric, set)
			}
		}
	}
	return sp
}

func randomRequest(r *rand.Rand, sp *Spec) *Request {
	var items []Item
	for _, res := range sp.Resources {
		if n := r.IntN(4); n > 0 {
			items = append(items, Item{Resource: res, Count: n})
		}
	}
	if len(items) == 0 {
		items = append(items, Item{Resource: sp.Resources[0], Count: 1})
	}
	return NewRequest(items, topology.Distance(r.IntN(5)), r.IntN(2) == 0)
}

// distance is how far two units are apart, straight from the description.
func (sp *Spec) switches(u UnitSpec) (chain []int, root int) {
	p := u.Place
	for sp.Places[p].Parent >= 0 {
		chain = append(chain, p)
		p = sp.Places[p].Parent
	}
	return chain, p
}

// sameLevel reports whether a set of units shares one place of a level; the
// oracle's own reading of the wish.
func (sp *Spec) sameLevel(units []UnitSpec, l topology.Distance) bool {
	share := func(same func(a, b UnitSpec) bool) bool {
		for _, u := range units[1:] {
			if !same(units[0], u) {
				return false
			}
		}
		return true
	}
	socket := func(u UnitSpec) int {
		for _, n := range sp.NUMA {
			if n.ID == u.NUMA {
				return n.Socket
			}
		}
		return -1
	}
	sw := func(a, b UnitSpec) bool {
		ca, _ := sp.switches(a)
		cb, _ := sp.switches(b)
		return slices.ContainsFunc(ca, func(p int) bool { return slices.Contains(cb, p) })
	}
	root := func(a, b UnitSpec) bool {
		_, ra := sp.switches(a)
		_, rb := sp.switches(b)
		return ra == rb
	}
	numa := func(a, b UnitSpec) bool { return a.NUMA >= 0 && a.NUMA == b.NUMA }
	sock := func(a, b UnitSpec) bool {
		return a.NUMA >= 0 && b.NUMA >= 0 && socket(a) >= 0 && socket(a) == socket(b)
	}
	// One unit without a switch of its own is in no switch.
	if l >= topology.SameSwitch && share(sw) {
		if c, _ := sp.switches(units[0]); len(c) > 0 {
			return true
		}
	}
	return l >= topology.SameRoot && share(root) || l >= topology.SameNUMA && share(numa) || l >= topology.SameSocket && share(sock)
}

// legal reports whether a set of units obeys the fabric.
func (sp *Spec) legal(units []UnitSpec) bool {
	byRes := map[int][]string{}
	for _, u := range units {
		byRes[u.Resource] = append(byRes[u.Resource], u.ID)
	}
	for res, ids := range byRes {
		inFabric := false
		for _, set := range sp.Fabric {
			for _, id := range set {
				for _, u := range sp.Units {
					inFabric = inFabric || (u.ID == id && u.Resource == res)
				}
			}
		}
		if !inFabric || len(ids) < 2 {
			continue
		}
		slices.Sort(ids)
		if !slices.ContainsFunc(sp.Fabric, func(set []string) bool {
			s := slices.Clone(set)
			slices.Sort(s)
			return slices.Equal(s, ids)
		}) {
			return false
		}
	}
	return true
}

// oracle tries every subset of the free units and returns the nearest level at
// which the request can be had.
func oracle(sp *Spec, used map[string]bool, req *Request) (topology.Distance, bool) {
	var free []UnitSpec
	for _, u := range sp.Units {
		if u.Ready && !used[u.ID] {
			free = append(free, u)
		}
	}
	best, found := topology.Other, false
	want := map[string]int{}
	for _, it := range req.Items {
		want[it.Resource] = it.Count
	}
	for m := uint32(1); m < 1<<len(free); m++ {
		if bits.OnesCount32(m) != req.Units() {
			continue
		}
		var units []UnitSpec
		have := map[string]int{}
		for i, u := range free {
			if m&(1<<i) != 0 {
				units = append(units, u)
				have[sp.Resources[u.Resource]]++
			}
		}
		if !mapsEqual(have, want) || !sp.legal(units) {
			continue
		}
		l := topology.SameSwitch
		for l < topology.Other && !sp.sameLevel(units, l) {
			l++
		}
		if req.Required && l > req.Level && len(units) > 1 {
			continue
		}
		found = true
		best = min(best, l)
	}
	return best, found
}

func mapsEqual(a, b map[string]int) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// TestOracle compares search with the exhaustive oracle: feasibility and level
// always, and that the choice is legal.
func TestOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	n := cases(t, 20000)
	feasible := 0
	for i := range n {
		sp := randomSpec(r)
		in := &Interner{}
		node, err := NewNode(sp, in)
		if err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		st := NewState(node)
		used := map[string]bool{}
		for _, u := range sp.Units {
			if r.IntN(4) == 0 {
				used[u.ID] = true
				st.Use(node.Unit(u.ID))
			}
		}
		st.Seal()
		req := randomRequest(r, sp)
		wantLevel, want := oracle(sp, used, req)
		gotLevel, got := Feasible(st, req)
		if got != want || (got && req.Units() > 1 && gotLevel != wantLevel) {
			t.Fatalf("case %d: Feasible = %v %v, oracle %v %v\nspec %+v\nused %v\nrequest %s", i, gotLevel, got, wantLevel, want, sp, used, req)
		}
		var mix *Mix
		if r.IntN(2) == 0 {
			mix = &Mix{types: []mixType{{req: randomRequest(r, sp), weight: 600}, {req: randomRequest(r, sp), weight: 400}}}
		}
		c, ok := Place(st, &Pod{Request: req, Containers: []Container{{Name: "c", Items: req.Items}}}, mix)
		if ok != want {
			t.Fatalf("case %d: Place ok = %v, oracle %v\nspec %+v\nused %v\nrequest %s", i, ok, want, sp, used, req)
		}
		if ok {
			feasible++
			checkChoice(t, i, sp, node, used, req, c, wantLevel)
		}
	}
	if n >= 1000 && (feasible < n/10 || feasible > n*9/10) {
		t.Errorf("only %d of %d cases are feasible: the generator is lopsided", feasible, n)
	}
}

func checkChoice(t *testing.T, i int, sp *Spec, node *Node, used map[string]bool, req *Request, c *Placement, best topology.Distance) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Fatalf("case %d: %s\nspec %+v\nused %v\nrequest %s\nchoice %+v", i, fmt.Sprintf(format, args...), sp, used, req, c)
	}
	var units []UnitSpec
	seen := map[int]bool{}
	for k, it := range req.Items {
		if len(c.Units[0][k]) != it.Count {
			fail("%d units of %s, want %d", len(c.Units[0][k]), it.Resource, it.Count)
		}
		for _, u := range c.Units[0][k] {
			id := node.IDs[u]
			su := sp.Units[slices.IndexFunc(sp.Units, func(x UnitSpec) bool { return x.ID == id })]
			if used[id] || !su.Ready || seen[u] || sp.Resources[su.Resource] != it.Resource {
				fail("unit %s cannot be taken for %s", id, it.Resource)
			}
			seen[u] = true
			units = append(units, su)
		}
	}
	if !sp.legal(units) {
		fail("the fabric cannot join the units")
	}
	if len(units) == 1 {
		return
	}
	l := topology.SameSwitch
	for l < topology.Other && !sp.sameLevel(units, l) {
		l++
	}
	if l != c.Level {
		fail("claims level %v, is %v", c.Level, l)
	}
	// Up to the wish a nearer level is worth nothing; beyond it the nearest is taken.
	if l > max(best, req.Level) {
		fail("level %v, best %v", l, best)
	}
}
