package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kubevfio/kubevfio/topology"
)

// Item asks for units of one resource, the sum over the pod's containers.
type Item struct {
	Resource string
	Count    int
}

// Request is what one pod wants of a node.
type Request struct {
	// Items are sorted by resource, counts are above 0.
	Items []Item
	// Level is the wished alignment of all units together; [topology.Other]
	// when the pod has no wish.
	Level topology.Distance
	// Required makes Level a condition instead of a preference.
	Required bool

	// bounds is *Shape -> *bound.
	bounds sync.Map
}

// NewRequest sorts the items, drops empty ones and joins equal resources.
func NewRequest(items []Item, level topology.Distance, required bool) *Request {
	items = slices.Clone(items)
	slices.SortFunc(items, func(a, b Item) int { return cmp.Compare(a.Resource, b.Resource) })
	r := &Request{Level: level, Required: required && level < topology.Other}
	for _, it := range items {
		switch n := len(r.Items); {
		case it.Count <= 0:
		case n > 0 && r.Items[n-1].Resource == it.Resource:
			r.Items[n-1].Count += it.Count
		default:
			r.Items = append(r.Items, it)
		}
	}
	return r
}

// Units is the number of units asked for.
func (r *Request) Units() int {
	n := 0
	for _, it := range r.Items {
		n += it.Count
	}
	return n
}

// String is canonical: equal for equal requests.
func (r *Request) String() string {
	var b strings.Builder
	for i, it := range r.Items {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", it.Count, it.Resource)
	}
	if r.Level < topology.Other {
		how := "preferred"
		if r.Required {
			how = "required"
		}
		fmt.Fprintf(&b, " (%s: %s)", how, r.Level)
	}
	return b.String()
}

// bound is a request in the resource indexes of one shape.
type bound struct {
	res []int
	n   []int
	// scarcity weighs a unit of each resource by how few there are: 1000 for
	// the scarcest of the request.
	scarcity []int
	// missing is the first resource that the shape does not have, "" if none.
	missing string
}

// on is the request in the terms of a shape. It is computed once per shape.
func (r *Request) on(s *Shape) *bound {
	if b, ok := r.bounds.Load(s); ok {
		return b.(*bound)
	}
	b := &bound{res: make([]int, len(r.Items)), n: make([]int, len(r.Items)), scarcity: make([]int, len(r.Items))}
	least := 0
	for i, it := range r.Items {
		b.n[i] = it.Count
		if b.res[i] = s.Resource(it.Resource); b.res[i] < 0 {
			if b.missing == "" {
				b.missing = it.Resource
			}
			continue
		}
		if t := s.Total(b.res[i]); t > 0 && (least == 0 || t < least) {
			least = t
		}
	}
	for i, res := range b.res {
		// A resource of the table may have no unit.
		if res >= 0 {
			b.scarcity[i] = 1000 * max(1, least) / max(1, s.Total(res))
		}
	}
	r.bounds.Store(s, b)
	return b
}
