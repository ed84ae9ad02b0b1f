package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/launcher/rpc"
	"github.com/kubevfio/kubevfio/launcher/virt"
)

const uid = "6f1d0f3e-26b7-4bd0-9c4b-0b4f1f0c0d01"

const spec = `domain:
  cpu: {cores: 1}
  memory: {guest: 64Mi}
  firmware:
    kernelBoot:
      container: {kernelPath: /k}
  devices:
    autoattachPodInterface: false
terminationGracePeriodSeconds: 1
`

// libvirt is a stand-in with at most one domain.
type libvirt struct {
	mu     sync.Mutex
	events func(virt.Event)
	state  virt.State // "" when there is no domain
	did    []virt.Action
	// obeys says whether the guest follows the power button.
	obeys bool
	// hangs makes Create wait until the domain is destroyed.
	hangs     chan struct{}
	createErr error
	created   int
}

func (l *libvirt) open(o virt.Options) (Hypervisor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = o.Events
	return l, nil
}

func (l *libvirt) Versions() (virt.Versions, error) { return virt.Versions{Libvirt: "11.3.0"}, nil }

func (l *libvirt) Create(xml string) (Guest, error) {
	if !strings.Contains(xml, "<name>vm-a</name>") {
		return nil, fmt.Errorf("not the domain: %.100s", xml)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.created++
	if l.createErr != nil {
		return nil, l.createErr
	}
	l.state = virt.StatePaused
	if l.hangs != nil {
		l.mu.Unlock()
		<-l.hangs
		l.mu.Lock()
		return nil, errors.New("domain was destroyed during its start")
	}
	return l, nil
}

func (l *libvirt) Lookup(string) (Guest, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == "" {
		return nil, virt.ErrNoDomain
	}
	return l, nil
}

func (l *libvirt) State() (virt.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == "" {
		return "", virt.ErrNoDomain
	}
	return l.state, nil
}

func (l *libvirt) Do(a virt.Action) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == "" {
		return virt.ErrNoDomain
	}
	l.did = append(l.did, a)
	switch a {
	case virt.Resume:
		l.state = virt.StateRunning
		l.post(virt.EventResumed)
	case virt.Pause:
		l.state = virt.StatePaused
		l.post(virt.EventPaused)
	case virt.Shutdown:
		if l.obeys {
			l.state = ""
			l.post(virt.EventShutdown, virt.EventEnded)
		}
	case virt.Destroy:
		l.state = ""
		if l.hangs != nil {
			close(l.hangs)
			return nil
		}
		l.post(virt.EventDestroyed)
	}
	return nil
}

// post delivers events as libvirt does: later, in order.
func (l *libvirt) post(kinds ...virt.EventKind) {
	go func() {
		for _, k := range kinds {
			l.events(virt.Event{Domain: "vm-a", Kind: k})
		}
	}()
}

func (l *libvirt) XML() (string, error)                         { return "<domain/>", nil }
func (l *libvirt) Screenshot(io.Writer) (string, error)         { return "", virt.ErrNotSupported }
func (l *libvirt) Info() (i launcherrpcv1.GuestInfo, err error) { return i, virt.ErrNotSupported }

func (l *libvirt) has(a virt.Action) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.did, a)
}

// rig is a supervisor over a stand-in.
type rig struct {
	t       *testing.T
	dir     string
	libvirt *libvirt
	opts    Options
	signals chan os.Signal
	out     bytes.Buffer
	outcome launcherrpcv1.Outcome
	err     error
	done    chan struct{}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "kl-") //nolint:usetesting // short: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, dir: dir, libvirt: &libvirt{obeys: true}, signals: make(chan os.Signal, 4), done: make(chan struct{})}
	r.write("pod/vm", spec)
	r.write("pod/name", "vm-a")
	r.write("pod/uid", uid)
	r.write("root/proc/self/status", "Cpus_allowed_list:\t0-1\nMems_allowed_list:\t0\n")
	r.write("root/sys/fs/cgroup/memory.events", "low 0\noom_kill 0\n")
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.opts = Options{
		Version: "test", RunDir: filepath.Join(dir, "run"), PodInfo: filepath.Join(dir, "pod"),
		Host: host.Dir(filepath.Join(dir, "root")), Dev: filepath.Join(dir, "dev"), Emulate: true,
		Libvirt: virt.Embedded, Open: r.libvirt.open, Stdout: &r.out, Signals: r.signals, Idle: func() {},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	return r
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) start() *Supervisor {
	s := New(r.opts)
	go func() {
		defer close(r.done)
		r.outcome, r.err = s.Run(context.Background())
	}()
	return s
}

func (r *rig) phase(want launcherrpcv1.Phase) {
	r.t.Helper()
	c := rpc.NewClient(r.opts.rpcSocket())
	deadline := time.Now().Add(20 * time.Second)
	var st launcherrpcv1.State
	var err error
	for time.Now().Before(deadline) {
		if st, err = c.State(context.Background()); err == nil && st.Phase == want {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.t.Fatalf("phase %s, %v; want %s", st.Phase, err, want)
}

func (r *rig) end(code int, reason string) {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		r.t.Fatal("the supervisor has not ended")
	}
	if r.err != nil || r.outcome.ExitCode != code || r.outcome.Reason != reason {
		r.t.Fatalf("%+v, %v; want %d %s", r.outcome, r.err, code, reason)
	}
}

func (r *rig) command(path string) {
	r.t.Helper()
	if err := rpc.NewClient(r.opts.rpcSocket()).Command(context.Background(), path, launcherrpcv1.StopRequest{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) record(rec record) {
	r.t.Helper()
	if err := rec.write(r.opts.recordFile()); err != nil {
		r.t.Fatal(err)
	}
}

func TestStop(t *testing.T) {
	r := newRig(t)
	r.start()
	r.phase(launcherrpcv1.PhaseRunning)
	r.signals <- unix.SIGTERM
	r.end(0, launcherrpcv1.ReasonGuestShutdown)
	if r.libvirt.has(virt.Destroy) {
		t.Error("an obedient guest was destroyed")
	}
	if r.outcome.Seconds["qemu"] == 0 {
		t.Errorf("no times: %+v", r.outcome)
	}
}

func TestStopDisobeyed(t *testing.T) {
	r := newRig(t)
	r.libvirt.obeys = false
	r.start()
	r.phase(launcherrpcv1.PhaseRunning)
	r.signals <- unix.SIGTERM
	r.end(0, launcherrpcv1.ReasonForcedOff)
}

func TestStopAtOnce(t *testing.T) {
	r := newRig(t)
	r.start()
	r.phase(launcherrpcv1.PhaseRunning)
	zero := int64(0)
	if err := rpc.NewClient(r.opts.rpcSocket()).Command(context.Background(), launcherrpcv1.PathStop, launcherrpcv1.StopRequest{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	r.end(0, launcherrpcv1.ReasonForcedOff)
	if r.libvirt.has(virt.Shutdown) {
		t.Error("the guest was asked although it had no time")
	}
}

func TestStopPaused(t *testing.T) {
	r := newRig(t)
	r.start()
	r.phase(launcherrpcv1.PhaseRunning)
	r.command(launcherrpcv1.PathPause)
	r.phase(launcherrpcv1.PhasePaused)
	r.signals <- unix.SIGTERM
	r.end(0, launcherrpcv1.ReasonGuestShutdown)
}

func TestStopWhileCreating(t *testing.T) {
	r := newRig(t)
	r.libvirt.hangs = make(chan struct{})
	r.start()
	r.phase(launcherrpcv1.PhaseStarting)
	r.signals <- unix.SIGTERM
	r.end(0, launcherrpcv1.ReasonStopped)
}

func TestStandby(t *testing.T) {
	for name, tc := range map[string]struct {
		release bool
		reason  string
	}{
		"released": {true, launcherrpcv1.ReasonGuestShutdown},
		"stopped":  {false, launcherrpcv1.ReasonStopped},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.opts.Standby = true
			r.start()
			r.phase(launcherrpcv1.PhaseStandby)
			if tc.release {
				r.command(launcherrpcv1.PathRelease)
				r.phase(launcherrpcv1.PhaseRunning)
			}
			r.signals <- unix.SIGTERM
			r.end(0, tc.reason)
			if tc.release != (r.libvirt.created == 1) {
				t.Errorf("QEMU was started %d times", r.libvirt.created)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	for name, tc := range map[string]struct {
		event  virt.EventKind
		exits  string
		oom    bool
		code   int
		reason string
		says   string
	}{
		"power off":     {event: virt.EventEnded, reason: launcherrpcv1.ReasonGuestShutdown},
		"panic":         {event: virt.EventPanicked, code: 68, reason: launcherrpcv1.ReasonGuestPanicked},
		"QEMU killed":   {event: virt.EventFailed, exits: `{"pid":77,"name":"qemu-system-x86","code":-1,"signal":9}`, code: 69, reason: launcherrpcv1.ReasonQEMUDied, says: "signal 9"},
		"out of memory": {event: virt.EventFailed, oom: true, code: 69, reason: launcherrpcv1.ReasonQEMUOutOfMemory, says: "memory limit"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			s := r.start()
			r.phase(launcherrpcv1.PhaseRunning)
			if tc.oom {
				r.write("root/sys/fs/cgroup/memory.events", "oom_kill 1\n")
			}
			if tc.exits != "" {
				r.write("run/exits.jsonl", tc.exits+"\n")
				if err := s.save(func(rec *record) { rec.QEMUPID = 77 }); err != nil {
					t.Fatal(err)
				}
			}
			r.libvirt.post(tc.event)
			r.end(tc.code, tc.reason)
			if !strings.Contains(r.outcome.Message, tc.says) {
				t.Errorf("message %q", r.outcome.Message)
			}
		})
	}
}

// TestLost ends a supervisor without an outcome, so that PID 1 starts another.
func TestLost(t *testing.T) {
	r := newRig(t)
	r.start()
	r.phase(launcherrpcv1.PhaseRunning)
	r.libvirt.post(virt.EventLost)
	<-r.done
	if !errors.Is(r.err, errLostLibvirt) {
		t.Errorf("%+v, %v", r.outcome, r.err)
	}
}

func TestFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*rig)
		code   int
		reason string
		says   string
	}{
		"QEMU does not start": {
			func(r *rig) {
				r.libvirt.createErr = errors.New("internal error: QEMU said no")
				r.write("run/lv/log/qemu/vm-a.log", "2026-11-23 10:00:00.000+0000: starting up libvirt version: 11.3.0\nLC_ALL=C \\\n/usr/bin/qemu \\\n-msg timestamp=on\nqemu: the real reason\x1b[2J\n2026-11-23: shutting down, reason=failed\n")
			}, 67, launcherrpcv1.ReasonQEMUDidNotStart, "QEMU said no; QEMU said: qemu: the real reason[2J",
		},
		"no spec":       {func(r *rig) { r.write("pod/vm", "") }, 64, launcherrpcv1.ReasonBadSpec, "kubevfio.io/vm"},
		"unknown field": {func(r *rig) { r.write("pod/vm", spec+"\nfoo: 1\n") }, 64, launcherrpcv1.ReasonBadSpec, "foo"},
		"bad environment": {
			func(r *rig) { r.opts.Environ = []string{"PCI_RESOURCE_X=gpu"} }, 65, launcherrpcv1.ReasonAssignment, "PCI_RESOURCE_X",
		},
		"device is gone": {
			func(r *rig) { r.opts.Environ = []string{"PCI_RESOURCE_X=0000:41:10.0"} }, 65, launcherrpcv1.ReasonDeviceNotViable, "0000:41:10.0",
		},
		"foreign assignment": {
			func(r *rig) {
				r.write("pod/assignment", `{"version":"v1","podUID":"other","node":"n","containers":{}}`)
			},
			65, launcherrpcv1.ReasonAssignment, "copied",
		},
		"broken record": {func(r *rig) { r.write("run/record.json", "{") }, 70, launcherrpcv1.ReasonLauncherInternal, "record"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			tc.change(r)
			r.start()
			r.end(tc.code, tc.reason)
			if !strings.Contains(r.outcome.Message, tc.says) {
				t.Errorf("message %q does not say %q", r.outcome.Message, tc.says)
			}
		})
	}
}

func TestAdopt(t *testing.T) {
	running := record{Stage: stageRunning, Domain: "vm-a", UUID: uid, QEMUPID: 77, GraceSeconds: 1}
	held := running
	held.HeldPaused = true
	for name, tc := range map[string]struct {
		rec   record
		state virt.State
		exits string
		// phase that it settles in, empty when it ends by itself.
		phase  launcherrpcv1.Phase
		code   int
		reason string
	}{
		"running":               {rec: running, state: virt.StateRunning, phase: launcherrpcv1.PhaseRunning, reason: launcherrpcv1.ReasonGuestShutdown},
		"paused by wish":        {rec: held, state: virt.StatePaused, phase: launcherrpcv1.PhasePaused, reason: launcherrpcv1.ReasonGuestShutdown},
		"never resumed":         {rec: running, state: virt.StatePaused, phase: launcherrpcv1.PhaseRunning, reason: launcherrpcv1.ReasonGuestShutdown},
		"panicked":              {rec: running, state: virt.StateCrashed, code: 68, reason: launcherrpcv1.ReasonGuestPanicked},
		"powered off":           {rec: running, state: virt.StateShutdown, reason: launcherrpcv1.ReasonGuestShutdown},
		"gone, ended well":      {rec: running, exits: `{"pid":77,"name":"qemu","code":0}`, reason: launcherrpcv1.ReasonGuestShutdown},
		"gone, killed":          {rec: running, exits: `{"pid":77,"name":"qemu","code":-1,"signal":9}`, code: 69, reason: launcherrpcv1.ReasonQEMUDied},
		"gone, nobody knows":    {rec: running, code: 69, reason: launcherrpcv1.ReasonQEMUDied},
		"half started":          {rec: record{Stage: stageCreating, Domain: "vm-a"}, state: virt.StateStarting, phase: launcherrpcv1.PhaseRunning, reason: launcherrpcv1.ReasonGuestShutdown},
		"half started, nothing": {rec: record{Stage: stageCreating, Domain: "vm-a"}, phase: launcherrpcv1.PhaseRunning, reason: launcherrpcv1.ReasonGuestShutdown},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.record(tc.rec)
			r.libvirt.state = tc.state
			if tc.exits != "" {
				r.write("run/exits.jsonl", tc.exits+"\n")
			}
			r.start()
			if tc.phase != "" {
				r.phase(tc.phase)
				r.signals <- unix.SIGTERM
			}
			r.end(tc.code, tc.reason)
			if adopted := tc.rec.Stage == stageRunning; adopted == (r.libvirt.created > 0) {
				t.Errorf("QEMU was started %d times", r.libvirt.created)
			}
		})
	}
}

// TestCommandsNeedGuest refuses what makes no sense yet, by class.
func TestCommandsNeedGuest(t *testing.T) {
	r := newRig(t)
	r.opts.Standby = true
	r.start()
	r.phase(launcherrpcv1.PhaseStandby)
	c := rpc.NewClient(r.opts.rpcSocket())
	for _, path := range []string{launcherrpcv1.PathPause, launcherrpcv1.PathReset} {
		if err := c.Command(context.Background(), path, launcherrpcv1.StopRequest{}); !errors.Is(err, rpc.ErrConflict) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := c.Stream(context.Background(), launcherrpcv1.PathVNC); !errors.Is(err, rpc.ErrConflict) {
		t.Errorf("vnc: %v", err)
	}
	r.command(launcherrpcv1.PathRelease)
	r.phase(launcherrpcv1.PhaseRunning)
	if err := c.Command(context.Background(), launcherrpcv1.PathRelease, launcherrpcv1.StopRequest{}); !errors.Is(err, rpc.ErrConflict) {
		t.Errorf("release of a running guest: %v", err)
	}
	if _, _, err := c.Document(context.Background(), launcherrpcv1.PathScreenshot); !errors.Is(err, rpc.ErrNotSupported) {
		t.Errorf("screenshot: %v", err)
	}
	if mime, xml, err := c.Document(context.Background(), launcherrpcv1.PathDomainXML); err != nil || mime != "application/xml" || len(xml) == 0 {
		t.Errorf("domain: %s, %s, %v", mime, xml, err)
	}
	r.signals <- unix.SIGTERM
	r.end(0, launcherrpcv1.ReasonGuestShutdown)
	b, err := json.Marshal(r.outcome)
	if err != nil || !bytes.Contains(b, []byte(`"exitCode":0`)) {
		t.Errorf("%s, %v", b, err)
	}
}
