package preflight

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/launcher/failure"
)

// LockRaiser can raise this process' limit of locked memory; the node agent.
type LockRaiser interface {
	RaiseMemoryLock(ctx context.Context, bytes uint64, viommuDevices uint32) (hard uint64, err error)
}

// MemoryLock makes sure that this process' hard limit of locked memory is at
// least need bytes, which libvirt will set for QEMU: a child's limit can only
// be as high as its parent's. It asks the agent where it is not. A need of 0 is
// always met.
func MemoryLock(ctx context.Context, agent LockRaiser, need uint64, viommuDevices uint32) error {
	have, err := hardMemoryLock()
	if err != nil {
		return failure.New(launcherrpcv1.ReasonMemoryLock, err)
	}
	if have >= need {
		return nil
	}
	if _, err := agent.RaiseMemoryLock(ctx, need, viommuDevices); err != nil {
		return failure.Newf(launcherrpcv1.ReasonMemoryLock,
			"the guest needs %s of locked memory (VFIO pins all of its memory), this container may lock %s, and the node agent did not raise it: %w", mib(need), mib(have), err)
	}
	have, err = hardMemoryLock()
	if err != nil {
		return failure.New(launcherrpcv1.ReasonMemoryLock, err)
	}
	if have < need {
		return failure.Newf(launcherrpcv1.ReasonMemoryLock,
			"the guest needs %s of locked memory (VFIO pins all of its memory); the node agent answered, but this process still may lock only %s", mib(need), mib(have))
	}
	return nil
}

func hardMemoryLock() (uint64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); err != nil {
		return 0, fmt.Errorf("read the limit of locked memory: %w", err)
	}
	return r.Max, nil
}

func mib(bytes uint64) string {
	return fmt.Sprintf("%d MiB", bytes>>20)
}
