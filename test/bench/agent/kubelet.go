package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// kubelet stands in for kubelet: its half of the device plugin protocol, its
// list of pods, its pod-resources API.
type kubelet struct {
	pluginapi.UnimplementedRegistrationServer
	podresources.UnimplementedPodResourcesListerServer

	dir   string // device plugin folder
	https *httptest.Server
	rpc   *grpc.Server

	mu     sync.Mutex
	pods   []*guest
	others []json.RawMessage // pods without devices, as text
	body   []byte            // of /pods
	plugin *grpc.ClientConn
	ids    []string
	listed chan struct{} // closed when want healthy devices are listed
	want   int
}

// guest is a pod with devices.
type guest struct {
	pod  *corev1.Pod
	ids  []string
	text json.RawMessage
}

var errKubelet = errors.New("stand-in kubelet")

// startKubelet listens in dir and on a free port; it waits for want devices of
// the one plugin that registers.
func startKubelet(dir, resources string, want int, others []json.RawMessage) (*kubelet, error) {
	k := &kubelet{dir: dir, want: want, others: others, listed: make(chan struct{})}
	k.render()
	k.rpc = grpc.NewServer()
	pluginapi.RegisterRegistrationServer(k.rpc, k)
	podresources.RegisterPodResourcesListerServer(k.rpc, k)
	for _, socket := range []string{filepath.Join(dir, "kubelet.sock"), resources} {
		l, err := net.Listen("unix", socket)
		if err != nil {
			return nil, err
		}
		go func() { _ = k.rpc.Serve(l) }() // it ends with stop
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /pods", func(w http.ResponseWriter, _ *http.Request) {
		k.mu.Lock()
		b := k.body
		k.mu.Unlock()
		_, _ = w.Write(b)
	})
	mux.HandleFunc("GET /configz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"kubeletconfig":{"topologyManagerPolicy":"none"}}`))
	})
	k.https = httptest.NewTLSServer(mux)
	return k, nil
}

func (k *kubelet) stop() {
	k.https.Close()
	k.rpc.Stop()
}

// render writes the list of pods; the caller holds the lock, or is the only one.
func (k *kubelet) render() {
	items := append([]json.RawMessage{}, k.others...)
	for _, g := range k.pods {
		items = append(items, g.text)
	}
	b, err := json.Marshal(map[string]any{"kind": "PodList", "apiVersion": "v1", "metadata": map[string]any{}, "items": items})
	if err != nil {
		panic(err) // made of texts that json has written
	}
	k.body = b
}

// put adds or changes a pod and renders the list.
func (k *kubelet) put(g *guest, started bool) error {
	if started {
		g.pod.Status.Phase = corev1.PodRunning
		s := corev1.ContainerStatus{Name: container, ContainerID: "containerd://" + string(g.pod.UID)}
		rs := corev1.ResourceStatus{Name: resource}
		for _, id := range g.ids {
			rs.Resources = append(rs.Resources, corev1.ResourceHealth{ResourceID: corev1.ResourceID(id), Health: corev1.ResourceHealthStatusHealthy})
		}
		s.AllocatedResourcesStatus = []corev1.ResourceStatus{rs}
		g.pod.Status.ContainerStatuses = []corev1.ContainerStatus{s}
	}
	b, err := json.Marshal(g.pod)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	g.text = b
	if !started {
		k.pods = append(k.pods, g)
	}
	k.render()
	return nil
}

// drop forgets the oldest pod and returns its devices.
func (k *kubelet) drop() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := k.pods[0].ids
	k.pods = k.pods[1:]
	k.render()
	return ids
}

// Register implements the registration API as kubelet does: it dials back.
func (k *kubelet) Register(_ context.Context, r *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	conn, err := grpc.NewClient("unix:"+filepath.Join(k.dir, r.GetEndpoint()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	c := pluginapi.NewDevicePluginClient(conn)
	stream, err := c.ListAndWatch(context.Background(), &pluginapi.Empty{})
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.plugin = conn
	k.mu.Unlock()
	go k.watch(stream)
	return &pluginapi.Empty{}, nil
}

func (k *kubelet) watch(stream grpc.ServerStreamingClient[pluginapi.ListAndWatchResponse]) {
	for {
		m, err := stream.Recv()
		if err != nil {
			return
		}
		var ids []string
		for _, d := range m.GetDevices() {
			if d.GetHealth() == pluginapi.Healthy {
				ids = append(ids, d.GetID())
			}
		}
		k.mu.Lock()
		first := len(k.ids) < k.want && len(ids) >= k.want
		k.ids = ids
		if first {
			close(k.listed)
		}
		k.mu.Unlock()
	}
}

// List implements the pod-resources API.
func (k *kubelet) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := &podresources.ListPodResourcesResponse{}
	for _, g := range k.pods {
		if len(g.ids) == 0 {
			continue
		}
		out.PodResources = append(out.PodResources, &podresources.PodResources{
			Name: g.pod.Name, Namespace: g.pod.Namespace,
			Containers: []*podresources.ContainerResources{{Name: container,
				Devices: []*podresources.ContainerDevices{{ResourceName: resource, DeviceIds: g.ids}}}},
		})
	}
	return out, nil
}

// waitListed waits for all devices.
func (k *kubelet) waitListed(ctx context.Context, limit time.Duration) error {
	select {
	case <-k.listed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(limit):
		k.mu.Lock()
		defer k.mu.Unlock()
		return fmt.Errorf("%w: after %v %d of %d devices are healthy", errKubelet, limit, len(k.ids), k.want)
	}
}

// otherPods are pods as a node runs many of, a few kilobytes each.
func otherPods(n int) ([]json.RawMessage, error) {
	var out []json.RawMessage
	for i := range n {
		p := newPod(fmt.Sprintf("web-%d", i))
		c := &p.Spec.Containers[0]
		for j := range 20 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", j), Value: strings.Repeat("x", 40)})
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("volume-%d", j)})
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: fmt.Sprintf("volume-%d", j), MountPath: fmt.Sprintf("/mnt/%d", j)})
		}
		p.Status.Phase = corev1.PodRunning
		b, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}
