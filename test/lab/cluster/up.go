package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kubevfio/kubevfio/test/lab/artifacts"
)

// initCalled tells that this program can become the daemon: a fact about the process, set once by Init.
var initCalled atomic.Bool

// startOrder is what Up leaves for the daemon in order.json.
type startOrder struct {
	Config  Config  `json:"config"`
	BinDisk string  `json:"binDisk"`
	Server  string  `json:"server"`
	Phases  []Phase `json:"phases"`
}

// Up builds what is missing, starts the lab and waits until all nodes are ready. When ctx ends first, or anything fails,
// everything is taken down again and the error names the folder of the logs. ErrUp (wrapped) says that this checkout's lab
// is up already: see [Attach].
func Up(ctx context.Context, cfg Config) (*Cluster, error) {
	if !initCalled.Load() {
		return nil, fmt.Errorf("%w: main or TestMain must call cluster.Init first", ErrConfig)
	}
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	dir, err := stateFor(cfg.Checkout)
	if err != nil {
		return nil, err
	}
	lock, err := dir.lock()
	if err != nil {
		return nil, fmt.Errorf("lab of %s: %w", cfg.Checkout, err)
	}
	defer lock.Close()
	// The lock is free, so the daemon of a lab before us is dead; its last processes may still be dying.
	if err := reclaim(ctx, dir, true); err != nil {
		return nil, err
	}
	var phases []Phase
	release := func() {}
	if cfg.Artifacts == nil {
		set, err := artifacts.Build(ctx, artifacts.Options{Checkout: cfg.Checkout, Progress: cfg.Progress})
		if err != nil {
			return nil, err
		}
		for _, p := range set.Phases {
			phases = append(phases, Phase{Name: p.Name, Seconds: p.Seconds})
		}
		cfg.Artifacts, release = set, set.Release
	}
	start := time.Now()
	bin, err := binDisk(ctx, dir, cfg.Artifacts)
	if err != nil {
		release()
		return nil, err
	}
	phases = append(phases, Phase{Name: "disk of binaries", Seconds: time.Since(start).Seconds()})
	c, err := startDaemon(ctx, dir, cfg, bin, phases, lock)
	if err != nil {
		release()
		return nil, fmt.Errorf("lab: %w\nlogs: %s", err, dir.logs())
	}
	c.release = release
	return c, nil
}

// startDaemon starts the daemon and follows its progress until the lab is ready or dead.
func startDaemon(ctx context.Context, dir stateDir, cfg Config, bin string, phases []Phase, lock *os.File) (*Cluster, error) {
	if err := os.MkdirAll(dir.logs(), 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	listener, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	order := startOrder{Config: cfg, BinDisk: bin, Server: "https://" + l.Addr().String(), Phases: phases}
	b, err := json.Marshal(order)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(dir.path("order.json"), b, 0o600); err != nil {
		return nil, err
	}
	progressR, progressW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer progressR.Close()
	defer progressW.Close()
	leaseR, leaseW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer leaseR.Close()
	log, err := os.OpenFile(dir.path("logs", "daemon.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		leaseW.Close()
		return nil, err
	}
	defer log.Close()

	// /proc/self/exe, unlike os.Executable's path, is there even when `go run` has removed its temporary file.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), daemonEnv+"="+string(dir))
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{lock, listener, progressW, leaseR} // the order of fdLock and its siblings
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
	}
	if err := cmd.Start(); err != nil {
		leaseW.Close()
		return nil, fmt.Errorf("start the lab's daemon in namespaces of its own: %w", err)
	}
	progressW.Close()
	c := &Cluster{dir: dir, lease: leaseW, ended: make(chan struct{})}
	go func() {
		// How it ended is in its log.
		_ = cmd.Wait()
		close(c.ended)
	}()
	// Without a lease of its own the daemon would outlive us; with it closed it ends.
	abandon := func() {
		leaseW.Close()
		_ = cmd.Process.Kill()
		<-c.ended
		_ = dir.clean(false)
	}
	if err := follow(ctx, progressR, cfg.Progress); err != nil {
		abandon()
		return nil, err
	}
	if c.info, err = dir.readInfo(); err != nil {
		abandon()
		return nil, err
	}
	if !cfg.Lease {
		if _, err := leaseW.Write([]byte{1}); err != nil {
			abandon()
			return nil, err
		}
		leaseW.Close()
		c.lease = nil
	}
	return c, nil
}

// follow reads the daemon's progress until it is ready.
func follow(ctx context.Context, r *os.File, say func(string, ...any)) error {
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var p progress
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return fmt.Errorf("the daemon's progress: %w", err)
		}
		switch {
		case p.Error != "":
			return errors.New(p.Error)
		case p.Line != "":
			say("lab: %s", p.Line)
		case p.Phase != nil:
			say("lab: %-22s %6.1f s", p.Phase.Name, p.Phase.Seconds)
		case p.Ready:
			return nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.New("the daemon has ended without a word; see daemon.log")
}

// reclaim waits for the end of a dead lab's last processes and removes its files. The lab's lock is held by the caller.
func reclaim(ctx context.Context, dir stateDir, alsoLogs bool) error {
	if i, err := dir.readInfo(); err == nil {
		ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("30 seconds are over"))
		defer cancel()
		if err := i.kill(ctx); err != nil {
			return err
		}
	}
	return dir.clean(alsoLogs)
}
