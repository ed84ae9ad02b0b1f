package client

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
)

// maxRefusal bounds what is read of a refusal.
const maxRefusal = 64 << 10

// OpenIOMMUFD gets /dev/iommu from the agent that serves a socket (normally
// v1alpha1.IOMMUFDSocket): opened, and set up to count pinned memory against the
// calling process' own limit, which an unprivileged process cannot do. Each call
// gives a new file, with address spaces of its own. Errors are those of the other
// calls; where the kernel has no iommufd the refusal's reason is
// REASON_NOT_SUPPORTED.
func OpenIOMMUFD(ctx context.Context, socket string) (*os.File, error) {
	const what = "open /dev/iommu"
	ctx, cancel := bounded(ctx)
	defer cancel()
	fail := func(err error) (*os.File, error) {
		return nil, fmt.Errorf("%w: %s: %s: %w", ErrUnavailable, what, socket, err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var head [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(head[:], oob)
	if err != nil {
		return fail(err)
	}
	file, err := received(oob[:oobn])
	switch {
	case err != nil:
		return fail(err)
	case n == 1 && head[0] == agentrpc.IOMMUFDGiven && file != nil:
		return file, nil
	case file != nil:
		_ = file.Close()
	case n == 1 && head[0] == agentrpc.IOMMUFDRefused:
		var s spb.Status
		b, err := io.ReadAll(io.LimitReader(conn, maxRefusal))
		if err == nil {
			err = proto.Unmarshal(b, &s)
		}
		if err != nil {
			return fail(err)
		}
		return nil, classed(what, socket, status.ErrorProto(&s))
	}
	return fail(fmt.Errorf("an answer that is none: %d bytes, %q", n, head[:n]))
}

// received is the file in ancillary data, nil without one.
func received(oob []byte) (*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var out *os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // of another kind
		}
		for _, fd := range fds {
			if out != nil {
				_ = unix.Close(fd)
				continue
			}
			unix.CloseOnExec(fd)
			out = os.NewFile(uintptr(fd), "/dev/iommu")
		}
	}
	return out, nil
}
