package pid1

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// role makes this test binary play a part: PID 1 must be a process of its own,
// because it reaps all of its children.
const role = "KUBEVFIO_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "init":
		os.Exit(playInit())
	case "supervisor":
		os.Exit(playSupervisor(os.Args[len(os.Args)-2], os.Args[len(os.Args)-1]))
	default:
		os.Exit(m.Run())
	}
}

func playInit() int {
	if os.Getenv(EnvRestarts) != "" {
		return 89 // an init started by an init: never a fork bomb
	}
	dir, script := os.Args[len(os.Args)-2], os.Args[len(os.Args)-1]
	// Of two values of one variable the first counts: the old one must go, or the child would play init again, without end.
	env := append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, role+"=") }), role+"=supervisor")
	code, err := Run(Options{
		Command: []string{os.Args[0], dir, script}, Env: env, RunDir: dir,
		TerminationLog: filepath.Join(dir, "termination"), Proc: "/proc", Idle: func() {},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	return code
}

// playSupervisor does what the script's word for this life says.
func playSupervisor(dir, script string) int {
	words := strings.Split(script, ",")
	life, err := strconv.Atoi(os.Getenv(EnvRestarts))
	if err != nil {
		return 98
	}
	word := words[min(life, len(words)-1)]
	finish := func(code int, reason string) int {
		if err := WriteOutcome(dir, launcherrpcv1.Outcome{ExitCode: code, Reason: reason, Message: "said by life " + strconv.Itoa(life)}); err != nil {
			return 97
		}
		return code
	}
	switch word {
	case "die":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "fail":
		return 3
	case "stopping":
		if os.Getenv(EnvStopping) != "true" {
			return finish(70, "NotTold")
		}
		return finish(0, launcherrpcv1.ReasonStopped)
	case "ok":
		return finish(0, launcherrpcv1.ReasonGuestShutdown)
	case "spec":
		return finish(64, launcherrpcv1.ReasonBadSpec)
	case "orphan":
		// As QEMU: a child of a child that has ended.
		out, err := exec.Command("sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!").Output()
		if err != nil {
			return 96
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil {
			return 95
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			return 94
		}
		for range 100 {
			if e, ok, err := FindExit(dir, pid); err == nil && ok && e.Signal == 9 && e.Name == "sleep" {
				return finish(0, launcherrpcv1.ReasonGuestShutdown)
			}
			time.Sleep(20 * time.Millisecond)
		}
		return finish(70, "NotReaped")
	case "leave":
		if err := exec.Command("sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $! >"+filepath.Join(dir, "left")).Run(); err != nil {
			return 93
		}
		return finish(0, launcherrpcv1.ReasonGuestShutdown)
	case "wait":
		if err := os.WriteFile(filepath.Join(dir, "waiting"), nil, 0o600); err != nil {
			return 92
		}
		time.Sleep(time.Minute) // ends by the default action of SIGTERM
		return 91
	}
	return 90
}

// run plays a script and gives exit code and termination message.
func run(t *testing.T, script string, meanwhile func(dir string, init *os.Process)) (int, launcherrpcv1.Outcome, string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], dir, script)
	cmd.Env = append(os.Environ(), role+"=init")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if meanwhile != nil {
		meanwhile(dir, cmd.Process)
	}
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() < 0 {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "termination"))
	if err != nil {
		t.Fatal(err)
	}
	o, ok := launcherrpcv1.ParseOutcome(b)
	if !ok {
		t.Fatalf("termination message %q", b)
	}
	return cmd.ProcessState.ExitCode(), o, dir
}

func TestRun(t *testing.T) {
	for script, want := range map[string]struct {
		code, restarts int
		reason         string
	}{
		"ok":            {0, 0, launcherrpcv1.ReasonGuestShutdown},
		"spec":          {64, 0, launcherrpcv1.ReasonBadSpec},
		"die,ok":        {0, 1, launcherrpcv1.ReasonGuestShutdown},
		"fail,die,spec": {64, 2, launcherrpcv1.ReasonBadSpec},
		"die":           {70, 5, launcherrpcv1.ReasonLauncherInternal},
		"orphan":        {0, 0, launcherrpcv1.ReasonGuestShutdown},
	} {
		t.Run(script, func(t *testing.T) {
			code, o, _ := run(t, script, nil)
			if code != want.code || o.ExitCode != want.code || o.Reason != want.reason || o.SupervisorRestarts != want.restarts {
				t.Errorf("exit code %d, message %+v; want %+v", code, o, want)
			}
		})
	}
}

// TestLeftovers ends what the supervisor has left running.
func TestLeftovers(t *testing.T) {
	_, _, dir := run(t, "leave", nil)
	b, err := os.ReadFile(filepath.Join(dir, "left"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); err == nil {
		t.Errorf("process %d still lives", pid)
	}
}

// TestSignal passes SIGTERM on, also to a supervisor that dies of it before it
// listens, and to its successor.
func TestSignal(t *testing.T) {
	code, o, _ := run(t, "wait,stopping", func(dir string, init *os.Process) {
		for range 500 {
			if _, err := os.Stat(filepath.Join(dir, "waiting")); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := init.Signal(unix.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	if code != 0 || o.SupervisorRestarts != 1 {
		t.Errorf("exit code %d, %+v", code, o)
	}
}

func TestLastWins(t *testing.T) {
	got := lastWins([]string{"HOME=/", "A=1", "HOME=/run/x", "A="})
	if d := cmp.Diff([]string{"HOME=/run/x", "A="}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestFindExit(t *testing.T) {
	dir := t.TempDir()
	if _, ok, err := FindExit(dir, 7); ok || err != nil {
		t.Errorf("without a file: %t, %v", ok, err)
	}
	for _, e := range []Exit{{PID: 7, Name: "a", Code: 1}, {PID: 8, Name: "b", Code: -1, Signal: 9}, {PID: 7, Name: "c"}} {
		if err := appendExit(dir, e); err != nil {
			t.Fatal(err)
		}
	}
	if e, ok, err := FindExit(dir, 7); !ok || err != nil || e.Name != "c" {
		t.Errorf("%+v, %t, %v; want the latest", e, ok, err)
	}
	if e, _, err := FindExit(dir, 8); err != nil || e.String() != "b (pid 8) was ended by signal 9" {
		t.Errorf("%s, %v", e, err)
	}
}
