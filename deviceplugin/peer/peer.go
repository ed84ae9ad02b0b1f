package peer

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// soPeerPidfd is SO_PEERPIDFD of Linux 6.5.
const soPeerPidfd = 77

// Peer is an identified process. Close it when the connection ends.
type Peer struct {
	PID      int
	UID, GID uint32
	// PodUID and ContainerID say where the process runs.
	PodUID, ContainerID string

	proc  string
	start string   // start time in clock ticks, without a pidfd
	pidfd *os.File // nil on older kernels
}

// Identify asks the kernel who is at the other end of the connection and reads
// its cgroup below proc, normally /proc.
func Identify(conn *net.UnixConn, proc string) (*Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSocket, err)
	}
	var cred *unix.Ucred
	pidfd := -1
	var credErr, pidfdErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		pidfd, pidfdErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, soPeerPidfd)
	}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSocket, err)
	}
	p := &Peer{proc: proc}
	if pidfdErr == nil {
		p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	} else if errors.Is(pidfdErr, unix.ESRCH) || errors.Is(pidfdErr, unix.ENODATA) {
		return nil, fmt.Errorf("%w: %w", ErrGone, pidfdErr)
	}
	if credErr != nil {
		p.Close()
		return nil, fmt.Errorf("%w: %w", ErrSocket, credErr)
	}
	p.PID, p.UID, p.GID = int(cred.Pid), cred.Uid, cred.Gid
	if err := p.read(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Peer) read() error {
	if p.PID <= 0 {
		return fmt.Errorf("%w: process ID %d: the agent must run in the host's pid namespace", ErrSocket, p.PID)
	}
	dir := filepath.Join(p.proc, strconv.Itoa(p.PID))
	var err error
	if p.pidfd == nil {
		if p.start, err = startTime(dir); err != nil {
			return err
		}
	}
	cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if p.PodUID, p.ContainerID, err = ParseCgroup(string(cgroup)); err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	return p.Alive()
}

// Alive says, with nil, that the process ID still means the same process. Ask
// after each use of PID: only then was the use right.
func (p *Peer) Alive() error {
	if p.pidfd != nil {
		raw, err := p.pidfd.SyscallConn()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrGone, err)
		}
		var serr error
		if err := raw.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), 0, nil, 0) }); err != nil {
			return fmt.Errorf("%w: %w", ErrGone, err)
		}
		// Not being allowed to signal it means that it is there.
		if serr != nil && !errors.Is(serr, unix.EPERM) {
			return fmt.Errorf("%w: process %d: %w", ErrGone, p.PID, serr)
		}
		return nil
	}
	now, err := startTime(filepath.Join(p.proc, strconv.Itoa(p.PID)))
	if err != nil {
		return err
	}
	if now != p.start {
		return fmt.Errorf("%w: process ID %d was given to another", ErrGone, p.PID)
	}
	return nil
}

// Close gives the kernel's handle back.
func (p *Peer) Close() {
	if p.pidfd != nil {
		p.pidfd.Close()
	}
}

// startTime is field 22 of /proc/PID/stat. The second field is the program's
// name in parentheses and may hold anything.
func startTime(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrGone, err)
	}
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return "", fmt.Errorf("%w: %s/stat is malformed", ErrGone, dir)
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 {
		return "", fmt.Errorf("%w: %s/stat is malformed", ErrGone, dir)
	}
	return f[19], nil
}
