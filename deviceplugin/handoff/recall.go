package handoff

import (
	"slices"
	"time"
)

// recallFor is how long an answer to GetPreferredAllocation stands for the
// Allocate that follows. Kubelet calls the two one right after the other.
const recallFor = time.Second

// answered is what the last GetPreferredAllocation found out.
//
// Kubelet admits one pod at a time, and within an admission it asks for one
// resource of one container, takes the answer and calls Allocate with it, before
// it asks anything else of any plugin. So an Allocate for exactly the units of
// the last answer is for the subject of that answer, and kubelet's list of pods,
// which is long and would be read for nothing else, need not be read again. The
// first call that is not that Allocate ends it, and so does a new kubelet.
type answered struct {
	resource string
	ids      []string // sorted
	view     *view
	subject  subject
	at       time.Time
}

// remember keeps the outcome of a GetPreferredAllocation whose subject is sure.
func (l *Ledger) remember(resource string, ids []string, v *view, s subject) {
	if !s.sure {
		return
	}
	ids = slices.Sorted(slices.Values(ids))
	l.mu.Lock()
	defer l.mu.Unlock()
	if v.epoch == l.epoch {
		l.answered = &answered{resource: resource, ids: ids, view: v, subject: s, at: time.Now()}
	}
}

// forget ends what was remembered, when another question comes.
func (l *Ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered = nil
}

// recall gives what was remembered if the ids are those of the last answer, and
// forgets it.
func (l *Ledger) recall(resource string, ids []string) (*view, subject, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.answered
	l.answered = nil
	if a == nil || a.resource != resource || time.Since(a.at) > recallFor || !slices.Equal(a.ids, slices.Sorted(slices.Values(ids))) {
		return nil, subject{}, false
	}
	// A claim may have come meanwhile: kubelet's word, by a reconciliation.
	if c, _ := l.nextLocked(a.subject.pod, resource); c == nil || c.Name != a.subject.container {
		return nil, subject{}, false
	}
	return a.view, a.subject, true
}
