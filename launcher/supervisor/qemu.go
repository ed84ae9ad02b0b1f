package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/launcher/failure"
	"github.com/kubevfio/kubevfio/launcher/pid1"
	"github.com/kubevfio/kubevfio/launcher/virt"
)

// Sizes of what QEMU's log may add to a message.
const (
	logTail  = 64 << 10
	logLines = 6
)

// findQEMU looks for the guest's QEMU among all processes of the container; 0
// when it is not found.
func (s *Supervisor) findQEMU(name string) int {
	proc, err := s.Host.ReadDir("proc")
	if err != nil {
		return 0
	}
	want := []byte("\x00guest=" + name + ",")
	for _, e := range proc {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		f, err := s.Host.Open("proc/" + e.Name() + "/cmdline")
		if err != nil {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(f, 4<<10))
		f.Close() //nolint:errcheck // it was only read
		if err == nil && bytes.Contains(b, want) {
			return pid
		}
	}
	return 0
}

// qemuDied says how QEMU ended under a running guest, as far as it is known.
func (s *Supervisor) qemuDied() error {
	s.mu.Lock()
	rec := s.record
	s.mu.Unlock()
	return s.died(rec)
}

// endedUnwatched says how a guest ended that nobody watched: PID 1 knows.
func (s *Supervisor) endedUnwatched(rec record) error {
	e, ok := s.exitOf(rec.QEMUPID)
	if ok && e.Signal == 0 && e.Code == 0 {
		return nil
	}
	return s.died(rec)
}

// exitOf asks PID 1 how a process ended; it may need a moment to reap it.
func (s *Supervisor) exitOf(pid int) (pid1.Exit, bool) {
	if pid == 0 {
		return pid1.Exit{}, false
	}
	for range 20 {
		e, ok, err := pid1.FindExit(s.RunDir, pid)
		if err != nil {
			s.Log.Warn("cannot read how QEMU ended", "err", err)
			return pid1.Exit{}, false
		}
		if ok {
			return e, true
		}
		time.Sleep(50 * time.Millisecond)
	}
	return pid1.Exit{}, false
}

func (s *Supervisor) died(rec record) error {
	how := "QEMU ended by itself"
	if e, ok := s.exitOf(rec.QEMUPID); ok {
		how = e.String()
	}
	if now := s.oomKills(); now > rec.OOMKills {
		return failure.Newf(launcherrpcv1.ReasonQEMUOutOfMemory,
			"the kernel killed a process of this container for memory (%d times so far): %s; raise the pod's memory limit", now, how)
	}
	return failure.New(launcherrpcv1.ReasonQEMUDied, s.withQEMULog(rec.Domain, errors.New(how+" while the guest ran")))
}

// oomKills is the container's count of processes that the kernel killed for
// memory; 0 when it is not told (cgroup v1).
func (s *Supervisor) oomKills() uint64 {
	f, err := s.Host.Open("sys/fs/cgroup/memory.events")
	if err != nil {
		return 0
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// withQEMULog adds QEMU's last words to an error.
func (s *Supervisor) withQEMULog(domain string, err error) error {
	words := lastWords(virt.QEMULog(s.libvirtRoot(), s.Libvirt, domain))
	var missing []string
	for _, w := range words {
		// libvirt often has them in its own message already.
		if !strings.Contains(err.Error(), w) {
			missing = append(missing, w)
		}
	}
	if len(missing) > 0 {
		err = fmt.Errorf("%w; QEMU said: %s", err, strings.Join(missing, " / "))
	}
	if strings.Contains(err.Error(), "swtpm") {
		// libvirt names a file that is gone with the container.
		if words := lastWords(virt.TPMLog(s.libvirtRoot(), s.Libvirt, domain)); len(words) > 0 {
			err = fmt.Errorf("%w; the TPM said: %s", err, strings.Join(words, " / "))
		}
	}
	return err
}

// lastWords gives the last lines of a QEMU log that are QEMU's own: not the
// environment and command line, which libvirt writes, nor libvirt's remarks.
func lastWords(path string) []string {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > logTail {
		if _, err := f.Seek(-logTail, io.SeekEnd); err != nil {
			return nil
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, logTail))
	if err != nil {
		return nil
	}
	var own []string
	command := false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		continued := strings.HasSuffix(line, "\\")
		switch {
		case line == "":
		case command || continued:
			command = continued
		case strings.Contains(line, ": starting up libvirt version"), strings.Contains(line, ": shutting down, reason="),
			strings.Contains(line, "terminating on signal 15"), strings.HasPrefix(line, "char device redirected"):
		default:
			own = append(own, printable(line))
		}
	}
	return own[max(0, len(own)-logLines):]
}

// printable drops control characters: QEMU repeats texts of the guest's disks
// and devices.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}
