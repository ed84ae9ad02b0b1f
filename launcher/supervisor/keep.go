package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/launcher/failure"
	"github.com/kubevfio/kubevfio/launcher/virt"
)

const (
	// idleAfter is when the work of a start is over.
	idleAfter = 5 * time.Second
	// pressAgain is how long to wait before the power button is pressed again:
	// a guest whose handler was not up yet has missed it.
	pressAgain = 10 * time.Second
	// checkEvery is how often the guest's state is asked for, in case an event
	// was lost.
	checkEvery = 15 * time.Second
)

// stopping is a shutdown under way.
type stopping struct {
	deadline <-chan time.Time
	press    <-chan time.Time
	grace    time.Duration
	forced   bool
}

// keep watches a guest until it has ended. Nil says that it shut down.
func (s *Supervisor) keep(ctx context.Context, g Guest) error {
	var stop *stopping
	idle := time.After(idleAfter)
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for {
		var deadline, press <-chan time.Time
		if stop != nil {
			deadline, press = stop.deadline, stop.press
		}
		select {
		case <-idle:
			s.Idle()
		case e := <-s.events:
			if done, err := s.happened(g, e, stop); done {
				return err
			}
		case r := <-s.stops:
			stop = s.beginStop(g, r, stop)
		case <-press:
			s.press(g)
			stop.press = time.After(pressAgain)
		case <-deadline:
			s.Log.Warn("the guest did not shut down in time and is ended", "grace", stop.grace)
			stop.deadline, stop.press, stop.forced = nil, nil, true
			s.destroy(g)
		case <-check.C:
			if done, err := s.check(g, stop); done {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// happened follows an event; done is true when the guest has ended.
func (s *Supervisor) happened(g Guest, e virt.Event, stop *stopping) (done bool, err error) {
	s.Log.Info("guest", "event", string(e.Kind))
	switch e.Kind {
	case virt.EventPaused:
		if stop == nil {
			s.setPhase(launcherrpcv1.PhasePaused)
		}
	case virt.EventResumed, virt.EventStarted:
		if stop == nil {
			s.setPhase(launcherrpcv1.PhaseRunning)
		}
	case virt.EventReboot:
		s.mu.Lock()
		s.state.GuestReboots++
		s.mu.Unlock()
	case virt.EventDeviceGone:
		s.deviceGone(e.Device)
	case virt.EventPanicked:
		return true, s.panicked(g)
	case virt.EventEnded:
		return true, nil
	case virt.EventDestroyed:
		return true, ended(stop)
	case virt.EventFailed:
		return true, s.qemuDied()
	case virt.EventLost:
		// A new supervisor opens libvirt anew and adopts the guest.
		return true, errLostLibvirt
	}
	return false, nil
}

// deviceGone notes that the host took a device away; the guest runs on.
func (s *Supervisor) deviceGone(alias string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// ua-KIND-NAME, and -N for a further function of the unit.
	_, name, _ := strings.Cut(strings.TrimPrefix(alias, "ua-"), "-")
	is := func(name string) func(launcherrpcv1.Device) bool {
		return func(d launcherrpcv1.Device) bool { return name != "" && d.Name == name }
	}
	i := slices.IndexFunc(s.state.Devices, is(name))
	if cut := strings.LastIndexByte(name, '-'); i < 0 && cut > 0 {
		i = slices.IndexFunc(s.state.Devices, is(name[:cut]))
	}
	if i < 0 {
		s.Log.Warn("a device left the guest", "alias", alias)
		return
	}
	// snapshot's copies and the plan's list stay as they are.
	s.state.Devices = slices.Clone(s.state.Devices)
	d := &s.state.Devices[i]
	d.TakenAway = true
	s.Log.Error("the host took a device away from the running guest, which goes on without it", "name", d.Name, "address", d.Host, "resource", d.Resource)
}

// errLostLibvirt makes this supervisor end without an outcome.
var errLostLibvirt = errors.New("the connection to libvirt is lost")

// ended says what the end of QEMU by our hand means.
func ended(stop *stopping) error {
	if stop == nil || !stop.forced {
		return nil
	}
	return failure.Newf(launcherrpcv1.ReasonForcedOff, "the guest did not shut down within %s and was ended", stop.grace)
}

// beginStop starts a shutdown, or hastens the one under way.
func (s *Supervisor) beginStop(g Guest, r launcherrpcv1.StopRequest, stop *stopping) *stopping {
	s.mu.Lock()
	grace := time.Duration(s.record.GraceSeconds) * time.Second
	paused := s.state.Phase == launcherrpcv1.PhasePaused
	s.mu.Unlock()
	if r.GracePeriodSeconds != nil {
		grace = time.Duration(*r.GracePeriodSeconds) * time.Second
	}
	if stop != nil && r.GracePeriodSeconds == nil {
		return stop
	}
	s.setPhase(launcherrpcv1.PhaseStopping)
	if grace <= 0 {
		s.destroy(g)
		return &stopping{forced: true}
	}
	s.Log.Info("shutting the guest down", "grace", grace)
	if paused {
		// A paused guest hears no power button.
		if err := g.Do(virt.Resume); err != nil {
			s.Log.Warn("cannot resume the guest for its shutdown", "err", err)
		}
	}
	s.press(g)
	return &stopping{deadline: time.After(grace), press: time.After(pressAgain), grace: grace}
}

func (s *Supervisor) press(g Guest) {
	if err := g.Do(virt.Shutdown); err != nil && !errors.Is(err, virt.ErrNoDomain) {
		s.Log.Warn("cannot press the guest's power button", "err", err)
	}
}

func (s *Supervisor) destroy(g Guest) {
	// libvirt waits up to half a minute for QEMU to end; events go on meanwhile.
	go func() {
		if err := g.Do(virt.Destroy); err != nil && !errors.Is(err, virt.ErrNoDomain) {
			s.Log.Error("cannot end the guest", "err", err)
		}
	}()
}

// check asks for the guest's state, in case an event was lost.
func (s *Supervisor) check(g Guest, stop *stopping) (done bool, err error) {
	st, err := g.State()
	switch {
	case errors.Is(err, virt.ErrNoDomain), err == nil && st == virt.StateOff:
		// Its event may be on the way and knows more.
		select {
		case e := <-s.events:
			if done, err := s.happened(g, e, stop); done {
				return done, err
			}
		case <-time.After(time.Second):
		}
		s.mu.Lock()
		rec := s.record
		s.mu.Unlock()
		if stop != nil {
			return true, ended(stop)
		}
		return true, s.endedUnwatched(rec)
	case err != nil:
		s.Log.Warn("cannot ask for the guest's state", "err", err)
	case st == virt.StateCrashed:
		return true, s.panicked(g)
	}
	return false, nil
}

// setHeld records whether somebody wants the guest paused.
func (s *Supervisor) setHeld(held bool) error {
	if err := s.save(func(r *record) { r.HeldPaused = held }); err != nil {
		return fmt.Errorf("record the pause: %w", err)
	}
	return nil
}
