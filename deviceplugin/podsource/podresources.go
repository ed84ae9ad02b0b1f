package podsource

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
)

// ErrPodResources is the class of errors about kubelet's pod-resources API.
var ErrPodResources = errors.New("kubelet's pod-resources API")

// PodResources asks kubelet which container holds what.
type PodResources struct {
	conn   *grpc.ClientConn
	client podresources.PodResourcesListerClient
}

// NewPodResources makes a client of the socket, normally
// /var/lib/kubelet/pod-resources/kubelet.sock. It connects when first used.
func NewPodResources(socket string) (*PodResources, error) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPodResources, err)
	}
	return &PodResources{conn: conn, client: podresources.NewPodResourcesListerClient(conn)}, nil
}

// Close ends the connection.
func (p *PodResources) Close() error { return p.conn.Close() }

// List gives kubelet's answer as it is.
func (p *PodResources) List(ctx context.Context) (*podresources.ListPodResourcesResponse, error) {
	r, err := p.client.List(ctx, &podresources.ListPodResourcesRequest{})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPodResources, err)
	}
	return r, nil
}

// Holders implements handoff.Holders.
func (p *PodResources) Holders(ctx context.Context) ([]handoff.Held, error) {
	r, err := p.List(ctx)
	if err != nil {
		return nil, err
	}
	return holders(r), nil
}

// holders joins the entries of one container and resource: kubelet makes one per
// NUMA node.
func holders(r *podresources.ListPodResourcesResponse) []handoff.Held {
	var out []handoff.Held
	for _, pod := range r.GetPodResources() {
		for _, c := range pod.GetContainers() {
			byResource := map[string][]string{}
			for _, d := range c.GetDevices() {
				byResource[d.GetResourceName()] = append(byResource[d.GetResourceName()], d.GetDeviceIds()...)
			}
			for resource, ids := range byResource {
				slices.Sort(ids)
				out = append(out, handoff.Held{Namespace: pod.GetNamespace(), Name: pod.GetName(), Container: c.GetName(),
					Resource: resource, IDs: slices.Compact(ids)})
			}
		}
	}
	return out
}
