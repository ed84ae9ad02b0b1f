package agentsocket

import (
	"context"
	"errors"
	"net"
	"slices"

	"google.golang.org/grpc/codes"

	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
	"github.com/kubevfio/kubevfio/topology"
)

// ConfigureVF implements the API.
func (s *Server) ConfigureVF(ctx context.Context, r *agentrpc.ConfigureVFRequest) (*agentrpc.ConfigureVFResponse, error) {
	_, pod, err := s.pod(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkVF(r); err != nil {
		return nil, err
	}
	who := pod.Namespace + "/" + pod.Name
	vf, err := s.cfg.VFs.FindVF(r.GetAddress())
	if err != nil && !errors.Is(err, ErrNoVF) {
		return nil, refuse(codes.Unavailable, agentrpc.Reason_REASON_NOT_READY, r.GetAddress(), "%s: %v", r.GetAddress(), err)
	}
	// Who does not own it learns nothing about it.
	if err != nil || !slices.Contains(pod.Units, vf.Unit) {
		return nil, refuse(codes.PermissionDenied, agentrpc.Reason_REASON_NOT_OWNER, r.GetAddress(),
			"pod %s does not hold a virtual function %s", who, r.GetAddress())
	}
	if vf.PF == "" {
		return nil, refuse(codes.Unimplemented, agentrpc.Reason_REASON_NOT_SUPPORTED, r.GetAddress(),
			"the physical function of %s has no network device on the host", r.GetAddress())
	}
	if err := s.cfg.VFs.SetVF(ctx, vf, r); err != nil {
		if errors.Is(err, ErrNotSupported) {
			return nil, refuse(codes.Unimplemented, agentrpc.Reason_REASON_NOT_SUPPORTED, r.GetAddress(), "%s (VF %d of %s): %v", r.GetAddress(), vf.Index, vf.PF, err)
		}
		return nil, refuse(codes.Internal, agentrpc.Reason_REASON_KERNEL, r.GetAddress(), "%s (VF %d of %s): %v", r.GetAddress(), vf.Index, vf.PF, err)
	}
	return &agentrpc.ConfigureVFResponse{Pf: vf.PF, Index: uint32(vf.Index)}, nil
}

// checkVF refuses values that make no sense before anything is looked up.
func checkVF(r *agentrpc.ConfigureVFRequest) error {
	invalid := func(field, format string, args ...any) error {
		return refuse(codes.InvalidArgument, agentrpc.Reason_REASON_INVALID, field, field+": "+format, args...)
	}
	if _, err := topology.ParseAddress(r.GetAddress()); err != nil {
		return invalid("address", "%v", err)
	}
	if r.Mac != nil {
		hw, err := net.ParseMAC(r.GetMac())
		if err != nil || len(hw) != 6 {
			return invalid("mac", "%q is no Ethernet address", r.GetMac())
		}
		if hw[0]&1 != 0 {
			return invalid("mac", "%s is a group address", r.GetMac())
		}
		if slices.Equal(hw, make([]byte, 6)) {
			return invalid("mac", "must not be all zeros")
		}
	}
	if r.GetVlan() > 4094 {
		return invalid("vlan", "%d is above 4094", r.GetVlan())
	}
	if r.GetQos() > 7 {
		return invalid("qos", "%d is above 7", r.GetQos())
	}
	if r.GetQos() > 0 && r.GetVlan() == 0 {
		return invalid("qos", "needs a VLAN")
	}
	if _, ok := agentrpc.LinkState_name[int32(r.GetLinkState())]; !ok {
		return invalid("link_state", "%d is none of auto, enable, disable", r.GetLinkState())
	}
	return nil
}
