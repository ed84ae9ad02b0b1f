package bind

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/kubevfio/kubevfio/topology"
)

// comingLimit is how long an interface that is being brought up counts as good as up.
const comingLimit = 10 * time.Second

// links brings the interfaces of physical functions up: virtual functions of most
// network cards have no carrier while theirs is down. The kernel takes half a second
// and more for each and does one at a time, and nothing that binds depends on it, so
// nobody waits for it.
type links struct {
	raise func(ctx context.Context, ifname string) error // nil: interfaces are left alone
	done  func()                                         // an attempt has ended; may be nil
	now   func() time.Time
	log   *slog.Logger

	mu  sync.Mutex
	pfs map[topology.Address]*link
}

// link is a physical function whose interfaces were to be brought up.
type link struct {
	vfs   int       // for so many virtual functions
	since time.Time // of the attempt under way; zero when there is none
	up    bool
	failure
}

// want has the interfaces of pf brought up once for a number of virtual functions:
// who takes them down afterwards has reasons. It says why an earlier attempt failed and when
// the next one is due.
func (l *links) want(ctx context.Context, pf topology.Address, vfs int, names []string) (why string, retry time.Time) {
	if l.raise == nil || len(names) == 0 {
		return "", time.Time{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.pfs[pf]
	if k == nil || k.vfs != vfs && k.since.IsZero() {
		k = &link{vfs: vfs}
		l.pfs[pf] = k
	}
	switch now := l.now(); {
	case k.up || !k.since.IsZero():
		return k.reason, time.Time{}
	case now.Before(k.next):
		return k.reason, k.next
	default:
		k.since = now
	}
	go l.attempt(ctx, pf, k, slices.Clone(names))
	return k.reason, time.Time{}
}

func (l *links) attempt(ctx context.Context, pf topology.Address, k *link, names []string) {
	var err error
	for _, name := range names {
		if err = l.raise(ctx, name); err != nil {
			err = fmt.Errorf("%s: bring interface %s up: %w", pf, name, err)
			break
		}
	}
	l.mu.Lock()
	k.since, k.up = time.Time{}, err == nil
	switch {
	case err == nil:
		k.reason = ""
		l.log.Info("interfaces are up", "address", pf.String(), "interfaces", names)
	case k.again(err, l.now()):
		l.log.Warn("cannot bring interfaces up", "address", pf.String(), "error", err)
	}
	l.mu.Unlock()
	if l.done != nil {
		l.done()
	}
}

// coming tells whether the interfaces of pf are being brought up and may be expected
// to be soon.
func (l *links) coming(pf topology.Address) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.pfs[pf]
	return k != nil && !k.since.IsZero() && l.now().Sub(k.since) < comingLimit
}
