// Package client calls the node agent from inside a pod.
//
// It is for launchers. Each call makes its own connection: the agent's folder
// is mounted into the pod, and a restarted agent has a new socket in it.
package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
)

// Classes of errors. A refusal carries the agent's message and, where the agent
// sent one, its machine-readable half (see [RefusalOf]).
var (
	// ErrUnavailable: no agent answers on the socket; asking again may help.
	ErrUnavailable = errors.New("node agent is not available")
	// ErrRefused: the agent said no; asking again will not help.
	ErrRefused = errors.New("node agent refused")
)

// DefaultTimeout bounds one call where the context has no deadline.
const DefaultTimeout = 10 * time.Second

// Client calls the agent that serves a socket. The zero value is not usable.
type Client struct {
	socket string
}

// New gives a client of the socket at this path (normally
// v1alpha1.AgentSocket). It opens nothing.
func New(socket string) *Client { return &Client{socket: socket} }

// call dials, runs f and closes. The kernel's peer credentials are those of
// this process: call it from the process that the request is about.
func (c *Client) call(ctx context.Context, what string, f func(context.Context, agentrpc.AgentClient) error) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+c.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("%w: %s: %s: %w", ErrUnavailable, what, c.socket, err)
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered after the answer
	if err := f(ctx, agentrpc.NewAgentClient(conn)); err != nil {
		return classed(what, c.socket, err)
	}
	return nil
}

// bounded gives a context with a deadline.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, DefaultTimeout)
}

// classed puts the error of a gRPC status into its class.
func classed(what, socket string, err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return fmt.Errorf("%w: %s: %s: %w", ErrUnavailable, what, socket, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrRefused, what, err)
}

// GetInfo asks who the agent is and whom it takes this process for.
func (c *Client) GetInfo(ctx context.Context) (*agentrpc.GetInfoResponse, error) {
	var out *agentrpc.GetInfoResponse
	err := c.call(ctx, "get info", func(ctx context.Context, a agentrpc.AgentClient) (err error) {
		out, err = a.GetInfo(ctx, &agentrpc.GetInfoRequest{})
		return err
	})
	return out, err
}

// RaiseMemoryLock raises this process' hard and soft limit of locked memory to
// at least bytes and returns the hard limit that holds now. viommuDevices is
// the number of devices behind a virtual IOMMU, 0 without one.
func (c *Client) RaiseMemoryLock(ctx context.Context, bytes uint64, viommuDevices uint32) (uint64, error) {
	var hard uint64
	err := c.call(ctx, "raise memory lock", func(ctx context.Context, a agentrpc.AgentClient) error {
		r, err := a.RaiseMemoryLock(ctx, &agentrpc.RaiseMemoryLockRequest{Bytes: bytes, ViommuDevices: viommuDevices})
		if err == nil {
			hard = r.GetHardLimit()
		}
		return err
	})
	return hard, err
}

// ConfigureVF sets those properties of a virtual function that are set in req.
func (c *Client) ConfigureVF(ctx context.Context, req *agentrpc.ConfigureVFRequest) (*agentrpc.ConfigureVFResponse, error) {
	var out *agentrpc.ConfigureVFResponse
	err := c.call(ctx, "configure VF "+req.GetAddress(), func(ctx context.Context, a agentrpc.AgentClient) (err error) {
		out, err = a.ConfigureVF(ctx, req)
		return err
	})
	return out, err
}

// RefusalOf gives the machine-readable half of a refusal, nil when there is none.
func RefusalOf(err error) *agentrpc.Refusal {
	s, ok := status.FromError(err)
	if !ok {
		return nil
	}
	for _, d := range s.Details() {
		if r, ok := d.(*agentrpc.Refusal); ok {
			return r
		}
	}
	return nil
}
