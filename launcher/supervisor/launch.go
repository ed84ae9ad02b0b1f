package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/launcher/failure"
	"github.com/kubevfio/kubevfio/launcher/podinfo"
	"github.com/kubevfio/kubevfio/launcher/preflight"
	"github.com/kubevfio/kubevfio/launcher/virt"
)

// launch starts a guest from nothing and keeps it. rec is of a supervisor that
// died in mid-start, or empty.
func (s *Supervisor) launch(ctx context.Context, info podinfo.Info, rec record) error {
	s.mu.Lock()
	s.state.Timings = nil
	s.mu.Unlock()
	var (
		p      *plan
		xml    string
		lock   uint64
		viommu uint32
		h      Hypervisor
	)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"inputs", func() (err error) { p, err = s.readInputs(info); return err }},
		{"host", func() error { return s.readHost(ctx, p) }},
		{"nodes", func() error { return s.checkNodes(p) }},
		{"domain", func() (err error) { xml, lock, viommu, err = s.build(p); return err }},
		{"hugepages", func() error { return s.checkHugepages(p) }},
		{"memlock", func() error { return preflight.MemoryLock(ctx, s.Agent, lock, viommu) }},
		{"vf", func() error { return s.configureVFs(ctx, p) }},
		{"volumes", func() error { return s.makeFiles(ctx, p) }},
	} {
		if s.stopWanted() {
			return errStopped
		}
		if err := s.step(step.name, step.do); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.state.Domain, s.state.UUID, s.state.Devices = p.input.Name, p.input.UUID, p.devices()
	s.mu.Unlock()
	if err := s.standby(ctx); err != nil {
		return err
	}
	s.setPhase(launcherrpcv1.PhaseStarting)
	if err := s.step("libvirt", func() (err error) { h, err = s.open(ctx); return err }); err != nil {
		return classify(err)
	}
	if rec.Stage == stageCreating {
		s.clearHalfStarted(h, rec.Domain)
	}
	if s.stopWanted() {
		return errStopped
	}
	err := s.save(func(r *record) {
		*r = record{
			Stage: stageCreating, Domain: p.input.Name, UUID: p.input.UUID,
			GraceSeconds: p.grace, Devices: p.devices(), OOMKills: s.oomKills(),
		}
	})
	if err != nil {
		return err
	}
	var g Guest
	if err := s.step("qemu", func() (err error) { g, err = s.create(h, p.input.Name, xml); return err }); err != nil {
		return classify(s.withQEMULog(p.input.Name, err))
	}
	return s.letRun(ctx, g, p.input.Name, p.spec.StartStrategy == "Paused")
}

// checkNodes checks the device nodes; without KVM (tests) only VFIO's.
func (s *Supervisor) checkNodes(p *plan) error {
	n := preflight.Nodes{Dev: s.Dev}
	if !s.Emulate {
		if err := n.KVM(); err != nil {
			return err
		}
	}
	if err := n.VFIO(p.host, p.given); err != nil {
		return err
	}
	if err := preflight.Kernel(p.spec); err != nil {
		return err
	}
	if p.spec.Domain.Devices.TPM.On() {
		return preflight.TPM(v1alpha1.LauncherTempDir)
	}
	return nil
}

// checkHugepages checks that the huge pages are there that the domain names.
func (s *Supervisor) checkHugepages(p *plan) error {
	page, err := vmspec.HugepageBytes(p.spec)
	if err != nil {
		return fromBuild(err)
	}
	return preflight.Hugepages(s.Host, page, p.huge, preflight.ReserveHugepages)
}

// standby waits for a release, holding the devices.
func (s *Supervisor) standby(ctx context.Context) error {
	if !s.Standby {
		return nil
	}
	s.setPhase(launcherrpcv1.PhaseStandby)
	for {
		select {
		case <-s.release:
			return nil
		case <-s.stops:
			return errStopped
		case <-ctx.Done():
			return errStopped
		}
	}
}

// clearHalfStarted ends what a supervisor that died in mid-start left.
func (s *Supervisor) clearHalfStarted(h Hypervisor, name string) {
	g, err := h.Lookup(name)
	if err == nil {
		s.Log.Info("ending the guest that was being started when the earlier supervisor died", "domain", name)
		err = g.Do(virt.Destroy)
	}
	if err != nil && !errors.Is(err, virt.ErrNoDomain) {
		s.Log.Warn("cannot end the half-started guest", "err", err)
	}
}

// create starts QEMU. A stop in the meantime destroys the domain, which makes
// libvirt give up.
func (s *Supervisor) create(h Hypervisor, name, xml string) (Guest, error) {
	if err := os.Remove(s.consoleSocket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old console socket: %w", err)
	}
	type result struct {
		g   Guest
		err error
	}
	done := make(chan result, 1)
	go func() {
		g, err := h.Create(xml)
		done <- result{g, err}
	}()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	stopped := false
	for {
		select {
		case r := <-done:
			switch {
			case stopped && r.err == nil:
				return nil, errors.Join(errStopped, r.g.Do(virt.Destroy))
			case stopped:
				return nil, errStopped
			}
			return r.g, r.err
		case <-s.events:
			// Nothing that happens before the guest runs matters: a failed start
			// is told by Create.
		case <-tick.C:
			if stopped = stopped || s.stopWanted(); !stopped {
				continue
			}
			if g, err := h.Lookup(name); err == nil {
				if err := g.Do(virt.Destroy); err != nil {
					s.Log.Debug("destroy the guest in mid-start", "err", err)
				}
			}
		}
	}
}

// letRun connects the console and lets the guest run, then keeps it.
func (s *Supervisor) letRun(ctx context.Context, g Guest, name string, hold bool) error {
	if s.stopWanted() {
		return errors.Join(errStopped, g.Do(virt.Destroy))
	}
	s.connectConsole(ctx)
	s.dropEvents()
	err := s.save(func(r *record) {
		r.Stage, r.HeldPaused, r.QEMUPID = stageRunning, hold, s.findQEMU(name)
	})
	if err != nil {
		return errors.Join(err, g.Do(virt.Destroy))
	}
	s.adoptState(g, hold)
	if hold {
		return s.keep(ctx, g)
	}
	if err := s.step("resume", func() error { return g.Do(virt.Resume) }); err != nil {
		return classify(s.withQEMULog(name, errors.Join(err, g.Do(virt.Destroy))))
	}
	return s.keep(ctx, g)
}

// dropEvents forgets what happened while the guest was made: started, paused.
func (s *Supervisor) dropEvents() {
	for {
		select {
		case <-s.events:
		case <-time.After(5 * time.Millisecond):
			return
		}
	}
}

// adoptState makes the guest known to RPC.
func (s *Supervisor) adoptState(g Guest, paused bool) {
	phase := launcherrpcv1.PhaseRunning
	if paused {
		phase = launcherrpcv1.PhasePaused
	}
	s.setPhase(phase, func(st *launcherrpcv1.State) {
		s.guest = g
		st.Domain, st.UUID, st.Devices, st.QEMUPID = s.record.Domain, s.record.UUID, s.record.Devices, s.record.QEMUPID
	})
}

// connectConsole connects to QEMU's console socket and copies from it until
// QEMU ends. A guest without a serial console has no socket.
func (s *Supervisor) connectConsole(ctx context.Context) {
	var (
		conn net.Conn
		err  error
	)
	for range 50 {
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", s.consoleSocket())
		if err == nil {
			break
		}
		if errors.Is(err, fs.ErrNotExist) {
			s.Log.Info("the guest has no serial console")
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		s.Log.Error("cannot connect to the guest's console", "err", err)
		return
	}
	go func() {
		if err := s.hub.Run(ctx, conn); err != nil {
			s.Log.Warn("the guest's console ended", "err", err)
		}
	}()
}

// adopt finds the guest that an earlier supervisor left and keeps it.
func (s *Supervisor) adopt(ctx context.Context, rec record) error {
	s.mu.Lock()
	s.state.Supervisor.Adopted = true
	s.mu.Unlock()
	h, err := s.open(ctx)
	if err != nil {
		return fmt.Errorf("adopt the running guest: %w", err)
	}
	g, err := h.Lookup(rec.Domain)
	if errors.Is(err, virt.ErrNoDomain) {
		return s.endedUnwatched(rec)
	}
	if err != nil {
		return fmt.Errorf("adopt the running guest: %w", err)
	}
	st, err := g.State()
	if err != nil {
		return fmt.Errorf("adopt the running guest: %w", err)
	}
	s.Log.Info("adopted the guest", "domain", rec.Domain, "state", string(st))
	switch st {
	case virt.StateCrashed:
		return s.panicked(g)
	case virt.StateShutdown:
		if err := g.Do(virt.Destroy); err != nil && !errors.Is(err, virt.ErrNoDomain) {
			s.Log.Warn("cannot end QEMU after the guest's shutdown", "err", err)
		}
		return nil
	case virt.StateOff:
		return s.endedUnwatched(rec)
	}
	s.connectConsole(ctx)
	s.adoptState(g, st == virt.StatePaused)
	// Death between the record and the resume: the guest never ran.
	if st == virt.StatePaused && !rec.HeldPaused {
		if err := g.Do(virt.Resume); err != nil {
			return classify(err)
		}
		s.setPhase(launcherrpcv1.PhaseRunning)
	}
	return s.keep(ctx, g)
}

// panicked ends QEMU after the guest's kernel crashed.
func (s *Supervisor) panicked(g Guest) error {
	if err := g.Do(virt.Destroy); err != nil && !errors.Is(err, virt.ErrNoDomain) {
		s.Log.Debug("end QEMU after the guest's panic", "err", err)
	}
	return failure.Newf(launcherrpcv1.ReasonGuestPanicked, "the guest's kernel panicked; its last words are in the container's log")
}
