package launcher

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// TestLife is a guest's whole life, with a supervisor killed in the middle.
func TestLife(t *testing.T) {
	for _, mode := range []string{"embedded", "daemon"} {
		t.Run(mode, func(t *testing.T) { life(t, mode) })
	}
}

func life(t *testing.T, mode string) {
	c := start(t, pod{vm: vm(""), args: []string{"--libvirt=" + mode}})
	c.console("KUBEVFIO-GUEST report-end")
	st := c.phase(launcherrpcv1.PhaseRunning)
	if st.Supervisor.Adopted || st.QEMUPID == 0 || st.Supervisor.LibvirtVersion == "" {
		t.Errorf("state of a fresh guest: %+v", st)
	}
	if out, code := c.exec(nil, "probe", "ready"); code != 0 {
		t.Errorf("probe ready: exit code %d: %s", code, out)
	}

	qemu := c.qemu()
	c.kill(c.supervisor(), unix.SIGKILL)
	c.eventually("the guest is adopted", func() bool {
		st, err := c.client().State(context.Background())
		return err == nil && st.Supervisor.Adopted && st.Phase == launcherrpcv1.PhaseRunning
	})
	if now := c.qemu(); now != qemu {
		t.Errorf("QEMU is process %d, was %d: the guest was started anew", now, qemu)
	}

	if out, code := c.exec(strings.NewReader("\necho still-$((40+2))-here\n"), "proxy", "console"); code != 0 {
		t.Errorf("proxy console: exit code %d: %s", code, out)
	}
	c.console("still-")

	if out, code := c.exec(nil, "proxy", "pause"); code != 0 {
		t.Fatalf("proxy pause: exit code %d: %s", code, out)
	}
	c.phase(launcherrpcv1.PhasePaused)
	if out, code := c.exec(nil, "probe", "ready"); code == 0 {
		t.Errorf("a paused guest is ready: %s", out)
	}
	if out, code := c.exec(nil, "probe", "live"); code != 0 {
		t.Errorf("probe live: exit code %d: %s", code, out)
	}
	// Paused by wish: a new supervisor leaves it so.
	c.kill(c.supervisor(), unix.SIGKILL)
	c.eventually("the paused guest is adopted", func() bool {
		st, err := c.client().State(context.Background())
		return err == nil && st.Supervisor.Restarts == 2 && st.Phase == launcherrpcv1.PhasePaused
	})
	if out, code := c.exec(nil, "proxy", "unpause"); code != 0 {
		t.Fatalf("proxy unpause: exit code %d: %s", code, out)
	}
	c.phase(launcherrpcv1.PhaseRunning)
	if out, code := c.exec(nil, "proxy", "screenshot"); code == 0 || !strings.Contains(out, "not supported") {
		t.Errorf("screenshot of a guest without a screen: exit code %d: %.200s", code, out)
	}

	c.kill(c.init(), unix.SIGTERM)
	o := c.end(0, launcherrpcv1.ReasonGuestShutdown)
	if o.SupervisorRestarts != 2 || o.Seconds["qemu"] == 0 {
		t.Errorf("termination message: %+v", o)
	}
	if !strings.Contains(c.stdout.String(), "KUBEVFIO-GUEST shutdown") {
		t.Error("the guest did not say that it shut down")
	}
	if strings.Contains(c.stdout.String(), "kubevfio-launcher:") {
		t.Error("the launcher's own log is on stdout")
	}
}

func TestQEMUKilled(t *testing.T) {
	c := start(t, pod{vm: vm("")})
	c.phase(launcherrpcv1.PhaseRunning)
	c.kill(c.qemu(), unix.SIGKILL)
	o := c.end(69, launcherrpcv1.ReasonQEMUDied)
	if !strings.Contains(o.Message, "signal 9") {
		t.Errorf("message %q does not say how QEMU ended", o.Message)
	}
}

// TestQEMUKilledUnwatched kills QEMU while no supervisor lives.
func TestQEMUKilledUnwatched(t *testing.T) {
	c := start(t, pod{vm: vm("")})
	c.phase(launcherrpcv1.PhaseRunning)
	qemu, supervisor := c.qemu(), c.supervisor()
	c.kill(supervisor, unix.SIGKILL)
	c.kill(qemu, unix.SIGKILL)
	o := c.end(69, launcherrpcv1.ReasonQEMUDied)
	if !strings.Contains(o.Message, "signal 9") {
		t.Errorf("message %q does not say how QEMU ended", o.Message)
	}
}

func TestGuestPanics(t *testing.T) {
	c := start(t, pod{vm: vm("kubevfio.panic=1")})
	c.end(68, launcherrpcv1.ReasonGuestPanicked)
}

func TestGuestPowersOff(t *testing.T) {
	c := start(t, pod{vm: vm("kubevfio.poweroff=1")})
	c.end(0, launcherrpcv1.ReasonGuestShutdown)
}

func TestBadSpec(t *testing.T) {
	c := start(t, pod{vm: strings.Replace(vm(""), "cores: 1", "coers: 1", 1)})
	if o := c.end(64, launcherrpcv1.ReasonBadSpec); !strings.Contains(o.Message, "coers") {
		t.Errorf("message %q does not name the field", o.Message)
	}
}

func TestNoKernel(t *testing.T) {
	c := start(t, pod{vm: strings.Replace(vm(""), "/guest/boot/vmlinuz", "/guest/boot/none", 1)})
	if o := c.end(67, launcherrpcv1.ReasonQEMUDidNotStart); !strings.Contains(o.Message, "/guest/boot/none") {
		t.Errorf("message %q does not name the file", o.Message)
	}
}

// TestStopAnytime asks for the end at several moments of the start. Whenever it
// comes, the guest is ended in order and nothing is left.
func TestStopAnytime(t *testing.T) {
	for _, after := range []time.Duration{0, 50 * time.Millisecond, 500 * time.Millisecond, 3 * time.Second, 6 * time.Second} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			c := start(t, pod{vm: strings.Replace(vm(""), "Seconds: 60", "Seconds: 5", 1)})
			pid := c.init()
			c.supervisor() // PID 1 listens for signals before it starts one
			time.Sleep(after)
			c.kill(pid, unix.SIGTERM)
			select {
			case <-c.ended:
			case <-time.After(patience):
				t.Fatal("the launcher has not ended")
			}
			if code := c.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
		})
	}
}

// TestStandby holds the start until it is released.
func TestStandby(t *testing.T) {
	c := start(t, pod{vm: vm("kubevfio.poweroff=1"), env: []string{launcherrpcv1.EnvStandby + "=true"}})
	c.phase(launcherrpcv1.PhaseStandby)
	if out, code := c.exec(nil, "probe", "ready"); code == 0 {
		t.Errorf("ready in standby: %s", out)
	}
	if out, code := c.exec(nil, "proxy", "release"); code != 0 {
		t.Fatalf("proxy release: exit code %d: %s", code, out)
	}
	c.end(0, launcherrpcv1.ReasonGuestShutdown)
}

// TestSlowReader leaves stdout unread while the guest writes much: neither the
// guest nor the launcher waits for the reader.
func TestSlowReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := start(t, pod{vm: vm(""), stdout: w})
	w.Close()
	out := &buffer{}
	c.phase(launcherrpcv1.PhaseRunning)
	conn, err := c.client().Stream(context.Background(), launcherrpcv1.PathConsole)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.Copy(out, conn) //nolint:errcheck // ends with the connection
	wait := func(text string) {
		t.Helper()
		c.eventually("stream shows "+text, func() bool { return strings.Contains(out.String(), text) })
	}
	wait("report-end")
	// More than the pipe holds, so that the launcher's write to stdout blocks;
	// what it does when its own buffer is full is told by a unit test.
	if _, err := fmt.Fprint(conn, "\nbusybox dd if=/dev/zero bs=1024 count=80 2>/dev/null | busybox tr '\\0' x; echo flood-$((1+1))-over\n"); err != nil {
		t.Fatal(err)
	}
	wait("flood-2-over")
	c.kill(c.init(), unix.SIGTERM)
	c.end(0, launcherrpcv1.ReasonGuestShutdown)
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "report-end") {
		t.Error("stdout lost its beginning, which had room in the pipe")
	}
}

// TestPodNetwork gives the guest a card on the pod's network by passt.
func TestPodNetwork(t *testing.T) {
	spec := strings.Replace(vm("kubevfio.poweroff=1"), "autoattachPodInterface: false", "autoattachPodInterface: true", 1)
	spec = strings.Replace(spec, "kubevfio.passt=off", "kubevfio.passt=dhcp", 1)
	c := start(t, pod{vm: spec})
	c.end(0, launcherrpcv1.ReasonGuestShutdown)
	if !strings.Contains(c.stdout.String(), "KUBEVFIO-GUEST passt ip=") {
		t.Errorf("the guest got no address from passt:\n%s", c.stdout)
	}
}

// TestDaemonKilled kills libvirtd under a running guest: the guest is adopted by
// a new supervisor with a new daemon.
func TestDaemonKilled(t *testing.T) {
	c := start(t, pod{vm: vm(""), args: []string{"--libvirt=daemon"}})
	c.console("KUBEVFIO-GUEST report-end")
	qemu := c.qemu()
	c.kill(c.find("libvirtd", func(p process) bool { return p.comm == "libvirtd" }), unix.SIGKILL)
	c.eventually("the guest is adopted", func() bool {
		st, err := c.client().State(context.Background())
		return err == nil && st.Supervisor.Adopted && st.Phase == launcherrpcv1.PhaseRunning
	})
	if now := c.qemu(); now != qemu {
		t.Errorf("QEMU is process %d, was %d: the guest was started anew", now, qemu)
	}
	c.kill(c.init(), unix.SIGTERM)
	c.end(0, launcherrpcv1.ReasonGuestShutdown)
}

// TestScreen takes a picture of the guest's screen and speaks to its VNC server.
func TestScreen(t *testing.T) {
	spec := strings.Replace(vm(""), "autoattachPodInterface: false", "autoattachPodInterface: false\n    autoattachGraphicsDevice: true", 1)
	c := start(t, pod{vm: spec})
	c.phase(launcherrpcv1.PhaseRunning)
	mime, body, err := c.client().Document(context.Background(), launcherrpcv1.PathScreenshot)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(body))
	if err != nil || mime != "image/png" || img.Bounds().Dx() < 320 {
		t.Errorf("%s, %v", mime, err)
	}
	conn, err := c.client().Stream(context.Background(), launcherrpcv1.PathVNC)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := make([]byte, 12)
	if _, err := io.ReadFull(conn, hello); err != nil || !strings.HasPrefix(string(hello), "RFB 003.") {
		t.Errorf("VNC says %q, %v", hello, err)
	}
}
