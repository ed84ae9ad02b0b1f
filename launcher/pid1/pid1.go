package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/launcher/failure"
)

// Limits of restarting a supervisor that dies.
const (
	maxRestarts   = 5
	restartWindow = time.Minute
	restartDelay  = 100 * time.Millisecond
	// leftoverGrace is how long processes that outlive the supervisor's outcome
	// may take to end on SIGTERM.
	leftoverGrace = 5 * time.Second
	// idleAfter is when a start is over for this process.
	idleAfter = 5 * time.Second
)

// Environment of a supervisor.
const (
	// EnvRestarts tells how often it was restarted.
	EnvRestarts = "KUBEVFIO_SUPERVISOR_RESTARTS"
	// EnvStopping is "true" when PID 1 was asked to stop before this supervisor
	// was started. A signal would kill it before it listens.
	EnvStopping = "KUBEVFIO_SUPERVISOR_STOPPING"
)

// Options of the init process.
type Options struct {
	// Command is the supervisor with its arguments; Env its environment.
	Command []string
	Env     []string
	// RunDir is the launcher's run folder.
	RunDir string
	// TerminationLog is where the termination message goes; empty means
	// nowhere. A file that cannot be written costs the message, not the exit code.
	TerminationLog string
	// Proc is normally "/proc".
	Proc string
	// Idle is called when there is nothing to do any more but wait.
	Idle func()
	// Log receives what this process does.
	Log *slog.Logger
}

// Run keeps the supervisor running until there is an outcome, ends what is left
// of its processes, and gives the exit code of the container.
func Run(o Options) (exitCode int, err error) {
	if err := harden(); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(o.RunDir, 0o700); err != nil {
		return 0, fmt.Errorf("make the run folder: %w", err)
	}
	// An outcome of an earlier container in the same emptyDir is not ours.
	for _, f := range []string{outcomeFile, exitsFile} {
		if err := os.Remove(filepath.Join(o.RunDir, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("clean the run folder: %w", err)
		}
	}
	p := &process{Options: o}
	outcome := p.loop()
	p.endLeftovers()
	outcome.SupervisorRestarts = p.restarts
	p.report(outcome)
	return outcome.ExitCode, nil
}

// harden makes this process the parent of orphans and forbids core dumps to it
// and all that come after it: QEMU's would hold the guest's memory.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a child subreaper: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

type process struct {
	Options
	supervisor *os.Process
	restarts   int
	recent     []time.Time // of restarts
	stopping   bool        // asked to stop
}

// loop runs supervisors until one leaves an outcome or too many die.
func (p *process) loop() launcherrpcv1.Outcome {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGCHLD)
	defer signal.Stop(signals)

	if err := p.start(); err != nil {
		return failure.Outcome(err)
	}
	var again <-chan time.Time
	idle := time.After(idleAfter)
	for {
		select {
		case <-idle:
			p.Idle()
		case s := <-signals:
			if s == unix.SIGCHLD {
				status, died := p.reap()
				if !died {
					continue
				}
				if o, done := p.ended(status); done {
					return o
				}
				again = time.After(restartDelay)
				continue
			}
			p.stop(s)
		case <-again:
			again = nil
			if err := p.start(); err != nil {
				return failure.Outcome(err)
			}
		}
	}
}

// stop passes the wish to end on. A supervisor that is not there yet, or that
// dies of the signal because it does not listen yet, gets it by EnvStopping.
func (p *process) stop(s os.Signal) {
	p.stopping = true
	if p.supervisor == nil {
		return
	}
	p.Log.Info("asking the supervisor to stop the guest", "signal", s.String())
	if err := p.supervisor.Signal(unix.SIGTERM); err != nil {
		p.Log.Warn("cannot signal the supervisor", "err", err)
	}
}

// start starts a supervisor. stdin goes to it, for the console.
func (p *process) start() error {
	env := lastWins(append(slices.Clone(p.Env),
		EnvRestarts+"="+strconv.Itoa(p.restarts), EnvStopping+"="+strconv.FormatBool(p.stopping)))
	proc, err := os.StartProcess(p.Command[0], p.Command, &os.ProcAttr{
		Env:   env,
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	p.supervisor = proc
	return nil
}

// lastWins drops all but the last value of each variable. A process that is
// given two sees the first, in C as in Go.
func lastWins(environ []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, kv := range slices.Backward(environ) {
		if key, _, _ := strings.Cut(kv, "="); !seen[key] {
			seen[key] = true
			out = append(out, kv)
		}
	}
	slices.Reverse(out)
	return out
}

// reap collects all children that have ended. died is true, with its status,
// when the supervisor was among them.
func (p *process) reap() (status unix.WaitStatus, died bool) {
	note := func(pid int, name string, ws unix.WaitStatus) {
		if p.supervisor != nil && pid == p.supervisor.Pid {
			if err := p.supervisor.Release(); err != nil {
				p.Log.Warn("cannot release the supervisor's handle", "err", err)
			}
			status, died, p.supervisor = ws, true, nil
			return
		}
		e := Exit{PID: pid, Name: name, Code: ws.ExitStatus(), Time: time.Now().UTC()}
		if ws.Signaled() {
			e.Code, e.Signal = -1, int(ws.Signal())
		}
		if err := appendExit(p.RunDir, e); err != nil {
			p.Log.Warn("cannot note how a process ended", "exit", e.String(), "err", err)
		}
	}
	var ws unix.WaitStatus
	// First by name: a process has none any more once it is reaped.
	for _, pid := range p.children() {
		name := p.comm(pid)
		if got, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil); err == nil && got == pid {
			note(pid, name, ws)
		}
	}
	// Then whatever the list did not have (a kernel without CONFIG_PROC_CHILDREN).
	for {
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return status, died
		}
		note(pid, "", ws)
	}
}

func (p *process) comm(pid int) string {
	b, err := os.ReadFile(filepath.Join(p.Proc, strconv.Itoa(pid), "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// ended says what follows from the supervisor's end: an outcome, or a restart.
func (p *process) ended(ws unix.WaitStatus) (launcherrpcv1.Outcome, bool) {
	if o, ok := readOutcome(p.RunDir); ok {
		return o, true
	}
	how := fmt.Sprintf("exit code %d", ws.ExitStatus())
	if ws.Signaled() {
		how = "signal " + ws.Signal().String()
	}
	now := time.Now()
	p.recent = append(p.recent, now)
	for len(p.recent) > 0 && now.Sub(p.recent[0]) > restartWindow {
		p.recent = p.recent[1:]
	}
	if len(p.recent) > maxRestarts {
		return failure.Outcome(failure.Newf(launcherrpcv1.ReasonLauncherInternal,
			"the supervisor died %d times within %s, last by %s; its messages are in the container's log", len(p.recent), restartWindow, how)), true
	}
	p.restarts++
	p.Log.Error("the supervisor died; the guest runs on and a new supervisor adopts it", "how", how, "restart", p.restarts)
	return launcherrpcv1.Outcome{}, false
}

// endLeftovers ends QEMU, passt and whatever else still runs. In a PID
// namespace of its own the kernel would do so when we exit; in a shared one it
// would not, and QEMU gets the chance to close its images.
func (p *process) endLeftovers() {
	deadline := time.Now().Add(leftoverGrace)
	told := map[int]bool{}
	for {
		p.reap()
		children := p.children()
		if len(children) == 0 {
			return
		}
		sig := unix.SIGTERM
		if time.Now().After(deadline) {
			sig = unix.SIGKILL
		}
		for _, pid := range children {
			if told[pid] && sig == unix.SIGTERM {
				continue
			}
			told[pid] = true
			if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				p.Log.Warn("cannot end a leftover process", "pid", pid, "err", err)
			}
		}
		if time.Now().After(deadline.Add(leftoverGrace)) {
			p.Log.Error("processes do not end even on SIGKILL; the kernel holds them", "pids", children)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// children lists this process' children.
func (p *process) children() []int {
	tasks, err := os.ReadDir(filepath.Join(p.Proc, "self", "task"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, t := range tasks {
		b, err := os.ReadFile(filepath.Join(p.Proc, "self", "task", t.Name(), "children"))
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// report writes the termination message.
func (p *process) report(o launcherrpcv1.Outcome) {
	p.Log.Info("ended", "exitCode", o.ExitCode, "reason", o.Reason, "message", o.Message)
	if p.TerminationLog == "" {
		return
	}
	b, err := failure.TerminationMessage(o, launcherrpcv1.TerminationLogLimit)
	if err == nil {
		err = os.WriteFile(p.TerminationLog, b, 0o644)
	}
	if err != nil {
		p.Log.Warn("cannot write the termination message", "path", p.TerminationLog, "err", err)
	}
}
