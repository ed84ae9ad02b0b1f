package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sort"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of the verbs on named processes.
var (
	ErrUnknown    = errors.New("no such process")
	ErrRunning    = errors.New("process is already running")
	ErrNotRunning = errors.New("process is not running")
)

// Spec describes one process.
type Spec struct {
	Name string
	Argv []string
	// Env is the whole environment; nil inherits.
	Env []string
	Dir string
	// Chroot, when set, is the root directory in which Argv is looked up.
	Chroot string
	// Output receives stdout and stderr; an *os.File is handed over as it is.
	Output io.Writer
	// RestartDelay above zero starts the process again that long after it ended by itself or was killed.
	RestartDelay time.Duration
	// OnExit, when set, is told about every end that was not asked for by [Supervisor.Stop].
	OnExit func(err error)
}

// Status is what is known about a process.
type Status struct {
	Name    string `json:"name"`
	PID     int    `json:"pid,omitempty"`
	Running bool   `json:"running"`
	// Starts counts the starts so far.
	Starts int `json:"starts"`
	// LastExit is how the last run ended, empty while none has.
	LastExit string `json:"lastExit,omitempty"`
}

type process struct {
	spec    Spec
	cmd     *exec.Cmd
	done    chan struct{} // closed when the present run has been waited for
	stopped bool          // no restart: Stop was called
	starts  int
	exit    string
	timer   *time.Timer
}

func (p *process) running() bool { return p.cmd != nil }

// Supervisor owns a set of processes.
type Supervisor struct {
	logf func(format string, args ...any)

	mu    sync.Mutex
	procs map[string]*process

	// fork is held while a child is started and entered in own, and by the reaper while it looks: a child must not be
	// reaped as an orphan before it is known.
	fork sync.Mutex
	own  map[int]bool
}

// New returns a supervisor without processes. logf is told of starts, ends and restarts.
func New(logf func(format string, args ...any)) *Supervisor {
	return &Supervisor{logf: logf, procs: map[string]*process{}, own: map[int]bool{}}
}

// Start starts a process and remembers its spec for restarts. A stopped process of the same name is replaced.
func (s *Supervisor) Start(spec Spec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.procs[spec.Name]
	if p != nil && p.running() {
		return fmt.Errorf("%s: %w", spec.Name, ErrRunning)
	}
	if p == nil {
		p = &process{}
		s.procs[spec.Name] = p
	}
	p.spec = spec
	return s.launch(p)
}

// StartAgain starts a known process that is not running.
func (s *Supervisor) StartAgain(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.procs[name]
	if p == nil {
		return fmt.Errorf("%s: %w", name, ErrUnknown)
	}
	if p.running() {
		return fmt.Errorf("%s: %w", name, ErrRunning)
	}
	return s.launch(p)
}

// launch starts p; s.mu is held.
func (s *Supervisor) launch(p *process) error {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	cmd := command(p.spec)
	if err := s.forkExec(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.spec.Name, err)
	}
	p.cmd, p.done, p.stopped = cmd, make(chan struct{}), false
	p.starts++
	s.logf("%s: started, pid %d", p.spec.Name, cmd.Process.Pid)
	go s.wait(p, cmd, p.done)
	return nil
}

func command(spec Spec) *exec.Cmd {
	cmd := exec.Command(spec.Argv[0], spec.Argv[1:]...)
	if spec.Chroot != "" {
		// LookPath looked in the wrong root; the path is absolute by contract.
		cmd.Path, cmd.Err = spec.Argv[0], nil
	}
	cmd.Env, cmd.Dir = spec.Env, spec.Dir
	cmd.Stdout, cmd.Stderr = spec.Output, spec.Output
	cmd.WaitDelay = time.Second // descendants that keep the pipe open must not keep us waiting
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: spec.Chroot, Setpgid: true}
	return cmd
}

func (s *Supervisor) forkExec(cmd *exec.Cmd) error {
	s.fork.Lock()
	defer s.fork.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	s.own[cmd.Process.Pid] = true
	return nil
}

func (s *Supervisor) waitFor(cmd *exec.Cmd) error {
	err := cmd.Wait()
	s.fork.Lock()
	delete(s.own, cmd.Process.Pid)
	s.fork.Unlock()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return err
}

func (s *Supervisor) wait(p *process, cmd *exec.Cmd, done chan struct{}) {
	err := s.waitFor(cmd)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.exit = "exit status 0"
	if err != nil {
		p.exit = err.Error()
	}
	p.cmd = nil
	close(done)
	s.logf("%s: ended: %s", p.spec.Name, p.exit)
	if p.stopped {
		return
	}
	if p.spec.OnExit != nil {
		go p.spec.OnExit(err)
	}
	if p.spec.RestartDelay > 0 {
		p.timer = time.AfterFunc(p.spec.RestartDelay, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if p.stopped || p.running() {
				return
			}
			if err := s.launch(p); err != nil {
				s.logf("%v", err)
			}
		})
	}
}

// Stop ends a process and keeps it down: SIGTERM, and SIGKILL when ctx ends or after grace. It returns when the process
// has ended; a process that is not running is no error.
func (s *Supervisor) Stop(ctx context.Context, name string, grace time.Duration) error {
	s.mu.Lock()
	p := s.procs[name]
	if p == nil {
		s.mu.Unlock()
		return fmt.Errorf("%s: %w", name, ErrUnknown)
	}
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if !p.running() {
		s.mu.Unlock()
		return nil
	}
	proc, done := p.cmd.Process, p.done
	s.mu.Unlock()

	if grace > 0 {
		if err := proc.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		select {
		case <-done:
			return nil
		case <-ctx.Done():
		case <-time.After(grace):
		}
	}
	if err := proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	<-done
	return nil
}

// Restart stops a process and starts it again.
func (s *Supervisor) Restart(ctx context.Context, name string, grace time.Duration) error {
	if err := s.Stop(ctx, name, grace); err != nil {
		return err
	}
	return s.StartAgain(name)
}

// Signal sends a signal; the restart policy applies to what comes of it.
func (s *Supervisor) Signal(name string, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.procs[name]
	switch {
	case p == nil:
		return fmt.Errorf("%s: %w", name, ErrUnknown)
	case !p.running():
		return fmt.Errorf("%s: %w", name, ErrNotRunning)
	}
	return p.cmd.Process.Signal(sig)
}

// Run starts cmd, waits for it and returns what [exec.Cmd.Run] would.
func (s *Supervisor) Run(cmd *exec.Cmd) error {
	if err := s.forkExec(cmd); err != nil {
		return err
	}
	return s.waitFor(cmd)
}

// List returns the state of all processes by name.
func (s *Supervisor) List() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Status
	for name, p := range s.procs {
		st := Status{Name: name, Running: p.running(), Starts: p.starts, LastExit: p.exit}
		if p.cmd != nil {
			st.PID = p.cmd.Process.Pid
		}
		out = append(out, st)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Reap collects orphans that were handed to this process, until ctx ends. Only for PID 1 or a child subreaper.
func (s *Supervisor) Reap(ctx context.Context) {
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, syscall.SIGCHLD)
	defer signal.Stop(sigs)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for s.reapOne() {
		}
		select {
		case <-ctx.Done():
			return
		case <-sigs:
		case <-tick.C:
		}
	}
}

// reapOne reports whether there may be more to reap.
func (s *Supervisor) reapOne() bool {
	s.fork.Lock()
	defer s.fork.Unlock()
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if errors.Is(err, syscall.EINTR) {
		return true
	}
	pid := siginfoPID(&info)
	if err != nil || pid == 0 {
		return false
	}
	if s.own[pid] {
		// Its own waiter is about to collect it; look again at the next tick or signal.
		return false
	}
	var ws syscall.WaitStatus
	_, err = syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
	return err == nil
}
