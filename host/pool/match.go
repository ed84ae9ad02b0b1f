package pool

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/topology"
)

// ErrSelector is the class of errors about a selector that cannot be read.
var ErrSelector = errors.New("invalid selector")

// matcher is a selector in a form that matches fast.
type matcher struct {
	vendors, devices map[uint16]bool
	classes          []string
	drivers          []string
	addresses        map[topology.Address]bool
	// parents are nil when neither pfNames nor rootDevices is set.
	pfNames map[string]vfRange
	roots   map[topology.Address]vfRange
}

// vfRange is a set of VF numbers; nil means all of them, and the physical
// function itself.
type vfRange map[int]bool

func (r vfRange) has(n int) bool { return r == nil || r[n] }

// compile reads selectors; those that cannot be read match nothing and are
// described in the second result.
func compile(selectors []v1alpha1.DeviceSelector) ([]matcher, []string) {
	var ms []matcher
	var bad []string
	for i := range selectors {
		m, err := newMatcher(&selectors[i])
		if err != nil {
			bad = append(bad, fmt.Sprintf("spec.selectors[%d].%s", i, err))
			continue
		}
		ms = append(ms, m)
	}
	return ms, bad
}

func newMatcher(s *v1alpha1.DeviceSelector) (matcher, error) {
	var m matcher
	var err error
	if m.vendors, err = idSet("vendors", s.Vendors); err != nil {
		return m, err
	}
	if m.devices, err = idSet("devices", s.Devices); err != nil {
		return m, err
	}
	for _, c := range s.Classes {
		m.classes = append(m.classes, strings.ToLower(c))
	}
	m.drivers = s.Drivers
	if len(s.Addresses) > 0 {
		m.addresses = map[topology.Address]bool{}
		for _, t := range s.Addresses {
			a, err := topology.ParseAddress(t)
			if err != nil {
				return m, fmt.Errorf("addresses: %w", err)
			}
			m.addresses[a] = true
		}
	}
	for _, t := range s.PFNames {
		name, r, err := ParseVFRange(t)
		if err != nil {
			return m, fmt.Errorf("pfNames: %w", err)
		}
		if m.pfNames == nil {
			m.pfNames = map[string]vfRange{}
		}
		m.pfNames[name] = join(m.pfNames, name, r)
	}
	for _, t := range s.RootDevices {
		name, r, err := ParseVFRange(t)
		if err != nil {
			return m, fmt.Errorf("rootDevices: %w", err)
		}
		a, err := topology.ParseAddress(name)
		if err != nil {
			return m, fmt.Errorf("rootDevices: %w", err)
		}
		if m.roots == nil {
			m.roots = map[topology.Address]vfRange{}
		}
		m.roots[a] = join(m.roots, a, r)
	}
	return m, nil
}

// join adds a range to what a list said of the same device before.
func join[K comparable](all map[K]vfRange, k K, r []int) vfRange {
	old, seen := all[k]
	if r == nil || seen && old == nil {
		return nil
	}
	if old == nil {
		old = vfRange{}
	}
	for _, n := range r {
		old[n] = true
	}
	return old
}

func idSet(field string, ids []string) (map[uint16]bool, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	set := map[uint16]bool{}
	for _, t := range ids {
		v, err := strconv.ParseUint(t, 16, 16)
		if err != nil || len(t) != 4 {
			return nil, fmt.Errorf("%s: %w: %q is not four hexadecimal digits", field, ErrSelector, t)
		}
		set[uint16(v)] = true
	}
	return set, nil
}

// maxVFs bounds VF numbers: a PCI bus range has no more functions.
const maxVFs = 65535

// ParseVFRange splits "eth2#0,2-7" into the name and the numbers; the numbers
// are nil without '#'. Errors are of class [ErrSelector].
func ParseVFRange(s string) (name string, vfs []int, err error) {
	name, list, ranged := strings.Cut(s, "#")
	if name == "" {
		return "", nil, fmt.Errorf("%w: %q names no device", ErrSelector, s)
	}
	if !ranged {
		return name, nil, nil
	}
	vfs = []int{}
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, span := strings.Cut(part, "-")
		a, err1 := strconv.ParseUint(lo, 10, 32)
		b := a
		var err2 error
		if span {
			b, err2 = strconv.ParseUint(hi, 10, 32)
		}
		if err1 != nil || err2 != nil || b < a || b > maxVFs {
			return "", nil, fmt.Errorf("%w: %q: want VF numbers such as 0,2-7 after '#', not %q", ErrSelector, s, part)
		}
		for n := a; n <= b; n++ {
			vfs = append(vfs, int(n))
		}
		if len(vfs) > maxVFs+1 {
			return "", nil, fmt.Errorf("%w: %q names more VFs than there can be", ErrSelector, s)
		}
	}
	slices.Sort(vfs)
	return name, slices.Compact(vfs), nil
}

// common matches the fields that mean the same for all functions.
func (m *matcher) common(f *topology.Function, former map[topology.Address]string) bool {
	if m.vendors != nil && !m.vendors[f.Vendor] || m.devices != nil && !m.devices[f.Device] {
		return false
	}
	if len(m.classes) > 0 {
		c := fmt.Sprintf("%06x", f.Class)
		if !slices.ContainsFunc(m.classes, func(p string) bool { return strings.HasPrefix(c, p) }) {
			return false
		}
	}
	if len(m.drivers) > 0 && !slices.Contains(m.drivers, f.Driver) {
		if was := former[f.Address]; was == "" || !slices.Contains(m.drivers, was) {
			return false
		}
	}
	return m.addresses == nil || m.addresses[f.Address]
}

// parent is the range that the selector gives for a physical function; ok is
// false when the selector does not mean it.
func (m *matcher) parent(pf *topology.Function) (r vfRange, ok bool) {
	if m.pfNames == nil && m.roots == nil {
		return nil, true
	}
	byName, byRoot := m.pfNames == nil, m.roots == nil
	var all []vfRange
	for _, n := range pf.Net {
		if x, hit := m.pfNames[n]; hit {
			byName = true
			all = append(all, x)
		}
	}
	if x, hit := m.roots[pf.Address]; hit {
		byRoot = true
		all = append(all, x)
	}
	if !byName || !byRoot {
		return nil, false
	}
	for _, x := range all {
		if x == nil {
			continue
		}
		if r == nil {
			r = x
			continue
		}
		// Both fields are set: a VF must be in both ranges.
		both := vfRange{}
		for n := range r {
			if x[n] {
				both[n] = true
			}
		}
		r = both
	}
	return r, true
}

// function matches a function that is to be handed out itself.
func (m *matcher) function(h *topology.Host, f *topology.Function, former map[topology.Address]string) bool {
	if !m.common(f, former) {
		return false
	}
	if m.pfNames == nil && m.roots == nil {
		return true
	}
	pf := f
	if f.PF != nil {
		if pf = h.Function(*f.PF); pf == nil {
			return false
		}
	}
	r, ok := m.parent(pf)
	if !ok {
		return false
	}
	if f.PF == nil {
		return r == nil // a range means virtual functions
	}
	return r.has(f.VFIndex)
}

// physical matches a physical function whose virtual ones are wanted.
func (m *matcher) physical(pf *topology.Function, former map[topology.Address]string) bool {
	_, ok := m.parent(pf)
	return ok && m.common(pf, former)
}

// wantsVF tells whether the selector means VF n of a physical function.
func (m *matcher) wantsVF(pf *topology.Function, n int) bool {
	r, ok := m.parent(pf)
	return ok && r.has(n)
}
