package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/test/integration/apiserver"
	"github.com/kubevfio/kubevfio/topology"
)

const (
	nodeName  = "bench"
	resource  = "example.com/vf"
	container = "compute"
	// live is how many pods with devices the node has at a time.
	live = 40
	// pace is the time between two admissions.
	pace = 10 * time.Millisecond
	// collectEvery is after how many pods the stand-in collects its garbage and
	// something happens in the API server.
	collectEvery = 25
)

// process runs the agent's binary on the tree and measures it.
func process(ctx context.Context, work, root, logFile string, vfs, calls int, idle time.Duration, res *results) (err error) {
	server, err := apiserver.Start(os.Stderr, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	if err := objects(ctx, server); err != nil {
		return err
	}
	binary := filepath.Join(work, "kubevfio-agent")
	build := exec.CommandContext(ctx, "go", "build", "-tags=grpcnotrace", "-ldflags=-s -w", "-o", binary, "./cmd/kubevfio-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the agent: %w", err)
	}
	if err := folders(ctx, work, root); err != nil {
		return err
	}
	others, err := otherPods(60)
	if err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(work, name) }
	k, err := startKubelet(at("plugins"), at("resources.sock"), vfs, others)
	if err != nil {
		return err
	}
	defer k.stop()
	if err := kubeconfig(server.Config, at("kubeconfig")); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(k.https.Listener.Addr().String())
	if err != nil {
		return err
	}
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	agent := exec.Command(binary, "run", "--node-name", nodeName, "--node-ip", "127.0.0.1", "--kubelet-port", port, "--kubeconfig", at("kubeconfig"),
		"--host-root", root, "--host-dev", at("dev"), "--device-plugin-dir", at("plugins"), "--pod-resources-socket", at("resources.sock"),
		"--seccomp-dir", at("seccomp"), "--cdi-dir", at("cdi"), "--run-dir", at("run"), "--state-dir", at("state"), "--token-file", at("token"),
		"--metrics-address", "127.0.0.1:0")
	agent.Env = append(os.Environ(), "GOMEMLIMIT=160MiB") // as in manifests/agent
	agent.Stdout, agent.Stderr = log, log
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	start := time.Now()
	if err := agent.Start(); err != nil {
		return err
	}
	defer func() {
		_ = agent.Process.Signal(syscall.SIGTERM)
		_ = agent.Wait() // killed by us: its status says nothing
	}()
	if err := k.waitListed(ctx, 2*time.Minute); err != nil {
		return err
	}
	res.StartS = time.Since(start).Seconds()
	if res.IdleCPUPercent, err = idleCPU(ctx, agent.Process.Pid, idle); err != nil {
		return err
	}
	if err := floor(ctx, k, res); err != nil {
		return err
	}
	preferred, allocate, err := admissions(ctx, k, server.Admin, calls)
	if err != nil {
		return err
	}
	res.Calls = len(allocate)
	res.PreferredP50US, res.PreferredP99US = quantile(preferred, 0.5), quantile(preferred, 0.99)
	res.AllocateP50US, res.AllocateP99US = quantile(allocate, 0.5), quantile(allocate, 0.99)
	res.RSSMiB, res.PeakRSSMiB, err = memory(agent.Process.Pid)
	return err
}

// objects makes what the agent reads.
func objects(ctx context.Context, s *apiserver.Server) error {
	if err := s.Apply(ctx, "manifests/crd", nil); err != nil {
		return err
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}
	pool := &v1alpha1.DevicePool{ObjectMeta: metav1.ObjectMeta{Name: "vf"}, Spec: v1alpha1.DevicePoolSpec{
		ResourceName: resource, Driver: "keep", Reset: "Never",
		Selectors: []v1alpha1.DeviceSelector{{Vendors: []string{"15b3"}, Devices: []string{"101e"}}},
	}}
	return errors.Join(s.Admin.Create(ctx, node), s.Admin.Create(ctx, pool), s.Admin.Create(ctx, news()))
}

// news is a pod of another workload in the API server. Its changes are the only
// ones that the agent's watch of pods sees, and make it look for pods that have
// ended.
func news() *corev1.Pod {
	p := newPod("news")
	p.UID, p.Namespace = "", "default"
	return p
}

// folders makes the node's folders, and the device node of each group.
func folders(ctx context.Context, work, root string) error {
	for _, d := range []string{"plugins", "seccomp", "cdi", "run", "state", "dev/vfio"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			return err
		}
	}
	h, err := host.Read(ctx, host.Dir(root))
	if err != nil {
		return err
	}
	for i := range h.Functions {
		if err := os.WriteFile(filepath.Join(work, "dev/vfio", strconv.Itoa(h.Functions[i].IOMMUGroup)), nil, 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(work, "token"), []byte("none"), 0o600)
}

func kubeconfig(c *rest.Config, file string) error {
	out := clientcmdapi.NewConfig()
	out.Clusters["bench"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
	if !strings.Contains(c.Host, "://") {
		out.Clusters["bench"].Server = "https://" + c.Host
	}
	out.AuthInfos["bench"] = &clientcmdapi.AuthInfo{ClientCertificateData: c.CertData, ClientKeyData: c.KeyData}
	out.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench", AuthInfo: "bench"}
	out.CurrentContext = "bench"
	return clientcmd.WriteToFile(*out, file)
}

func newPod(name string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID("uid-" + name), CreationTimestamp: metav1.Now()}}
	p.Spec.NodeName = nodeName
	p.Spec.Containers = []corev1.Container{{Name: container, Image: "example.com/image:1"}}
	p.Status.Phase = corev1.PodPending
	return p
}

// floor times what every answer is made of, at the pace of the admissions.
func floor(ctx context.Context, k *kubelet, res *results) error {
	k.mu.Lock()
	plugin := pluginapi.NewDevicePluginClient(k.plugin)
	k.mu.Unlock()
	client := k.https.Client()
	var empty, list []time.Duration
	for range 300 {
		time.Sleep(pace)
		start := time.Now()
		if _, err := plugin.GetDevicePluginOptions(ctx, &pluginapi.Empty{}); err != nil {
			return fmt.Errorf("call GetDevicePluginOptions: %w", err)
		}
		empty = append(empty, time.Since(start))
		time.Sleep(pace)
		start = time.Now()
		r, err := client.Get(k.https.URL + "/pods")
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
			err = errors.Join(err, r.Body.Close())
		}
		if err != nil {
			return fmt.Errorf("read the list of pods: %w", err)
		}
		list = append(list, time.Since(start))
	}
	res.EmptyCallP50US, res.EmptyCallP99US = quantile(empty, 0.5), quantile(empty, 0.99)
	res.ListP50US, res.ListP99US = quantile(list, 0.5), quantile(list, 0.99)
	return nil
}

// admissions admits pods one after the other, as kubelet does, and gives the
// times of both calls.
func admissions(ctx context.Context, k *kubelet, api client.Client, n int) (preferred, allocate []time.Duration, err error) {
	k.mu.Lock()
	free, plugin := slices.Clone(k.ids), k.plugin
	k.mu.Unlock()
	// The stand-in's own garbage, half a megabyte of text per pod, is collected
	// between the calls and not during them. The agent collects when it wants.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for i := range n {
		if i%collectEvery == 0 {
			runtime.GC()
			patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{"news":"%d"}}}`, i))
			if err := api.Patch(ctx, news(), patch); err != nil {
				return nil, nil, fmt.Errorf("change a pod: %w", err)
			}
		}
		if i >= live {
			free = append(free, k.drop()...)
		}
		size := 1 + i%4
		// Kubelet's sets have no order.
		rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
		g := &guest{pod: newPod(fmt.Sprintf("vm-%d", i))}
		g.pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{resource: *apiresource.NewQuantity(int64(size), apiresource.DecimalSI)}
		var assigned []string
		if i%2 == 0 {
			assigned = slices.Clone(free[:size])
			if err := assign(g.pod, assigned); err != nil {
				return nil, nil, err
			}
		}
		if err := k.put(g, false); err != nil {
			return nil, nil, err
		}
		question, err := makeReady(&pluginapi.PreferredAllocationRequest{ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{
			{AvailableDeviceIDs: free, AllocationSize: int32(size)}}})
		if err != nil {
			return nil, nil, err
		}
		pr := &pluginapi.PreferredAllocationResponse{}
		start := time.Now()
		err = question.call(ctx, plugin, pluginapi.DevicePlugin_GetPreferredAllocation_FullMethodName, pr)
		preferred = append(preferred, time.Since(start))
		if err != nil {
			return nil, nil, fmt.Errorf("call GetPreferredAllocation for pod %d: %w", i, err)
		}
		g.ids = pr.GetContainerResponses()[0].GetDeviceIDs()
		if len(g.ids) != size || assigned != nil && !slices.Equal(g.ids, assigned) {
			return nil, nil, fmt.Errorf("%w: pod %d gets %v, assigned %v", errKubelet, i, g.ids, assigned)
		}
		order, err := makeReady(&pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: g.ids}}})
		if err != nil {
			return nil, nil, err
		}
		start = time.Now()
		err = order.call(ctx, plugin, pluginapi.DevicePlugin_Allocate_FullMethodName, &pluginapi.AllocateResponse{})
		allocate = append(allocate, time.Since(start))
		if err != nil {
			return nil, nil, fmt.Errorf("call Allocate for pod %d: %w", i, err)
		}
		free = slices.DeleteFunc(free, func(id string) bool { return slices.Contains(g.ids, id) })
		if err := k.put(g, true); err != nil {
			return nil, nil, err
		}
		// Pods come more slowly than this on any node; what the agent does after
		// each allocation is among the calls all the same.
		time.Sleep(pace)
	}
	return preferred, allocate, nil
}

func assign(p *corev1.Pod, ids []string) error {
	a := v1alpha1.Assignment{Version: v1alpha1.AssignmentVersion, PodUID: string(p.UID), Node: nodeName,
		Containers: map[string]map[string][]topology.Address{container: {resource: nil}}}
	for _, id := range ids {
		addr, err := topology.ParseAddress(id)
		if err != nil {
			return err
		}
		a.Containers[container][resource] = append(a.Containers[container][resource], addr)
	}
	text, err := a.Encode()
	p.Annotations = map[string]string{v1alpha1.AssignmentAnnotation: text}
	return err
}

// idleCPU is the share of one CPU, in percent, that the process uses in a
// stretch of time.
func idleCPU(ctx context.Context, pid int, d time.Duration) (float64, error) {
	wait := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := wait(5 * time.Second); err != nil { // the start's last echoes
		return 0, err
	}
	before, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	if err := wait(d); err != nil {
		return 0, err
	}
	after, err := cpuTime(pid)
	return 100 * (after - before).Seconds() / d.Seconds(), err
}

// cpuTime reads fields 14 and 15 of /proc/PID/stat (proc(5)), in ticks of 1/100 s.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("%w: stat of process %d is %q", errKubelet, pid, b)
	}
	u, err1 := strconv.Atoi(f[11])
	s, err2 := strconv.Atoi(f[12])
	return time.Duration(u+s) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// memory is the process' resident set and its highest, in MiB.
func memory(pid int) (now, peak float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kb, err := strconv.ParseFloat(f[1], 64)
		switch {
		case err != nil:
		case f[0] == "VmRSS:":
			now = kb / 1024
		case f[0] == "VmHWM:":
			peak = kb / 1024
		}
	}
	return now, peak, nil
}
