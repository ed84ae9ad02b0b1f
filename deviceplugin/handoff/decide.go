package handoff

import (
	"context"
	"fmt"
	"slices"
)

// Grant is what Allocate accepted.
type Grant struct {
	// PodUID, Namespace, Name and Container are empty when a pool in Adopt mode
	// accepted units for a pod that could not be told.
	PodUID, Namespace, Name, Container string
	// Units in the order of the assignment, else sorted.
	Units []string
}

// Preferred answers kubelet's GetPreferredAllocation: exactly size IDs. An error
// fails the pod's admission.
func (l *Ledger) Preferred(ctx context.Context, resource string, available, must []string, size int) ([]string, error) {
	l.forget()
	pool, err := l.pool(resource)
	if err != nil {
		return nil, l.refuse(resource, nil, err)
	}
	v, s, err := l.identify(ctx, resource, size)
	if err != nil && !pool.adopt {
		return nil, l.refuse(resource, nil, err)
	}
	ids, err := l.prefer(ctx, v, s, pool, resource, available, must, size)
	if err != nil {
		return nil, l.refuse(resource, s.pod, err)
	}
	l.remember(resource, ids, v, s)
	return ids, nil
}

// prefer chooses for a subject, which may be unknown in Adopt mode.
func (l *Ledger) prefer(ctx context.Context, v *view, s subject, pool *pool, resource string, available, must []string, size int) ([]string, error) {
	want, has, err := l.wish(s, resource, size, pool.adopt)
	if err != nil {
		return nil, err
	}
	if has {
		err := l.feasible(want, available, must)
		if err == nil {
			return want, nil
		}
		if !pool.adopt {
			return nil, err
		}
	}
	if has {
		want = slices.DeleteFunc(want, func(u string) bool { return !slices.Contains(available, u) && !slices.Contains(must, u) })
		return l.fill(v, s, want, available, must, size, true), nil
	}
	out := l.fill(v, s, nil, available, must, size, pool.adopt)
	if len(out) < size {
		// The former holders' end may be on its way to us.
		l.await(ctx, func(w *view) bool {
			out = l.fill(w, s, nil, available, must, size, false)
			return len(out) == size
		}, v)
	}
	if len(out) < size {
		return nil, fmt.Errorf("%w: pod %s has no assignment and of %d free units of %s only %d are not assigned to or held by others",
			ErrReserved, name(s.pod), len(available), resource, len(out))
	}
	return out, nil
}

// wish gives the units that the scheduler named for the subject; false when
// there is no assignment (or it does not count, in Adopt mode).
func (l *Ledger) wish(s subject, resource string, size int, adopt bool) ([]string, bool, error) {
	if s.pod == nil {
		return nil, false, nil
	}
	if s.pod.AssignmentErr != nil {
		if adopt {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("%w: pod %s: %w", ErrMismatch, s.pod.Ref(), s.pod.AssignmentErr)
	}
	want, has := assigned(s.pod, s.container, resource)
	if !has {
		return nil, false, nil
	}
	if len(want) != size {
		if adopt {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("%w: pod %s container %s: the assignment names %d units of %s, kubelet wants %d",
			ErrMismatch, s.pod.Ref(), s.container, len(want), resource, size)
	}
	return want, true, nil
}

// feasible says why the assigned units cannot be kubelet's choice.
func (l *Ledger) feasible(want, available, must []string) error {
	// There may be thousands available, and few are wanted.
	offered := make(map[string]bool, len(want))
	for _, u := range want {
		offered[u] = slices.Contains(must, u)
	}
	for _, u := range available {
		if _, ok := offered[u]; ok {
			offered[u] = true
		}
	}
	for _, u := range want {
		if offered[u] {
			continue
		}
		if c, ok := l.Owner(u); ok {
			return fmt.Errorf("%w: %s is assigned but still held by pod %s/%s", ErrMismatch, u, c.Namespace, c.Name)
		}
		return fmt.Errorf("%w: %s is assigned but kubelet does not offer it (unhealthy, taken, or on a NUMA node that its topology manager excludes)", ErrMismatch, u)
	}
	for _, u := range must {
		if !slices.Contains(want, u) {
			return fmt.Errorf("%w: kubelet insists on %s, which an init container held, but it is not assigned", ErrMismatch, u)
		}
	}
	return nil
}

// fill chooses for a pod without assignment: must, then units that nobody else
// has a right to, lowest address first. With any it takes others' too, last.
// There may be thousands available, and few are wanted: one pass, no sorting.
func (l *Ledger) fill(v *view, s subject, first, available, must []string, size int, any bool) []string {
	out := slices.Clone(must)
	for _, u := range first {
		if len(out) < size && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	missing := size - len(out)
	others := l.others(v, s.pod)
	var free, rest []string
	for _, u := range available {
		switch {
		case slices.Contains(out, u):
		case others[u] == "":
			free = keepLowest(free, u, missing)
		case any:
			rest = keepLowest(rest, u, missing)
		}
	}
	for _, u := range append(free, rest...) {
		if len(out) >= size {
			break
		}
		out = append(out, u)
	}
	return out
}

// keepLowest puts u into a sorted list of the n lowest, each once.
func keepLowest(list []string, u string, n int) []string {
	if len(list) >= n && (n <= 0 || u >= list[len(list)-1]) {
		return list
	}
	i, found := slices.BinarySearch(list, u)
	if found {
		return list
	}
	if len(list) >= n {
		list = list[:n-1]
	}
	return slices.Insert(list, i, u)
}

// others maps units to the live pod that has a right to them: by its claim, or
// by its assignment where it has no claim for that container and resource yet.
func (l *Ledger) others(v *view, self *Pod) map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for u, k := range l.owner {
		if self != nil && k.uid == self.UID {
			continue
		}
		if p := v.pods[k.uid]; p != nil && !p.Terminal {
			out[u] = p.Ref()
		} else if p == nil && !v.complete {
			out[u] = k.uid
		}
	}
	for uid, p := range v.pods {
		if p.Terminal || p.Assignment == nil || self != nil && uid == self.UID {
			continue
		}
		for container, resources := range p.Assignment.Containers {
			for resource, units := range resources {
				if l.claims[claimKey{uid, container, resource}] != nil {
					continue
				}
				for _, u := range units {
					out[u.String()] = p.Ref()
				}
			}
		}
	}
	return out
}

// await repeats f with fresh views until it holds or cfg.Wait is over.
func (l *Ledger) await(ctx context.Context, f func(*view) bool, former *view) bool {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Wait)
	defer cancel()
	for {
		changed := l.changed()
		if f(l.look(ctx, former)) {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// Allocate answers kubelet's Allocate for one container and records the claim.
// An error fails the pod's admission.
func (l *Ledger) Allocate(ctx context.Context, resource string, ids []string) (Grant, error) {
	v, s, known := l.recall(resource, ids)
	pool, err := l.pool(resource)
	if err == nil {
		err = pool.check(resource, ids)
	}
	if err != nil {
		return Grant{}, l.refuse(resource, nil, err)
	}
	if !known {
		v, s, err = l.identify(ctx, resource, len(ids))
	}
	if err != nil {
		if !pool.adopt {
			return Grant{}, l.refuse(resource, nil, err)
		}
		l.cfg.Report(Report{Kind: Adopted, Resource: resource, Message: fmt.Sprintf("gave %s to a pod that could not be told: %v", list(ids), err)})
		return Grant{Units: slices.Sorted(slices.Values(ids))}, nil
	}
	want, has, err := l.wish(s, resource, len(ids), pool.adopt)
	if err != nil {
		return Grant{}, l.refuse(resource, s.pod, err)
	}
	g := Grant{PodUID: s.pod.UID, Namespace: s.pod.Namespace, Name: s.pod.Name, Container: s.container}
	exact := has && sameSet(want, ids)
	switch {
	case exact:
		g.Units = want
	case has && !pool.adopt:
		return Grant{}, l.refuse(resource, s.pod, fmt.Errorf("%w: pod %s container %s: kubelet chose %s, assigned are %s",
			ErrMismatch, s.pod.Ref(), s.container, list(ids), list(want)))
	default:
		g.Units = slices.Sorted(slices.Values(ids))
		taken := ""
		free := func(w *view) bool {
			others := l.others(w, s.pod)
			for _, u := range ids {
				if who := others[u]; who != "" {
					taken = fmt.Sprintf("%s belongs to pod %s", u, who)
					return false
				}
			}
			return true
		}
		if !free(v) && !l.await(ctx, free, v) && !pool.adopt {
			return Grant{}, l.refuse(resource, s.pod, fmt.Errorf("%w: pod %s has no assignment and %s", ErrReserved, s.pod.Ref(), taken))
		}
		if has || taken != "" {
			l.cfg.Report(Report{Kind: Adopted, Resource: resource, PodUID: s.pod.UID, Namespace: s.pod.Namespace, Name: s.pod.Name,
				Message: fmt.Sprintf("container %s: gave kubelet's choice %s, assigned are %s", s.container, list(ids), list(want))})
		}
	}
	l.mu.Lock()
	released := l.setLocked(Claim{PodUID: g.PodUID, Namespace: g.Namespace, Name: g.Name, Container: g.Container,
		Resource: resource, IDs: ids, Assigned: exact, Sure: s.sure})
	l.mu.Unlock()
	l.tellReleased(released)
	return g, nil
}

// Verify is the last gate before a container starts: it asks kubelet who really
// holds the units and refuses when that pod was assigned others. Only kubelet's
// word counts here, not what was believed at allocation: a pod that nobody but
// kubelet knows yet may have been taken for another. On success it returns the
// claim, which is certain then. Kubelet repeats a start that was refused.
func (l *Ledger) Verify(ctx context.Context, resource string, ids []string) (Claim, error) {
	pool, err := l.pool(resource)
	if err == nil {
		err = pool.check(resource, ids)
	}
	if err != nil {
		return Claim{}, l.refuse(resource, nil, err)
	}
	held, v, err := l.reconcile(ctx)
	if err != nil {
		return Claim{}, l.refuse(resource, nil, fmt.Errorf("%w: %s: %w", ErrUnsure, list(ids), err))
	}
	i := slices.IndexFunc(held, func(h Held) bool { return h.Resource == resource && sameSet(h.IDs, ids) })
	if i < 0 {
		return Claim{}, l.refuse(resource, nil, fmt.Errorf("%w: kubelet names nobody who holds exactly %s", ErrUnsure, list(ids)))
	}
	h := held[i]
	p := v.byName()[h.Namespace+"/"+h.Name]
	if p == nil || p.Terminal {
		return Claim{}, l.refuse(resource, nil, fmt.Errorf("%w: %s: kubelet names pod %s/%s, which is not known here yet", ErrUnsure, list(ids), h.Namespace, h.Name))
	}
	want, has := assigned(p, h.Container, resource)
	if has && !sameSet(want, ids) && !pool.adopt {
		return Claim{}, l.refuse(resource, p, fmt.Errorf("%w: pod %s container %s holds %s, assigned are %s",
			ErrMismatch, p.Ref(), h.Container, list(ids), list(want)))
	}
	return Claim{PodUID: p.UID, Namespace: p.Namespace, Name: p.Name, Container: h.Container, Resource: resource,
		IDs: slices.Sorted(slices.Values(ids)), Assigned: has && sameSet(want, ids), Sure: true}, nil
}

func (l *Ledger) pool(resource string) (*pool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pools[resource]
	if p == nil {
		return nil, fmt.Errorf("%w: no pool offers %s on this node", ErrUnit, resource)
	}
	return p, nil
}

// check refuses IDs that are not distinct units of the pool.
func (p *pool) check(resource string, ids []string) error {
	if len(ids) == 0 {
		return fmt.Errorf("%w: kubelet names no device of %s", ErrUnit, resource)
	}
	seen := make(map[string]bool, len(ids))
	for _, u := range ids {
		if !p.units[u] || seen[u] {
			return fmt.Errorf("%w: %q of %s", ErrUnit, u, resource)
		}
		seen[u] = true
	}
	return nil
}

// refuse reports an error and returns it.
func (l *Ledger) refuse(resource string, p *Pod, err error) error {
	r := Report{Kind: Refused, Resource: resource, Message: err.Error(), Err: err}
	if p != nil {
		r.PodUID, r.Namespace, r.Name = p.UID, p.Namespace, p.Name
	}
	l.cfg.Report(r)
	return err
}

func name(p *Pod) string {
	if p == nil {
		return "(unknown)"
	}
	return p.Ref()
}
