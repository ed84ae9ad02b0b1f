package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	rest := strings.Repeat(" 0", 18) + " 4711 0 0"
	for name, c := range map[string]struct {
		in    string
		start string
		alive bool
	}{
		"running":             {"12 (lab) S" + rest, "4711", true},
		"zombie":              {"12 (lab) Z" + rest, "4711", false},
		"hostile name":        {"12 (a) S 1 (b) R) S" + rest, "4711", true},
		"cut short":           {"12 (lab) S 1 2", "", false},
		"empty":               {"", "", false},
		"nothing behind name": {"12 (lab)", "", false},
	} {
		start, alive := parseStat(c.in)
		if start != c.start || alive != c.alive {
			t.Errorf("%s: got %q, %t", name, start, alive)
		}
	}
	if start, alive := processStart("/proc", os.Getpid()); start == "" || !alive {
		t.Error("this very process is not found alive")
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (lab) S 1 2 3")
	f.Add(") ")
	f.Fuzz(func(t *testing.T, in string) {
		if start, alive := parseStat(in); alive && start == "" {
			t.Errorf("%q: alive without a start time", in)
		}
	})
}

func TestLockIsExclusive(t *testing.T) {
	dir := stateDir(filepath.Join(t.TempDir(), "lab"))
	a, err := dir.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.lock(); !errors.Is(err, ErrUp) {
		t.Fatalf("second lock: %v", err)
	}
	a.Close()
	b, err := dir.lock()
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

func TestCleanKeepsWhatItShould(t *testing.T) {
	dir := stateDir(t.TempDir())
	for _, f := range []string{"lock", "bin-1.ext4", "lab.json", "logs/x.log", "nodes/node-1/root.qcow2", "etcd/member"} {
		if err := os.MkdirAll(filepath.Dir(dir.path(f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir.path(f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func() []string {
		entries, err := os.ReadDir(string(dir))
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	if err := dir.clean(false); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"bin-1.ext4", "lock", "logs"}, left()); d != "" {
		t.Error(d)
	}
	if err := dir.clean(true); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"bin-1.ext4", "lock"}, left()); d != "" {
		t.Error(d)
	}
}

// kill must not touch a process that has got the daemon's number after its death.
func TestKillChecksTheStartTime(t *testing.T) {
	cmd := exec.Command("/bin/sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	start, _ := processStart("/proc", cmd.Process.Pid)
	stranger := &info{PID: cmd.Process.Pid, StartTime: start + "0"}
	if stranger.alive() {
		t.Error("a process with another start time passes for the daemon")
	}
	if err := stranger.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
		t.Fatal("a stranger was killed")
	case <-time.After(50 * time.Millisecond):
	}
	own := &info{PID: cmd.Process.Pid, StartTime: start}
	if err := own.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := own.kill(t.Context()); err != nil {
		t.Fatalf("kill of the dead: %v", err)
	}
}

func TestQMP(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "qmp.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		say := func(s string) { _, _ = conn.Write([]byte(s + "\r\n")) }
		say(`{"QMP": {"version": {}}}`)
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			var cmd struct{ Execute string }
			if json.Unmarshal(lines.Bytes(), &cmd) != nil {
				return
			}
			switch cmd.Execute {
			case "fail":
				say(`{"error": {"class": "DeviceNotFound", "desc": "no such device"}}`)
			case "hang-up":
				conn.Close()
			default:
				say(`{"event": "DEVICE_DELETED"}`)
				say(`{"return": {"was": "` + cmd.Execute + `"}}`)
			}
		}
	}()
	events := make(chan string, 8)
	c, err := dialQMP(t.Context(), socket, func(line []byte) { events <- string(line) })
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.command(t.Context(), json.RawMessage(`{"execute":"query-pci"}`))
	if err != nil || string(out) != `{"was": "query-pci"}` {
		t.Fatalf("got %s, %v", out, err)
	}
	if e := <-events; !strings.Contains(e, "DEVICE_DELETED") {
		t.Fatalf("event %q", e)
	}
	if _, err := c.command(t.Context(), json.RawMessage(`{"execute":"fail"}`)); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Fatalf("got %v", err)
	}
	if _, err := c.command(t.Context(), json.RawMessage(`{"execute":"hang-up"}`)); err == nil {
		t.Fatal("no error from a closed connection")
	}
}

func TestKVMVerdict(t *testing.T) {
	boot := func(text string, err error) func(context.Context, *lockedBuffer) error {
		return func(_ context.Context, out *lockedBuffer) error {
			if _, werr := out.Write([]byte(text)); werr != nil {
				return werr
			}
			return err
		}
	}
	for name, c := range map[string]struct {
		text string
		err  error
		kvm  bool
		why  string
	}{
		"works":       {"…KUBEVFIO-TRIAL-OK KUBEVFIO-TRIAL-NESTED\n", nil, true, "succeeded"},
		"not nested":  {"KUBEVFIO-TRIAL-OK\n", nil, false, "no nested"},
		"QEMU aborts": {"first line\nkvm_buf_set_msrs: Assertion failed\n", errors.New("signal: aborted"), false, "Assertion failed"},
		"silent":      {"", nil, false, "failed"},
	} {
		kvm, why := tryKVM(t.Context(), boot(c.text, c.err))
		if kvm != c.kvm || !strings.Contains(why, c.why) {
			t.Errorf("%s: got %t, %q", name, kvm, why)
		}
	}
	if v, err := chooseAccel(t.Context(), AccelTCG, "", nil, ""); err != nil || v.KVM {
		t.Errorf("emulation was asked for: %+v, %v", v, err)
	}
}

func TestResetsItself(t *testing.T) {
	for event, want := range map[string]bool{
		`{"event": "RESET", "data": {"guest": true, "reason": "guest-reset"}}`:            true,
		`{"event": "RESET", "data": {"guest": false, "reason": "host-qmp-system-reset"}}`: false,
		`{"event": "SHUTDOWN", "data": {"guest": true}}`:                                  false,
		`{"event": "RES`: false,
	} {
		if got := resetsItself([]byte(event)); got != want {
			t.Errorf("%s: %t, want %t", event, got, want)
		}
	}
}
