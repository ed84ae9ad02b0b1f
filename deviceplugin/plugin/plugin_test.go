package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// kubelet is the registration side of kubelet: what the plugin sees of one. The
// real one meets the plugin in test/integration/kubeletdiff and in the lab.
type kubelet struct {
	pluginapi.UnimplementedRegistrationServer
	t    *testing.T
	dir  string
	grpc *grpc.Server

	mu       sync.Mutex
	refuse   error
	deaf     bool // registers plugins and never opens a stream
	requests []*pluginapi.RegisterRequest
	lists    [][]*pluginapi.Device
	client   pluginapi.DevicePluginClient
	cut      context.CancelFunc
}

func (k *kubelet) Register(_ context.Context, r *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.requests = append(k.requests, r)
	if k.refuse != nil {
		return nil, k.refuse
	}
	if k.deaf {
		return &pluginapi.Empty{}, nil
	}
	conn, err := grpc.NewClient("unix:"+filepath.Join(k.dir, r.Endpoint), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	k.client, k.cut = pluginapi.NewDevicePluginClient(conn), cancel
	client := k.client
	go func() {
		defer conn.Close()
		s, err := client.ListAndWatch(ctx, &pluginapi.Empty{})
		if err != nil {
			return
		}
		for {
			l, err := s.Recv()
			if err != nil {
				return
			}
			k.mu.Lock()
			k.lists = append(k.lists, l.Devices)
			k.mu.Unlock()
		}
	}()
	return &pluginapi.Empty{}, nil
}

// start makes kubelet's socket, as each of its starts does.
func (k *kubelet) start() {
	k.t.Helper()
	path := filepath.Join(k.dir, "kubelet.sock")
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		k.t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		k.t.Fatal(err)
	}
	k.grpc = grpc.NewServer()
	pluginapi.RegisterRegistrationServer(k.grpc, k)
	go func() { _ = k.grpc.Serve(l) }()
	k.t.Cleanup(k.grpc.Stop)
}

func (k *kubelet) wait(what string, done func() bool) {
	k.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		k.mu.Lock()
		ok := done()
		k.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			k.t.Fatalf("not seen: %s", what)
		}
	}
}

// handler answers with what it is told.
type handler struct {
	mu   sync.Mutex
	hold chan struct{}
	err  error
}

func (h *handler) answer(ctx context.Context) error {
	h.mu.Lock()
	hold, err := h.hold, h.err
	h.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (h *handler) Preferred(ctx context.Context, available, must []string, size int) ([]string, error) {
	return append(slices.Clone(must), available[:size-len(must)]...), h.answer(ctx)
}

func (h *handler) Allocate(ctx context.Context, ids []string) (*pluginapi.ContainerAllocateResponse, error) {
	return &pluginapi.ContainerAllocateResponse{Envs: map[string]string{"IDS": strings.Join(ids, ",")}}, h.answer(ctx)
}

func (h *handler) PreStart(ctx context.Context, _ []string) error { return h.answer(ctx) }

// rig is a plugin that runs, in a folder with a kubelet.
func rig(t *testing.T, change func(*Config, *kubelet)) (*Plugin, *kubelet, *handler) {
	t.Helper()
	// A unix socket's path is short, and that of t.TempDir is not.
	dir, err := os.MkdirTemp("", "dp") //nolint:usetesting // as above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	k := &kubelet{t: t, dir: dir}
	w := NewWatcher(dir, 100*time.Millisecond, nil)
	cfg := Config{
		Resource: "example.com/gpu", Dir: dir, Watcher: w, Steer: true, PreStart: true,
		Batch: 20 * time.Millisecond, Settle: 20 * time.Millisecond, StreamWait: time.Second,
	}
	if change != nil {
		change(&cfg, k)
	}
	h := &handler{}
	p := New(cfg, h)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	running.Go(func() { _ = p.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return p, k, h
}

func devices(n int) []Device {
	var list []Device
	for i := range n {
		list = append(list, Device{ID: fmt.Sprintf("0000:%02x:00.0", i+1), Healthy: true, NUMA: new(i % 2)})
	}
	return list
}

// A plugin registers when it knows its devices, tells every change once, and an
// unknown NUMA node as none.
func TestRegistersAndTells(t *testing.T) {
	p, k, _ := rig(t, nil)
	k.start()
	time.Sleep(50 * time.Millisecond)
	k.mu.Lock()
	if len(k.requests) != 0 {
		t.Error("it registered before it knew its devices")
	}
	k.mu.Unlock()
	list := devices(3)
	list[2].NUMA, list[2].Healthy = nil, false
	p.SetDevices(list)
	k.wait("the first list", func() bool { return len(k.lists) == 1 })
	k.mu.Lock()
	r, first := k.requests[0], k.lists[0]
	k.mu.Unlock()
	if r.Version != "v1beta1" || r.ResourceName != "example.com/gpu" || !r.Options.GetPreferredAllocationAvailable || !r.Options.PreStartRequired {
		t.Errorf("registration %v", r)
	}
	if len(first) != 3 || first[0].Topology.Nodes[0].ID != 0 || first[1].Topology.Nodes[0].ID != 1 || first[2].Topology != nil ||
		first[1].Health != pluginapi.Healthy || first[2].Health != pluginapi.Unhealthy {
		t.Errorf("list %v", first)
	}
	// The same in another order is no news.
	same := slices.Clone(list)
	slices.Reverse(same)
	p.SetDevices(same)
	time.Sleep(100 * time.Millisecond)
	list[2].Healthy = true
	p.SetDevices(list)
	k.wait("the recovery", func() bool { return len(k.lists) == 2 })
	if !p.Serving() || p.Registrations() != 1 {
		t.Errorf("serving %t, %d registrations", p.Serving(), p.Registrations())
	}
}

// A burst of changes becomes few messages, the last of which is right.
func TestBursts(t *testing.T) {
	p, k, _ := rig(t, func(c *Config, _ *kubelet) { c.Batch = 200 * time.Millisecond })
	k.start()
	p.SetDevices(devices(1))
	k.wait("the first list", func() bool { return len(k.lists) == 1 })
	for n := 2; n <= 100; n++ {
		p.SetDevices(devices(n))
	}
	k.wait("all devices", func() bool { return len(k.lists[len(k.lists)-1]) == 100 })
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.lists) > 4 {
		t.Errorf("%d messages for one burst", len(k.lists))
	}
}

// Kubelet comes up again with a new socket, or loses the stream, or takes the
// plugin's socket away: each time it is registered anew, under another name.
func TestComesBack(t *testing.T) {
	p, k, _ := rig(t, nil)
	p.SetDevices(devices(2))
	time.Sleep(30 * time.Millisecond) // no kubelet yet
	for i, event := range []func(){
		k.start,
		func() { k.grpc.Stop(); k.start() },
		func() { k.mu.Lock(); defer k.mu.Unlock(); k.cut() },
		func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			if err := os.Remove(filepath.Join(k.dir, k.requests[len(k.requests)-1].Endpoint)); err != nil {
				t.Error(err)
			}
		},
	} {
		event()
		k.wait(fmt.Sprintf("list after event %d", i), func() bool { return len(k.lists) == i+1 })
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	names := map[string]bool{}
	for _, r := range k.requests {
		names[r.Endpoint] = true
	}
	if len(names) != len(k.requests) {
		t.Errorf("a socket's name came twice in %d registrations", len(k.requests))
	}
	left, err := filepath.Glob(filepath.Join(k.dir, "kvfio-*.sock"))
	if err != nil || len(left) != 1 {
		t.Errorf("sockets %v, %v: want only the present one", left, err)
	}
}

// A kubelet that refuses, or registers and does not listen, is tried again.
func TestTriesAgain(t *testing.T) {
	p, k, _ := rig(t, func(c *Config, k *kubelet) {
		c.StreamWait = 100 * time.Millisecond
		k.refuse = errors.New("not yet")
	})
	k.start()
	p.SetDevices(devices(1))
	k.wait("a refusal", func() bool { return len(k.requests) >= 1 })
	k.mu.Lock()
	k.refuse, k.deaf = nil, true
	n := len(k.requests)
	k.mu.Unlock()
	k.wait("a registration without a stream", func() bool { return len(k.requests) > n })
	k.mu.Lock()
	k.deaf = false
	k.mu.Unlock()
	k.wait("a list", func() bool { return len(k.lists) == 1 })
}

// Calls are answered by the handler; its refusals reach kubelet in words, and one
// that takes too long is ended in time.
func TestCalls(t *testing.T) {
	p, k, h := rig(t, nil)
	k.start()
	p.SetDevices(devices(4))
	k.wait("the first list", func() bool { return len(k.lists) == 1 })
	k.mu.Lock()
	c := k.client
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	if o, err := c.GetDevicePluginOptions(ctx, &pluginapi.Empty{}); err != nil || !o.PreStartRequired {
		t.Errorf("options %v, %v", o, err)
	}
	a, err := c.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: []string{"a", "b"}}, {DevicesIds: []string{"c"}}}})
	if err != nil || len(a.ContainerResponses) != 2 || a.ContainerResponses[0].Envs["IDS"] != "a,b" {
		t.Errorf("Allocate: %v, %v", a, err)
	}
	g, err := c.GetPreferredAllocation(ctx, &pluginapi.PreferredAllocationRequest{ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{
		{AvailableDeviceIDs: []string{"a", "b", "c"}, MustIncludeDeviceIDs: []string{"c"}, AllocationSize: 2},
	}})
	if err != nil || !slices.Equal(g.ContainerResponses[0].DeviceIDs, []string{"c", "a"}) {
		t.Errorf("GetPreferredAllocation: %v, %v", g, err)
	}
	if _, err := c.PreStartContainer(ctx, &pluginapi.PreStartContainerRequest{DevicesIds: []string{"a"}}); err != nil {
		t.Errorf("PreStartContainer: %v", err)
	}

	h.mu.Lock()
	h.err = errors.New("0000:01:00.0 is another pod's")
	h.mu.Unlock()
	if _, err := c.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{}}}); err == nil || !strings.Contains(err.Error(), "another pod's") {
		t.Errorf("a refusal: %v", err)
	}
	h.mu.Lock()
	h.err, h.hold = nil, make(chan struct{})
	h.mu.Unlock()
	start := time.Now()
	if _, err := c.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{}}}); err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("a handler that hangs: %v", err)
	}
	if d := time.Since(start); d < RPCLimit/2 {
		t.Errorf("the hanging call ended after %v, its limit is %v", d, RPCLimit)
	}
}
