package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotUp says that this checkout has no live lab.
var ErrNotUp = errors.New("the lab is not up")

// ErrUp says that this checkout's lab is up already.
var ErrUp = errors.New("the lab is already up")

// stateDir is the folder of a checkout's lab: outside the checkout, one per checkout.
type stateDir string

func stateFor(checkout string) (stateDir, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(checkout)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(real))
	dir := stateDir(filepath.Join(cache, "kubevfio", "labs", hex.EncodeToString(sum[:6])))
	if n := len(dir.path("nodes", "node-8", "qmp.sock")); n > 100 {
		return "", fmt.Errorf("%w: the cache folder's path is too long for unix sockets (%d characters with ours): set XDG_CACHE_HOME to a shorter one", ErrConfig, n)
	}
	return dir, nil
}

func (d stateDir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

func (d stateDir) logs() string       { return d.path("logs") }
func (d stateDir) socket() string     { return d.path("control.sock") }
func (d stateDir) kubeconfig() string { return d.path("kubeconfig") }

// info is what a live lab says about itself in lab.json.
type info struct {
	// PID and StartTime (clock ticks after boot, field 22 of /proc/PID/stat) identify the daemon on the host.
	PID       int       `json:"pid"`
	StartTime string    `json:"startTime"`
	Since     time.Time `json:"since"`
	Config    Config    `json:"config"`
	Server    string    `json:"server"`
	Accel     string    `json:"accel"`
	Token     string    `json:"token"`
	Ready     bool      `json:"ready"`
	Phases    []Phase   `json:"phases"`
}

func (d stateDir) readInfo() (*info, error) {
	b, err := os.ReadFile(d.path("lab.json"))
	if err != nil {
		return nil, err
	}
	var i info
	if err := json.Unmarshal(b, &i); err != nil {
		return nil, fmt.Errorf("%s: %w", d.path("lab.json"), err)
	}
	return &i, nil
}

func (d stateDir) writeInfo(i *info) error {
	b, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	tmp := d.path("lab.json.tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, d.path("lab.json"))
}

// lock takes the lab's lock, which a live daemon holds; ErrUp says that somebody has it.
func (d stateDir) lock() (*os.File, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrUp
		}
		return nil, fmt.Errorf("lock of the lab: %w", err)
	}
	return f, nil
}

// clean removes everything but what the next lab can use again (the lock, the disk of binaries) and the logs, which a
// message about a failure may have named.
func (d stateDir) clean(alsoLogs bool) error {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "lock", strings.HasPrefix(name, "bin-"), name == "logs" && !alsoLogs:
		default:
			if err := os.RemoveAll(d.path(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// processStart returns the start time of a process and whether it is more than a zombie.
func processStart(procfs string, pid int) (start string, alive bool) {
	b, err := os.ReadFile(filepath.Join(procfs, strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", false
	}
	return parseStat(string(b))
}

func parseStat(stat string) (start string, alive bool) {
	// The command name may contain anything; fields are counted from its closing parenthesis.
	_, rest, ok := strings.Cut(stat[max(0, strings.LastIndexByte(stat, ')')):], " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", false
	}
	return fields[19], fields[0] != "Z" && fields[0] != "X"
}

// alive reports whether the daemon that wrote i still runs, by its pid and start time.
func (i *info) alive() bool {
	start, alive := processStart("/proc", i.PID)
	return alive && start == i.StartTime
}

// kill ends the daemon, and with it the lab, and waits for the end of the lab's last process. A daemon that is gone already
// is no error.
func (i *info) kill(ctx context.Context) error {
	fd, err := unix.PidfdOpen(i.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", i.PID, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if start, _ := processStart("/proc", i.PID); start != i.StartTime {
		return nil // the number is somebody else's by now
	}
	if err := unix.PidfdSendSignal(fd, syscall.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", i.PID, err)
	}
	// The state in /proc will not do: the daemon's first thread is a zombie while another one still waits for the processes of
	// its namespace. A pidfd becomes readable when all threads have ended.
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for process %d: %w", i.PID, err)
		case ctx.Err() != nil:
			return fmt.Errorf("wait for the end of process %d: %w", i.PID, context.Cause(ctx))
		}
	}
}
