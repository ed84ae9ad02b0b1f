package agentsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
	"github.com/kubevfio/kubevfio/deviceplugin/peer"
)

// The socket for /dev/iommu answers each connection once and closes it: the byte
// client.IOMMUFDGiven with the file as ancillary data (unix(7), SCM_RIGHTS), or
// client.IOMMUFDRefused and a google.rpc.Status as gRPC would have sent it. A
// client may come again, after a restart of its container for example: each gets a
// file of its own.

const (
	// iommufdLimit bounds one answer.
	iommufdLimit = 5 * time.Second
	// iommufdClients may wait for theirs at a time.
	iommufdClients = 16
	// iommufdPause is the wait after a client that could not be accepted.
	iommufdPause = time.Second
)

func (s *Server) serveIOMMUFD(ctx context.Context, l *net.UnixListener) {
	slots := make(chan struct{}, iommufdClients)
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Too many open files, for example: that passes.
			s.cfg.Log.Error("cannot accept a client for /dev/iommu, trying again", "err", err)
			time.Sleep(iommufdPause)
			continue
		}
		slots <- struct{}{}
		go func() {
			defer func() { _ = c.Close(); <-slots }()
			start := time.Now()
			ctx, cancel := context.WithTimeout(ctx, iommufdLimit)
			defer cancel()
			_ = c.SetDeadline(start.Add(iommufdLimit)) // a socket that has none ends in the write
			err := s.giveIOMMUFD(ctx, c)
			s.cfg.Observe("/iommufd/Open", time.Since(start), err)
			if err != nil {
				s.cfg.Log.Info("gave no /dev/iommu to a launcher", "err", err)
			}
		}()
	}
}

// giveIOMMUFD answers one client; it returns the refusal that it has sent.
func (s *Server) giveIOMMUFD(ctx context.Context, c *net.UnixConn) error {
	p, err := peer.Identify(c, s.cfg.Proc)
	var file *os.File
	if err != nil {
		err = refuse(codes.PermissionDenied, agentrpc.Reason_REASON_UNKNOWN_PEER, "", "cannot tell which pod calls: %v", err)
	} else {
		defer p.Close()
		file, err = s.openFor(ctx, p)
	}
	if err != nil {
		b, merr := proto.Marshal(status.Convert(err).Proto())
		if merr == nil {
			_, merr = c.Write(append([]byte{agentrpc.IOMMUFDRefused}, b...))
		}
		return errors.Join(err, merr)
	}
	defer file.Close() // the client has its own
	_, _, err = c.WriteMsgUnix([]byte{agentrpc.IOMMUFDGiven}, unix.UnixRights(int(file.Fd())), nil)
	return err
}

// openFor opens /dev/iommu for a process whose pod holds a device.
func (s *Server) openFor(ctx context.Context, p *peer.Peer) (*os.File, error) {
	pod, err := s.podOf(ctx, p)
	if err != nil {
		return nil, err
	}
	who := pod.Namespace + "/" + pod.Name
	if len(pod.Units) == 0 {
		return nil, refuse(codes.PermissionDenied, agentrpc.Reason_REASON_NOT_OWNER, who, "pod %s holds no device of this agent's, so it has no use for /dev/iommu", who)
	}
	file, err := s.cfg.OpenIOMMUFD()
	switch {
	case errors.Is(err, ErrNotSupported):
		return nil, refuse(codes.Unimplemented, agentrpc.Reason_REASON_NOT_SUPPORTED, who, "/dev/iommu for pod %s: %v", who, err)
	case err != nil:
		return nil, refuse(codes.Internal, agentrpc.Reason_REASON_KERNEL, who, "/dev/iommu for pod %s: %v", who, err)
	}
	if err := p.Alive(); err != nil {
		return nil, errors.Join(refuse(codes.PermissionDenied, agentrpc.Reason_REASON_UNKNOWN_PEER, who, "%v", err), file.Close())
	}
	return file, nil
}

// Of linux/iommufd.h.
const (
	iommuOption          = 0x3b87 // _IO(';', 0x87)
	iommuOptionRlimit    = 0      // IOMMU_OPTION_RLIMIT_MODE
	iommuOptionSet       = 0      // IOMMU_OPTION_OP_SET
	iommuRlimitOfProcess = 1
)

// iommuOptionArg is struct iommu_option.
type iommuOptionArg struct {
	size, option uint32
	op, _        uint16
	object       uint32
	value        uint64
}

// OpenIOMMUFD opens a /dev/iommu and lets it count pinned memory as VFIO's groups
// do, per process and against that process' own limit, which RaiseMemoryLock
// bounds. The kernel's default counts per user, and all launchers are one; only a
// process with CAP_SYS_RESOURCE may change it (docs.kernel.org/userspace-api/iommufd).
func OpenIOMMUFD(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%w: the node's kernel has no %s (CONFIG_IOMMUFD)", ErrNotSupported, path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	arg := iommuOptionArg{option: iommuOptionRlimit, op: iommuOptionSet, value: iommuRlimitOfProcess}
	arg.size = uint32(unsafe.Sizeof(arg))
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), iommuOption, uintptr(unsafe.Pointer(&arg))); no != 0 {
		return nil, errors.Join(fmt.Errorf("%s: count memory per process: %w", path, no), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}
