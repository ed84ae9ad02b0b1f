package supervisor

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// stepWatcher sees the steps of a start as they end, and sends SIGTERM at one.
type stepWatcher struct {
	slog.Handler
	mu      sync.Mutex
	steps   []string
	at      string
	signals chan<- os.Signal
}

func (w *stepWatcher) Enabled(context.Context, slog.Level) bool { return true }

func (w *stepWatcher) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "step" {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "step" {
			return true
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.steps = append(w.steps, a.Value.String())
		if a.Value.String() == w.at {
			w.signals <- unix.SIGTERM
		}
		return false
	})
	return nil
}

// TestStopAtEveryStep ends the launcher in order whenever the signal comes, and
// leaves no guest.
func TestStopAtEveryStep(t *testing.T) {
	steps := []string{"inputs", "host", "nodes", "domain", "hugepages", "memlock", "vf", "volumes", "libvirt", "qemu", "resume"}
	for _, at := range append(steps, "") {
		t.Run(at, func(t *testing.T) {
			r := newRig(t)
			w := &stepWatcher{at: at, signals: r.signals}
			r.opts.Log = slog.New(w)
			r.start()
			if at == "" {
				r.phase(launcherrpcv1.PhaseRunning)
				r.signals <- unix.SIGTERM
			}
			select {
			case <-r.done:
			case <-t.Context().Done():
			}
			// The signal races with the next steps, the outcome does not.
			if r.err != nil || r.outcome.ExitCode != 0 || !slices.Contains([]string{launcherrpcv1.ReasonStopped, launcherrpcv1.ReasonGuestShutdown}, r.outcome.Reason) {
				t.Errorf("%+v, %v", r.outcome, r.err)
			}
			if r.libvirt.state != "" {
				t.Errorf("the guest is left %s", r.libvirt.state)
			}
			if d := cmp.Diff(steps, w.steps); at == "" && d != "" {
				t.Errorf("the steps of a start (-want +got):\n%s", d)
			}
		})
	}
}

// TestDeviceGone marks the device that the host took away.
func TestDeviceGone(t *testing.T) {
	for alias, want := range map[string]string{
		"ua-sriov-vf0": "vf0", "ua-gpu-gpu0-1": "gpu0", "ua-hostdevice-a-b": "a-b", "ua-sriov-other": "", "net0": "", "": "",
	} {
		s := New(Options{Log: slog.New(slog.DiscardHandler)})
		s.state.Devices = []launcherrpcv1.Device{{Name: "a"}, {Name: "vf0"}, {Name: "gpu0"}, {Name: "a-b"}, {}}
		before := s.snapshot()
		s.deviceGone(alias)
		gone := ""
		for _, d := range s.snapshot().Devices {
			if d.TakenAway {
				gone += d.Name
			}
		}
		if gone != want {
			t.Errorf("%q: %q is gone, want %q", alias, gone, want)
		}
		if slices.ContainsFunc(before.Devices, func(d launcherrpcv1.Device) bool { return d.TakenAway }) {
			t.Error("an earlier snapshot changed")
		}
	}
}
