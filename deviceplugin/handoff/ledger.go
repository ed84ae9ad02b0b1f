package handoff

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Held is what kubelet says that a container holds (pod-resources API).
type Held struct {
	Namespace, Name, Container, Resource string
	IDs                                  []string
}

// Holders asks kubelet who holds what: complete for pods that kubelet has
// admitted, and certain.
type Holders interface {
	Holders(ctx context.Context) ([]Held, error)
}

// Claim is one container's units of one resource.
type Claim struct {
	PodUID, Namespace, Name, Container, Resource string
	IDs                                          []string
	// Assigned says that the scheduler named these units for the pod.
	Assigned bool
	// Sure says that the pod's identity at allocation, or later the
	// pod-resources API, leaves no doubt.
	Sure bool
	// stale claims are from before kubelet's last start: kubelet may have lost
	// them.
	stale bool
}

type claimKey struct{ uid, container, resource string }

func (c *Claim) key() claimKey { return claimKey{c.PodUID, c.Container, c.Resource} }

type pool struct {
	adopt bool
	units map[string]bool
}

// Config of a Ledger. Node, Kubelet and Informer are required.
type Config struct {
	Node string
	// Kubelet lists kubelet's own pods: those admitted or under admission.
	Kubelet Source
	// Informer lists the pods that the API server has bound to the node.
	Informer Source
	// Changed gives a channel that closes at the informer's next change; nil
	// makes waits poll.
	Changed func() <-chan struct{}
	// Holders may be nil; then nothing is certain that identity left open.
	Holders Holders
	// Report is called for refusals and mismatches; it must not block.
	Report func(Report)
	// Released is called when a unit's pod has ended or lost it; it must not
	// block.
	Released func(unit string, c Claim)
	// Wait bounds the time that a call spends waiting for facts; default 500 ms.
	Wait time.Duration
	Log  *slog.Logger
}

// Ledger knows the units of all pools of a node and who holds them.
type Ledger struct {
	cfg Config

	mu     sync.Mutex
	pools  map[string]*pool
	claims map[claimKey]*Claim
	owner  map[string]claimKey // unit -> its latest claim
	// seen numbers the pods by the look at kubelet's list in which they first
	// appeared; looks counts the looks since kubelet's start.
	seen  map[string]int
	looks int
	epoch int
	// answered is the last answer to GetPreferredAllocation, nil when it counts no
	// more.
	answered *answered
	// reported mismatches, so that each is told once.
	reported map[string]bool
}

// New builds an empty ledger.
func New(cfg Config) *Ledger {
	if cfg.Wait == 0 {
		cfg.Wait = 500 * time.Millisecond
	}
	if cfg.Report == nil {
		cfg.Report = func(Report) {}
	}
	if cfg.Released == nil {
		cfg.Released = func(string, Claim) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Ledger{
		cfg: cfg, pools: map[string]*pool{}, claims: map[claimKey]*Claim{}, owner: map[string]claimKey{},
		seen: map[string]int{}, reported: map[string]bool{},
	}
}

// SetPool declares the units of a resource. With adopt kubelet's own choice is
// accepted and reported.
func (l *Ledger) SetPool(resource string, adopt bool, units []string) {
	set := make(map[string]bool, len(units))
	for _, u := range units {
		set[u] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pools[resource] = &pool{adopt: adopt, units: set}
}

// RemovePool forgets a resource; its claims stay until their pods end.
func (l *Ledger) RemovePool(resource string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pools, resource)
}

// KubeletStarted tells the ledger that kubelet may be a new process: what was
// learned from the order of its list no longer counts, and claims of pods that
// have not started may be lost. Call it before each registration.
func (l *Ledger) KubeletStarted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen, l.looks = map[string]int{}, 0
	l.epoch++
	l.answered = nil
	for _, c := range l.claims {
		c.stale = true
	}
}

// Claims gives a copy of all claims, sorted by pod, container and resource.
func (l *Ledger) Claims() []Claim {
	l.mu.Lock()
	out := make([]Claim, 0, len(l.claims))
	for _, c := range l.claims {
		o := *c
		o.IDs = slices.Clone(c.IDs)
		out = append(out, o)
	}
	l.mu.Unlock()
	slices.SortFunc(out, func(a, b Claim) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.PodUID, b.PodUID),
			strings.Compare(a.Container, b.Container), strings.Compare(a.Resource, b.Resource))
	})
	return out
}

// Owner gives the claim that a unit is under.
func (l *Ledger) Owner(unit string) (Claim, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.owner[unit]
	if !ok {
		return Claim{}, false
	}
	c := *l.claims[k]
	c.IDs = slices.Clone(c.IDs)
	return c, true
}

// Holds says whether a unit is under a claim.
func (l *Ledger) Holds(unit string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.owner[unit]
	return ok
}

// Restore puts claims of an earlier process in, as doubtful ones: the next
// Reconcile or the pods' status confirms or drops them.
func (l *Ledger) Restore(claims []Claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range claims {
		c.stale = true
		l.setLocked(c)
	}
}

// setLocked records a claim and takes its units from other pods' claims. It
// returns what must be released, for the caller to tell without the lock.
func (l *Ledger) setLocked(c Claim) (released []Claim) {
	c.IDs = slices.Clone(c.IDs)
	slices.Sort(c.IDs)
	if old := l.claims[c.key()]; old != nil {
		for _, u := range old.IDs {
			if l.owner[u] == c.key() && !slices.Contains(c.IDs, u) {
				delete(l.owner, u)
			}
		}
	}
	for _, u := range c.IDs {
		if k, ok := l.owner[u]; ok && k.uid != c.PodUID {
			old := l.claims[k]
			one := *old
			one.IDs = []string{u}
			released = append(released, one)
			old.IDs = slices.DeleteFunc(slices.Clone(old.IDs), func(s string) bool { return s == u })
			if len(old.IDs) == 0 {
				delete(l.claims, k)
			}
		}
		l.owner[u] = c.key()
	}
	l.claims[c.key()] = &c
	return released
}

// dropLocked removes a claim and returns it with those units that are free now.
func (l *Ledger) dropLocked(k claimKey) Claim {
	c := *l.claims[k]
	delete(l.claims, k)
	var free []string
	for _, u := range c.IDs {
		if l.owner[u] != k {
			continue
		}
		delete(l.owner, u)
		// An init container's claim lives on in the container that came after.
		for o, other := range l.claims {
			if o.uid == k.uid && slices.Contains(other.IDs, u) {
				l.owner[u] = o
			}
		}
		if _, still := l.owner[u]; !still {
			free = append(free, u)
		}
	}
	c.IDs = free
	return c
}

func (l *Ledger) tellReleased(claims []Claim) {
	for _, c := range claims {
		for _, u := range c.IDs {
			l.cfg.Released(u, c)
		}
	}
}

// Sweep drops claims of pods that have ended: terminal in either list, or in
// neither. A list that cannot be read keeps all. Call it when pods change and
// now and then: it asks kubelet only when the informer's list gives reason to.
func (l *Ledger) Sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Wait)
	defer cancel()
	informed, err := l.cfg.Informer.Pods(ctx)
	if err != nil {
		return
	}
	v := &view{pods: clonePods(informed)}
	if l.worthAsking(v) {
		v = l.look(ctx, nil)
	}
	l.mu.Lock()
	var gone []Claim
	for k := range l.claims {
		p := v.pods[k.uid]
		if p != nil && p.Terminal || p == nil && v.complete {
			gone = append(gone, l.dropLocked(k))
		}
	}
	l.mu.Unlock()
	l.tellReleased(gone)
	l.observe(v)
}

// worthAsking: a claim's pod has left the informer's list, or a pod has come
// that may soon be under admission (see number).
func (l *Ledger) worthAsking(v *view) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.claims {
		if v.pods[k.uid] == nil {
			return true
		}
	}
	for uid, p := range v.pods {
		if p.Terminal || l.seen[uid] != 0 {
			continue
		}
		for resource := range l.pools {
			if c, _ := l.nextLocked(p, resource); c != nil {
				return true
			}
		}
	}
	return false
}

// Reconcile makes kubelet's own word (pod-resources API) the ledger's: claims
// are added, corrected and confirmed. Claims that kubelet does not name and that
// are in doubt are dropped unless their container runs.
func (l *Ledger) Reconcile(ctx context.Context) error {
	if l.cfg.Holders == nil {
		return nil
	}
	_, _, err := l.reconcile(ctx)
	return err
}

// reconcile is Reconcile; it gives kubelet's word and the pods of that moment.
func (l *Ledger) reconcile(ctx context.Context) ([]Held, *view, error) {
	if l.cfg.Holders == nil {
		return nil, nil, fmt.Errorf("%w: kubelet cannot be asked", ErrUnsure)
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Wait)
	defer cancel()
	l.mu.Lock()
	epoch := l.epoch
	l.mu.Unlock()
	held, err := l.cfg.Holders.Holders(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnsure, err)
	}
	v := l.look(ctx, nil)
	l.confirm(v, held, epoch)
	return held, v, nil
}

// byName finds pods as kubelet's pod-resources API names them: it speaks of pods
// in kubelet's own list, and a name comes again after deletion: the live one
// counts.
func (v *view) byName() map[string]*Pod {
	out := make(map[string]*Pod, len(v.pods))
	for uid, p := range v.pods {
		if v.kubelet && !v.inKubelet[uid] {
			continue
		}
		if q := out[p.Ref()]; q == nil || q.Terminal || p.Created.After(q.Created) && !p.Terminal {
			out[p.Ref()] = p
		}
	}
	return out
}

// confirm applies kubelet's word.
func (l *Ledger) confirm(v *view, held []Held, epoch int) {
	byName := v.byName()
	l.mu.Lock()
	if epoch != l.epoch {
		l.mu.Unlock()
		return
	}
	named := map[claimKey]bool{}
	var released []Claim
	for _, h := range held {
		p := byName[h.Namespace+"/"+h.Name]
		if l.pools[h.Resource] == nil || p == nil || p.Terminal || len(h.IDs) == 0 {
			continue
		}
		c := Claim{PodUID: p.UID, Namespace: p.Namespace, Name: p.Name, Container: h.Container, Resource: h.Resource, IDs: h.IDs, Sure: true}
		want, has := assigned(p, h.Container, h.Resource)
		c.Assigned = has && sameSet(want, h.IDs)
		named[c.key()] = true
		released = append(released, l.setLocked(c)...)
	}
	for k, c := range l.claims {
		if !c.stale || named[k] {
			continue
		}
		p := v.pods[k.uid]
		if p == nil || startedWith(p, k.container) {
			continue
		}
		released = append(released, l.dropLocked(k))
	}
	l.mu.Unlock()
	l.tellReleased(released)
	l.observe(v)
}

// observe compares what kubelet reports in pods' status, and what the claims
// say, with the assignments; each difference is reported once.
func (l *Ledger) observe(v *view) {
	var out []Report
	l.mu.Lock()
	for _, p := range v.pods {
		if p.Terminal {
			continue
		}
		for i := range p.Containers {
			c := &p.Containers[i]
			for resource, ids := range c.Devices {
				if p.Assignment != nil {
					out = l.compareLocked(out, p, c.Name, resource, ids)
				}
				l.learnLocked(p, c, resource, ids)
			}
		}
	}
	for k, c := range l.claims {
		if p := v.pods[k.uid]; p != nil && !p.Terminal && p.Assignment != nil && !c.stale && c.Sure {
			out = l.compareLocked(out, p, k.container, k.resource, c.IDs)
		}
	}
	for key := range l.reported {
		uid, _, _ := strings.Cut(key, "|")
		if v.complete && v.pods[uid] == nil {
			delete(l.reported, key)
		}
	}
	l.mu.Unlock()
	for _, r := range out {
		l.cfg.Report(r)
	}
}

// learnLocked records what a running container holds by its status where no
// claim says it: the ledger's file and kubelet's checkpoint may both be lost
// while the container still has its devices. A unit that is under another claim
// by now stays there.
func (l *Ledger) learnLocked(p *Pod, c *Container, resource string, ids []string) {
	k := claimKey{p.UID, c.Name, resource}
	if !c.Started || l.pools[resource] == nil || l.claims[k] != nil || len(ids) == 0 {
		return
	}
	for _, u := range ids {
		if o, taken := l.owner[u]; taken && o.uid != p.UID {
			return
		}
	}
	want, has := assigned(p, c.Name, resource)
	l.setLocked(Claim{PodUID: p.UID, Namespace: p.Namespace, Name: p.Name, Container: c.Name, Resource: resource,
		IDs: ids, Assigned: has && sameSet(want, ids), Sure: true})
}

func (l *Ledger) compareLocked(out []Report, p *Pod, container, resource string, actual []string) []Report {
	if l.pools[resource] == nil {
		return out
	}
	want, _ := assigned(p, container, resource)
	if sameSet(want, actual) {
		return out
	}
	actual = slices.Sorted(slices.Values(actual))
	key := strings.Join([]string{p.UID, container, resource, strings.Join(actual, ",")}, "|")
	if l.reported[key] {
		return out
	}
	l.reported[key] = true
	return append(out, Report{
		Kind: Mismatch, Resource: resource, PodUID: p.UID, Namespace: p.Namespace, Name: p.Name,
		Message: fmt.Sprintf("container %s: kubelet gave %s, the scheduler assigned %s", container, list(actual), list(want)),
	})
}
