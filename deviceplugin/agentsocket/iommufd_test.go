package agentsocket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubevfio/kubevfio/api/agentrpc/client"
	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
)

// TestIOMMUFD passes a file that stands for /dev/iommu, over a real socket. What
// the kernel makes of the file's setting is not tried: it needs CONFIG_IOMMUFD.
func TestIOMMUFD(t *testing.T) {
	holder := Pod{Namespace: "ns", Name: "vm", Units: []string{vf}}
	for name, tc := range map[string]struct {
		pods   pods
		cgroup string
		open   error
		reason agentrpc.Reason
		class  error // client.ErrRefused when nil
		says   string
	}{
		"holder":       {pods: pods{pod: holder}, cgroup: inPod},
		"no device":    {pods: pods{pod: Pod{Namespace: "ns", Name: "web"}}, cgroup: inPod, reason: agentrpc.Reason_REASON_NOT_OWNER, says: "ns/web holds no device"},
		"not in a pod": {pods: pods{pod: holder}, cgroup: "0::/user.slice\n", reason: agentrpc.Reason_REASON_UNKNOWN_PEER},
		"agent starts": {pods: pods{err: errors.New("just started")}, cgroup: inPod, reason: agentrpc.Reason_REASON_NOT_READY, class: client.ErrUnavailable, says: "just started"},
		"old kernel": {pods: pods{pod: holder}, cgroup: inPod, open: fmt.Errorf("%w: the node's kernel has no /dev/iommu", ErrNotSupported),
			reason: agentrpc.Reason_REASON_NOT_SUPPORTED, says: "has no /dev/iommu"},
		"kernel refuses": {pods: pods{pod: holder}, cgroup: inPod, open: unix.EPERM, reason: agentrpc.Reason_REASON_KERNEL, says: "operation not permitted"},
	} {
		t.Run(name, func(t *testing.T) {
			var opened atomic.Int32
			socket := serveWith(t, tc.pods, &nics{}, tc.cgroup, func() (*os.File, error) {
				if opened.Add(1); tc.open != nil {
					return nil, tc.open
				}
				f := filepath.Join(t.TempDir(), "iommu")
				return os.Create(f)
			})
			for i := range 2 { // a client may come again
				file, err := client.OpenIOMMUFD(t.Context(), filepath.Join(filepath.Dir(socket), "fd.sock"))
				if tc.reason != 0 {
					if !errors.Is(err, cmp.Or(tc.class, client.ErrRefused)) || reason(err) != tc.reason || !strings.Contains(err.Error(), tc.says) {
						t.Fatalf("%v, reason %v, want %v", err, reason(err), tc.reason)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, err := file.WriteString("it is open"); err != nil {
					t.Error(err)
				}
				flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0)
				if err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("flags %x, %v: a child would inherit it", flags, err)
				}
				if err := file.Close(); err != nil || int(opened.Load()) != i+1 {
					t.Errorf("opened %d times after %d calls, %v", opened.Load(), i+1, err)
				}
			}
		})
	}
}

func TestIOMMUFDNobodyThere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	dir := t.TempDir()
	if _, err := client.OpenIOMMUFD(ctx, filepath.Join(dir, "none")); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("no socket: %v", err)
	}
	// One who never answers, and those whose answers are none.
	for name, answer := range map[string]string{"mute": "", "file that is not there": "\x01", "no status": "\x00\xff\xff", "unknown": "x"} {
		l, err := net.Listen("unix", filepath.Join(dir, name[:3]))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if answer == "" {
				_, _ = io.Copy(io.Discard, c) // until the client leaves
			}
			_, _ = io.WriteString(c, answer)
			_ = c.Close()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if f, err := client.OpenIOMMUFD(ctx, l.Addr().String()); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
		cancel()
	}
}

// TestOpenIOMMUFD: a kernel without it is told from one that refuses.
func TestOpenIOMMUFD(t *testing.T) {
	if _, err := OpenIOMMUFD(filepath.Join(t.TempDir(), "iommu")); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "CONFIG_IOMMUFD") {
		t.Errorf("no file: %v", err)
	}
	// A file that knows no such setting.
	if _, err := OpenIOMMUFD("/dev/null"); errors.Is(err, ErrNotSupported) || !errors.Is(err, unix.ENOTTY) {
		t.Errorf("/dev/null: %v", err)
	}
}
