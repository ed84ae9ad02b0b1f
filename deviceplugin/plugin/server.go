package plugin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// server is one registration: a socket of its own, served until it ends.
type server struct {
	pluginapi.UnimplementedDevicePluginServer

	p    *Plugin
	name string // of the socket in the folder
	path string
	grpc *grpc.Server

	watchedOnce, endedOnce sync.Once
	watched                chan struct{} // closed when kubelet opens the stream
	ended                  chan struct{} // closed when a stream has ended
	quit                   chan struct{} // closed to end the streams
	running                sync.WaitGroup
	rpcs                   atomic.Int64
}

// socketName is short (a unix socket's path has at most 107 bytes and the
// folder takes 32), says the resource in a hash and never comes twice.
func socketName(resource string) (string, error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(resource))
	var b [6]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("name a socket: %w", err)
	}
	return "kvfio-" + hex.EncodeToString(h.Sum(nil)) + "-" + hex.EncodeToString(b[:]) + ".sock", nil
}

// listen makes the socket and serves on it.
func (p *Plugin) listen() (*server, error) {
	name, err := socketName(p.cfg.Resource)
	if err != nil {
		return nil, err
	}
	s := &server{
		p: p, name: name, path: filepath.Join(p.cfg.Dir, name),
		watched: make(chan struct{}), ended: make(chan struct{}), quit: make(chan struct{}),
	}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		return nil, fmt.Errorf("listen for kubelet: %w", err)
	}
	s.grpc = grpc.NewServer(grpc.ForceServerCodecV2(newCodec()), grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window), grpc.ReadBufferSize(window/8))
	pluginapi.RegisterDevicePluginServer(s.grpc, s)
	s.running.Go(func() {
		if err := s.grpc.Serve(l); err != nil {
			p.cfg.Log.Warn("device plugin server failed", "socket", s.name, "err", err)
		}
		s.endedOnce.Do(func() { close(s.ended) })
	})
	return s, nil
}

// window is how many bytes kubelet may send before it is told to go on. A question
// about thousands of devices is larger than the protocol's default of 64 KiB.
const window = 1 << 20

// stop ends the streams, lets calls that run finish for up to RPCLimit, then
// closes and removes the socket.
func (s *server) stop() {
	close(s.quit)
	for deadline := time.Now().Add(RPCLimit); s.rpcs.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	s.grpc.Stop()
	s.running.Wait()
	if err := os.Remove(s.path); err != nil && !os.IsNotExist(err) {
		s.p.cfg.Log.Warn("remove device plugin socket", "err", err)
	}
}

func (s *server) register(ctx context.Context, kubelet string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRegister, kubelet, err)
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered after the answer
	// A kubelet that has just started deletes all sockets of the folder, then asks
	// for ten seconds after ours: a socket that is gone ends the attempt.
	gone := make(chan struct{})
	defer func() { cancel(); <-gone }()
	go func() {
		defer close(gone)
		for {
			if _, err := identify(s.path); err != nil {
				cancel()
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	_, err = pluginapi.NewRegistrationClient(conn).Register(ctx, &pluginapi.RegisterRequest{
		Version:      pluginapi.Version,
		Endpoint:     s.name,
		ResourceName: s.p.cfg.Resource,
		Options:      s.options(),
	})
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRegister, kubelet, err)
	}
	return nil
}

func (s *server) options() *pluginapi.DevicePluginOptions {
	return &pluginapi.DevicePluginOptions{
		GetPreferredAllocationAvailable: s.p.cfg.Steer,
		PreStartRequired:                s.p.cfg.PreStart,
	}
}

// GetDevicePluginOptions implements the device plugin API: kubelet believes this
// answer, not the options in Register.
func (s *server) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return s.options(), nil
}

// ListAndWatch implements the device plugin API.
func (s *server) ListAndWatch(_ *pluginapi.Empty, stream grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	s.watchedOnce.Do(func() { close(s.watched) })
	s.p.streams.Add(1)
	defer func() {
		s.p.streams.Add(-1)
		s.endedOnce.Do(func() { close(s.ended) })
	}()
	var sent []Device
	first := true
	var last time.Time
	for {
		devices, _, changed := s.p.list()
		if first || !slices.EqualFunc(sent, devices, Device.equal) {
			if err := stream.Send(&pluginapi.ListAndWatchResponse{Devices: toAPI(devices)}); err != nil {
				return status.Errorf(codes.Unavailable, "send device list: %v", err)
			}
			sent, first, last = devices, false, time.Now()
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		case <-s.quit:
			return nil
		}
		// More changes follow closely as a rule: a card brings all its VFs.
		wait := max(s.p.cfg.Batch/10, s.p.cfg.Batch-time.Since(last))
		select {
		case <-time.After(wait):
		case <-stream.Context().Done():
			return nil
		case <-s.quit:
			return nil
		}
	}
}

func toAPI(devices []Device) []*pluginapi.Device {
	out := make([]*pluginapi.Device, len(devices))
	for i, d := range devices {
		a := &pluginapi.Device{ID: d.ID, Health: pluginapi.Unhealthy}
		if d.Healthy {
			a.Health = pluginapi.Healthy
		}
		if d.NUMA != nil {
			a.Topology = &pluginapi.TopologyInfo{Nodes: []*pluginapi.NUMANode{{ID: int64(*d.NUMA)}}}
		}
		out[i] = a
	}
	return out
}

// begin counts a call and bounds it.
func (s *server) begin(ctx context.Context, name string, limit time.Duration) (context.Context, func(error)) {
	start := time.Now()
	s.rpcs.Add(1)
	ctx, cancel := context.WithTimeout(ctx, limit)
	return ctx, func(err error) {
		cancel()
		s.rpcs.Add(-1)
		s.p.cfg.Observer.RPC(s.p.cfg.Resource, name, time.Since(start), err)
	}
}

// GetPreferredAllocation implements the device plugin API.
func (s *server) GetPreferredAllocation(ctx context.Context, r *pluginapi.PreferredAllocationRequest) (resp *pluginapi.PreferredAllocationResponse, err error) {
	ctx, end := s.begin(ctx, "GetPreferredAllocation", RPCLimit)
	defer func() { end(err) }()
	resp = &pluginapi.PreferredAllocationResponse{}
	for _, c := range r.GetContainerRequests() {
		ids, err := s.p.handler.Preferred(ctx, c.GetAvailableDeviceIDs(), c.GetMustIncludeDeviceIDs(), int(c.GetAllocationSize()))
		if err != nil {
			return nil, refusal(err)
		}
		resp.ContainerResponses = append(resp.ContainerResponses, &pluginapi.ContainerPreferredAllocationResponse{DeviceIDs: ids})
	}
	return resp, nil
}

// Allocate implements the device plugin API.
func (s *server) Allocate(ctx context.Context, r *pluginapi.AllocateRequest) (resp *pluginapi.AllocateResponse, err error) {
	ctx, end := s.begin(ctx, "Allocate", RPCLimit)
	defer func() { end(err); s.p.quiet.soon() }()
	resp = &pluginapi.AllocateResponse{}
	for _, c := range r.GetContainerRequests() {
		out, err := s.p.handler.Allocate(ctx, c.GetDevicesIds())
		if err != nil {
			return nil, refusal(err)
		}
		resp.ContainerResponses = append(resp.ContainerResponses, out)
	}
	return resp, nil
}

// PreStartContainer implements the device plugin API.
func (s *server) PreStartContainer(ctx context.Context, r *pluginapi.PreStartContainerRequest) (resp *pluginapi.PreStartContainerResponse, err error) {
	ctx, end := s.begin(ctx, "PreStartContainer", PreStartLimit)
	defer func() { end(err) }()
	if err := s.p.handler.PreStart(ctx, r.GetDevicesIds()); err != nil {
		return nil, refusal(err)
	}
	return &pluginapi.PreStartContainerResponse{}, nil
}

// refusal keeps the words of an error: kubelet shows them in the pod's status.
func refusal(err error) error {
	return status.Error(codes.FailedPrecondition, err.Error())
}
