package supervisor

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	agentrpcv1 "github.com/kubevfio/kubevfio/api/agentrpc/v1"
	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/launcher/domain"
	"github.com/kubevfio/kubevfio/launcher/failure"
)

// vfAgent stands in for the node agent: it keeps what it was asked.
type vfAgent struct {
	Agent
	asked []*agentrpcv1.ConfigureVFRequest
	err   error
}

func (a *vfAgent) ConfigureVF(_ context.Context, req *agentrpcv1.ConfigureVFRequest) (*agentrpcv1.ConfigureVFResponse, error) {
	a.asked = append(a.asked, req)
	return &agentrpcv1.ConfigureVFResponse{}, a.err
}

func ptr[T any](v T) *T { return &v }

func TestConfigureVFs(t *testing.T) {
	p := &plan{
		spec: &v1alpha1.VirtualMachineInstanceSpec{Domain: v1alpha1.DomainSpec{Devices: v1alpha1.Devices{
			Interfaces: []v1alpha1.Interface{{Name: "default"}, {Name: "plain"}, {Name: "full"}},
		}}},
		vfs: []domain.VFSettings{
			{Interface: "plain", Address: "0000:21:10.0", MAC: "52:54:00:00:00:01"},
			{
				Interface: "full", Address: "0000:21:10.2", MAC: "02:00:00:00:00:02", VLAN: ptr(int32(7)), VLANQoS: ptr(int32(3)),
				Trust: ptr(true), SpoofCheck: ptr(false), LinkState: "enable",
			},
		},
	}
	agent := &vfAgent{}
	s := &Supervisor{Options: Options{Agent: agent}}
	if err := s.configureVFs(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	want := []*agentrpcv1.ConfigureVFRequest{
		// No MAC address in the spec: the derived one is set all the same.
		{Address: "0000:21:10.0", Mac: ptr("52:54:00:00:00:01")},
		{
			Address: "0000:21:10.2", Mac: ptr("02:00:00:00:00:02"), Vlan: ptr(uint32(7)), Qos: ptr(uint32(3)),
			Trust: ptr(true), SpoofCheck: ptr(false), LinkState: agentrpcv1.LinkState_LINK_STATE_ENABLE.Enum(),
		},
	}
	if d := cmp.Diff(want, agent.asked, protocmp.Transform()); d != "" {
		t.Errorf("asked of the agent (-want +got):\n%s", d)
	}

	agent.err = errors.New("the driver refuses")
	var f *failure.Error
	if err := s.configureVFs(t.Context(), p); !errors.As(err, &f) {
		t.Fatalf("want a failure, got %v", err)
	}
	if f.Reason != launcherrpcv1.ReasonDeviceNotViable || f.Field != "spec.domain.devices.interfaces[1]" || f.Address != "0000:21:10.0" {
		t.Errorf("failure says %q %q %q", f.Reason, f.Field, f.Address)
	}
}
