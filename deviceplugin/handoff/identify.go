package handoff

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"
)

// view is one moment's union of kubelet's list and the informer's.
type view struct {
	pods map[string]*Pod // by UID
	// inKubelet holds the UIDs of kubelet's list, valid when kubelet is true.
	inKubelet map[string]bool
	kubelet   bool
	// complete says that both lists could be read.
	complete bool
	err      error // why kubelet's list could not be read
	epoch    int   // kubelet's, see Ledger
}

// look reads both lists. With a former view whose kubelet list was read, that
// part is reused: while kubelet waits for us its list does not change.
func (l *Ledger) look(ctx context.Context, former *view) *view {
	v := &view{pods: map[string]*Pod{}, inKubelet: map[string]bool{}}
	informed, ierr := l.cfg.Informer.Pods(ctx)
	if ierr == nil {
		v.pods = clonePods(informed)
	}
	l.mu.Lock()
	epoch := l.epoch
	v.epoch = epoch
	l.mu.Unlock()
	var own []Pod
	fresh := false
	if former != nil && former.kubelet {
		v.kubelet = true
		for uid := range former.inKubelet {
			own = append(own, *former.pods[uid])
		}
	} else if l.cfg.Kubelet != nil {
		own, v.err = l.cfg.Kubelet.Pods(ctx)
		v.kubelet = v.err == nil
		fresh = v.kubelet
	}
	v.complete = v.kubelet && ierr == nil
	for i := range own {
		p := own[i]
		v.inKubelet[p.UID] = true
		if q := v.pods[p.UID]; q != nil {
			p = merge(p, q)
		}
		v.pods[p.UID] = &p
	}
	if fresh {
		l.number(v, epoch)
	}
	return v
}

// number gives the pods that are new in kubelet's list the number of this look.
func (l *Ledger) number(v *view, epoch int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch != l.epoch {
		return // read from a kubelet that is gone
	}
	l.looks++
	for uid := range v.inKubelet {
		if l.seen[uid] == 0 {
			l.seen[uid] = l.looks
		}
	}
	for uid := range l.seen {
		if !v.inKubelet[uid] {
			delete(l.seen, uid)
		}
	}
}

// merge takes from both what can only become true once.
func merge(p Pod, q *Pod) Pod {
	p.Terminal = p.Terminal || q.Terminal
	if p.Assignment == nil && q.Assignment != nil {
		p.Assignment, p.AssignmentErr = q.Assignment, nil
	}
	containers := make([]Container, len(p.Containers))
	copy(containers, p.Containers)
	for i := range containers {
		for j := range q.Containers {
			if q.Containers[j].Name != containers[i].Name {
				continue
			}
			containers[i].Started = containers[i].Started || q.Containers[j].Started
			if len(q.Containers[j].Devices) > 0 {
				containers[i].Devices = q.Containers[j].Devices
			}
		}
	}
	p.Containers = containers
	return p
}

// candidate is a container that may be the one under admission.
type candidate struct {
	pod       *Pod
	container string
	seen      int
	// stale: the container has a claim that kubelet may have lost.
	stale bool
}

// next finds the container of the pod that kubelet would serve next with this
// resource: the first in order that wants it and holds none.
func (l *Ledger) nextLocked(p *Pod, resource string) (c *Container, stale bool) {
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Limits[resource] == 0 || c.Started || len(c.Devices[resource]) > 0 {
			continue
		}
		k := claimKey{p.UID, c.Name, resource}
		if claim := l.claims[k]; claim != nil {
			if claim.stale {
				return c, true
			}
			continue
		}
		return c, false
	}
	return nil, false
}

// candidates lists the containers that kubelet may be asking for.
func (l *Ledger) candidates(v *view, resource string, size int) []candidate {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []candidate
	for uid, p := range v.pods {
		if p.Terminal || v.kubelet && !v.inKubelet[uid] || p.Node != "" && p.Node != l.cfg.Node {
			continue
		}
		c, stale := l.nextLocked(p, resource)
		if c == nil || c.Limits[resource] != size {
			continue
		}
		out = append(out, candidate{pod: p, container: c.Name, seen: l.seen[uid], stale: stale})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].pod.Created.Before(out[j].pod.Created) })
	return out
}

// newest narrows candidates of kubelet's list to those that came last: kubelet
// adds a pod right before its admission, so whoever was there before the newest
// one has been through its admission already.
func newest(cands []candidate) []candidate {
	last := 0
	for _, c := range cands {
		last = max(last, c.seen)
	}
	var out []candidate
	for _, c := range cands {
		if c.seen == last {
			out = append(out, c)
		}
	}
	return out
}

// subject is the answer to "for whom is this call?".
type subject struct {
	candidate
	// sure: by kubelet's own list, and only one fits.
	sure bool
}

// identify finds the container under admission that wants size units of the
// resource. It waits at most cfg.Wait for facts that settle the question.
func (l *Ledger) identify(ctx context.Context, resource string, size int) (*view, subject, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Wait)
	defer cancel()
	var v *view
	asked := false
	for {
		changed := l.changed()
		v = l.look(ctx, v)
		cands := l.candidates(v, resource, size)
		if !asked && anyStale(cands) && l.cfg.Holders != nil {
			// Kubelet knows which of the older claims it still honours.
			asked = true
			if l.settle(ctx, v) {
				cands = l.candidates(v, resource, size)
			}
		}
		if len(cands) > 1 && v.kubelet {
			cands = newest(cands)
		}
		if len(cands) == 1 && (v.kubelet || l.cfg.Kubelet == nil) {
			return v, subject{candidate: cands[0], sure: v.kubelet}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if len(cands) == 1 {
				return v, subject{candidate: cands[0]}, nil
			}
			return v, subject{}, doubt(v, cands, resource, size)
		}
	}
}

// settle asks the pod-resources API about doubtful claims.
func (l *Ledger) settle(ctx context.Context, v *view) bool {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Wait/2)
	defer cancel()
	l.mu.Lock()
	epoch := l.epoch
	l.mu.Unlock()
	held, err := l.cfg.Holders.Holders(ctx)
	if err != nil {
		l.cfg.Log.Warn("kubelet's pod-resources API does not answer", "err", err)
		return false
	}
	l.confirm(v, held, epoch)
	return true
}

func anyStale(cands []candidate) bool {
	for _, c := range cands {
		if c.stale {
			return true
		}
	}
	return false
}

// changed is the informer's signal, or a short timer without one.
func (l *Ledger) changed() <-chan struct{} {
	if l.cfg.Changed != nil {
		return l.cfg.Changed()
	}
	c := make(chan struct{})
	time.AfterFunc(25*time.Millisecond, func() { close(c) })
	return c
}

func doubt(v *view, cands []candidate, resource string, size int) error {
	var why string
	if !v.kubelet {
		why = "; kubelet's own list of pods could not be read"
		if v.err != nil {
			why += ": " + v.err.Error()
		}
	}
	if len(cands) == 0 {
		return fmt.Errorf("%w: no pod of this node waits for %d of %s%s", ErrNoPod, size, resource, why)
	}
	names := make([]string, 0, len(cands))
	for _, c := range cands {
		names = append(names, c.pod.Ref())
	}
	return fmt.Errorf("%w: %s each wait for %d of %s%s", ErrAmbiguous, strings.Join(names, ", "), size, resource, why)
}
