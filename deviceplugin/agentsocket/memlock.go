package agentsocket

import (
	"context"
	"errors"
	"math"
	"math/bits"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
)

// lockSpare is added for the guest's own devices, firmware and QEMU: libvirt's
// rule adds as much.
const lockSpare = 1 << 30

// LockLimit is the most that may be locked by a container whose memory and
// hugepages limits sum up to base bytes, with so many devices behind a virtual
// IOMMU (each of them pins the guest's memory for itself).
func LockLimit(base uint64, viommuDevices int) uint64 {
	hi, lo := bits.Mul64(base, uint64(max(1, viommuDevices)))
	if hi != 0 || lo > math.MaxUint64-lockSpare {
		return math.MaxUint64
	}
	return lo + lockSpare
}

// RaiseMemoryLock implements the API.
func (s *Server) RaiseMemoryLock(ctx context.Context, r *agentrpc.RaiseMemoryLockRequest) (*agentrpc.RaiseMemoryLockResponse, error) {
	p, pod, err := s.pod(ctx)
	if err != nil {
		return nil, err
	}
	who := pod.Namespace + "/" + pod.Name
	if len(pod.Units) == 0 {
		return nil, refuse(codes.PermissionDenied, agentrpc.Reason_REASON_NOT_OWNER, who,
			"pod %s holds no device of this agent's, so nothing needs locked memory", who)
	}
	devices := int(r.GetViommuDevices())
	if devices > len(pod.Units) {
		return nil, refuse(codes.InvalidArgument, agentrpc.Reason_REASON_INVALID, "viommu_devices",
			"viommu_devices is %d but pod %s holds %d devices", devices, who, len(pod.Units))
	}
	if pod.LockBase == 0 {
		return nil, refuse(codes.FailedPrecondition, agentrpc.Reason_REASON_OVER_LIMIT, who,
			"the container has no memory limit, so no bound for locked memory follows: set limits.memory (and hugepages)")
	}
	if most := LockLimit(pod.LockBase, devices); r.GetBytes() > most {
		return nil, refuse(codes.ResourceExhausted, agentrpc.Reason_REASON_OVER_LIMIT, who,
			"%d bytes are more than the %d that follow from the container's limits (%d bytes, %d devices behind a virtual IOMMU): raise limits.memory",
			r.GetBytes(), most, pod.LockBase, devices)
	}
	hard, err := raise(p.PID, r.GetBytes())
	if err == nil {
		err = p.Alive()
	}
	if err != nil {
		return nil, refuse(codes.Internal, agentrpc.Reason_REASON_KERNEL, who, "set the memory-lock limit of process %d: %v", p.PID, err)
	}
	return &agentrpc.RaiseMemoryLockResponse{HardLimit: hard}, nil
}

// raise lifts both limits to at least bytes and returns the hard one.
func raise(pid int, bytes uint64) (uint64, error) {
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_MEMLOCK, nil, &old); err != nil {
		return 0, err
	}
	want := unix.Rlimit{Cur: max(old.Cur, bytes), Max: max(old.Max, bytes)}
	if want == old {
		return old.Max, nil
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_MEMLOCK, &want, nil); err != nil {
		if errors.Is(err, unix.EPERM) {
			err = errors.Join(err, errors.New("the agent needs CAP_SYS_RESOURCE in the first user namespace"))
		}
		return 0, err
	}
	return want.Max, nil
}
