package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/launcher/console"
	"github.com/kubevfio/kubevfio/launcher/failure"
	"github.com/kubevfio/kubevfio/launcher/podinfo"
	"github.com/kubevfio/kubevfio/launcher/rpc"
	"github.com/kubevfio/kubevfio/launcher/virt"
)

// Supervisor keeps one guest.
type Supervisor struct {
	Options
	hub      *console.Hub
	presence *console.Presence
	events   chan virt.Event
	stops    chan launcherrpcv1.StopRequest
	release  chan struct{}

	mu     sync.Mutex // guards what follows
	state  launcherrpcv1.State
	record record
	guest  Guest
}

// New makes a supervisor; nothing is started.
func New(o Options) *Supervisor {
	s := &Supervisor{
		Options:  o,
		hub:      console.NewHub(),
		presence: &console.Presence{},
		events:   make(chan virt.Event),
		stops:    make(chan launcherrpcv1.StopRequest, 4),
		release:  make(chan struct{}, 1),
	}
	s.state = launcherrpcv1.State{
		Version: o.Version,
		Phase:   launcherrpcv1.PhasePreparing,
		Since:   time.Now().UTC(),
		Supervisor: launcherrpcv1.Supervisor{
			PID: os.Getpid(), Restarts: o.Restarts, Libvirt: string(o.Libvirt),
		},
	}
	return s
}

// Run brings the guest up, or adopts the one that an earlier supervisor left,
// and returns when it has ended. An error means that there is no outcome: the
// guest may run on, and another supervisor is needed.
func (s *Supervisor) Run(ctx context.Context) (launcherrpcv1.Outcome, error) {
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()

	background.Go(func() {
		if err := rpc.Serve(ctx, s.rpcSocket(), s.handlers(), s.Log); err != nil {
			s.Log.Error("no RPC: proxy and probe will not work", "err", err)
		}
	})
	background.Go(func() { s.forwardSignals(ctx) })
	// Not waited for: a blocked stdout or a stdin without end must not keep the
	// container alive. drain gives stdout its chance.
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		if err := console.CopyOut(s.Stdout, s.hub.Subscribe(0), s.presence); err != nil {
			s.Log.Warn("the guest's console goes nowhere any more", "err", err)
		}
	}()
	if s.Stdin != nil {
		go func() {
			if err := console.CopyIn(s.hub, s.Stdin, s.presence); err != nil {
				s.Log.Debug("stdin ended", "err", err)
			}
		}()
	}

	err := s.run(ctx)
	if errors.Is(err, errLostLibvirt) {
		return launcherrpcv1.Outcome{}, err
	}
	s.hub.Close()
	select {
	case <-copied:
	case <-time.After(2 * time.Second):
	}
	outcome := failure.Outcome(err)
	outcome.Seconds = map[string]float64{}
	s.mu.Lock()
	for _, t := range s.state.Timings {
		outcome.Seconds[t.Step] = t.Seconds
	}
	s.mu.Unlock()
	s.setPhase(launcherrpcv1.PhaseEnded, func(st *launcherrpcv1.State) { st.Outcome = &outcome })
	return outcome, nil
}

// run is Run's sequence; its error is the outcome.
func (s *Supervisor) run(ctx context.Context) error {
	// First: TMPDIR is below it too.
	if err := virt.Prepare(s.libvirtRoot(), s.Libvirt); err != nil {
		return err
	}
	rec, err := readRecord(s.recordFile())
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.record = rec
	s.mu.Unlock()
	info, err := podinfo.Read(os.DirFS(s.PodInfo))
	if err != nil {
		return failure.New(launcherrpcv1.ReasonAssignment, err)
	}
	s.mu.Lock()
	s.state.PodUID, s.state.PodName, s.state.PodNamespace = info.UID, info.Name, info.Namespace
	s.state.Timings = rec.Timings
	s.mu.Unlock()
	if rec.Stage == stageRunning {
		return s.adopt(ctx, rec)
	}
	return s.launch(ctx, info, rec)
}

// forwardSignals turns signals into stop requests.
func (s *Supervisor) forwardSignals(ctx context.Context) {
	for {
		select {
		case sig := <-s.Signals:
			s.Log.Info("asked to stop", "signal", sig.String())
			s.requestStop(launcherrpcv1.StopRequest{})
		case <-ctx.Done():
			return
		}
	}
}

// requestStop never blocks: more wishes than the channel holds add nothing.
func (s *Supervisor) requestStop(r launcherrpcv1.StopRequest) {
	select {
	case s.stops <- r:
	default:
	}
}

// setPhase changes the phase that RPC shows.
func (s *Supervisor) setPhase(p launcherrpcv1.Phase, more ...func(*launcherrpcv1.State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Phase != p {
		s.state.Phase, s.state.Since = p, time.Now().UTC()
		s.Log.Info("phase", "phase", string(p))
	}
	for _, f := range more {
		f(&s.state)
	}
}

// step times a step of the start.
func (s *Supervisor) step(name string, f func() error) error {
	start := time.Now()
	err := f()
	t := launcherrpcv1.Timing{Step: name, Seconds: time.Since(start).Seconds()}
	s.mu.Lock()
	s.state.Timings = append(s.state.Timings, t)
	s.mu.Unlock()
	s.Log.Info("step", "step", name, "seconds", t.Seconds)
	return err
}

// save changes and writes the record.
func (s *Supervisor) save(change func(*record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record.Timings = s.state.Timings
	change(&s.record)
	return s.record.write(s.recordFile())
}

// open opens libvirt and asks who it is.
func (s *Supervisor) open(ctx context.Context) (Hypervisor, error) {
	s.fetchCapabilities(ctx)
	if s.Libvirt == virt.Daemon {
		if err := virt.EnsureDaemon(ctx, s.libvirtRoot(), s.Libvirtd); err != nil {
			return nil, err
		}
	}
	h, err := s.Open(virt.Options{
		Mode:   s.Libvirt,
		Root:   s.libvirtRoot(),
		Events: func(e virt.Event) { s.events <- e },
	})
	if err != nil {
		return nil, err
	}
	v, err := h.Versions()
	if err != nil {
		s.Log.Warn("libvirt does not tell versions", "err", err)
	}
	s.mu.Lock()
	s.state.Supervisor.LibvirtVersion, s.state.Supervisor.QEMUVersion = v.Libvirt, v.QEMU
	s.mu.Unlock()
	return h, nil
}

// errStopped ends a start that was asked to stop.
var errStopped = fmt.Errorf("asked to stop: %w", context.Canceled)

// stopWanted looks for a stop without waiting.
func (s *Supervisor) stopWanted() bool {
	select {
	case r := <-s.stops:
		s.requestStop(r) // it stays wanted
		return true
	default:
		return false
	}
}

// running gives the guest, or the refusal of a command that needs one.
func (s *Supervisor) running() (Guest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.guest == nil {
		return nil, fmt.Errorf("%w: the launcher is in phase %s, there is no guest", rpc.ErrConflict, s.state.Phase)
	}
	return s.guest, nil
}

// classify gives libvirt's errors the class of a failed start unless they have one.
func classify(err error) error {
	var f *failure.Error
	if err == nil || errors.As(err, &f) || errors.Is(err, context.Canceled) {
		return err
	}
	return failure.New(launcherrpcv1.ReasonQEMUDidNotStart, err)
}
