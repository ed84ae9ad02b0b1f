package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/integration/apiserver"
)

const namespace = "bench"

// results is out/bench/controller.json.
type results struct {
	VMs   int `json:"vms"`
	Nodes int `json:"nodes"`
	// CreateS is how long the creation of all took; AllRunningS from the first
	// creation until the last machine was ready, AllGoneS from the first deletion
	// until the last was gone, in seconds.
	CreateS     float64 `json:"createS"`
	AllRunningS float64 `json:"allRunningS"`
	AllGoneS    float64 `json:"allGoneS"`
	// Ready is from a machine's creation until it is ready, in seconds.
	Ready seconds `json:"readyAfterS"`
	// Reconciles by controller up to then.
	Reconciles map[string]Latency `json:"reconciles"`
	// RequestsPerVM up to then, without watches; and to the end of all.
	RequestsPerVM         float64            `json:"requestsPerVM"`
	RequestsPerVMByKind   map[string]float64 `json:"requestsPerVMByKind"`
	RequestsPerVMDeletion float64            `json:"requestsPerVMDeletion"`
	// Idle is how many requests the controller made in IdleS seconds with all
	// machines running and nothing to do.
	Idle  int `json:"idleRequests"`
	IdleS int `json:"idleS"`
	// Memory of the controller's process in MiB: before, with all machines
	// running, and its peak.
	MemoryBeforeMiB  float64 `json:"memoryBeforeMiB"`
	MemoryRunningMiB float64 `json:"memoryRunningMiB"`
	HeapRunningMiB   float64 `json:"heapRunningMiB"`
	MemoryPeakMiB    float64 `json:"memoryPeakMiB"`
}

type seconds struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if kubeconfig := os.Getenv(envChild); kubeconfig != "" {
		err = child(ctx, kubeconfig)
	} else {
		err = bench(ctx, os.Args[1:])
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "bench-controller:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("controller", flag.ContinueOnError)
	out := fs.String("o", "out/bench/controller.json", "result file")
	vms := fs.Int("vms", 500, "machines")
	nodes := fs.Int("nodes", 50, "simulated nodes")
	idle := fs.Int("idle", 30, "seconds to listen for requests when all is done")
	if err := fs.Parse(args); err != nil {
		return err
	}
	r := results{VMs: *vms, Nodes: *nodes, IdleS: *idle}
	server, err := apiserver.Start(os.Stderr, map[string]string{"authorization-mode": "RBAC"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	// The API server does not end while the simulated nodes watch it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := server.Apply(ctx, "manifests/overlays/lab", func(o *unstructured.Unstructured) bool {
		return o.GetKind() != "DevicePool" && o.GetKind() != "ValidatingWebhookConfiguration"
	}); err != nil {
		return err
	}
	if err := server.Admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		return err
	}
	sim, err := newSimulation(server, *nodes, *vms / *nodes + 1)
	if err != nil {
		return err
	}
	if err := errors.Join(sim.hardware(ctx), sim.start(ctx)); err != nil {
		return err
	}
	c, err := startController(ctx, server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := r.measure(ctx, server, c); err != nil {
		return err
	}
	return r.write(*out)
}

func (r *results) measure(ctx context.Context, server *apiserver.Server, c *controllerProcess) error {
	time.Sleep(2 * time.Second) // its caches fill
	before, err := c.account()
	if err != nil {
		return err
	}
	r.MemoryBeforeMiB = before.ResidentMiB
	start := time.Now()
	created, err := createAll(ctx, server.Admin, r.VMs)
	if err != nil {
		return err
	}
	r.CreateS = since(start)
	if err := r.waitReady(ctx, server.Admin, created); err != nil {
		return err
	}
	r.AllRunningS = since(start)
	running, err := c.settled(ctx)
	if err != nil {
		return err
	}
	r.Reconciles = running.Reconciles
	r.RequestsPerVM, r.RequestsPerVMByKind = perVM(before, running, r.VMs)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(r.IdleS) * time.Second):
	}
	after, err := c.account()
	if err != nil {
		return err
	}
	total, _ := perVM(running, after, 1)
	r.Idle = int(total)
	r.MemoryRunningMiB, r.HeapRunningMiB = after.ResidentMiB, after.HeapMiB

	start = time.Now()
	if err := server.Admin.DeleteAllOf(ctx, &v1alpha1.VirtualMachine{}, client.InNamespace(namespace)); err != nil {
		return err
	}
	for {
		var list v1alpha1.VirtualMachineList
		if err := server.Admin.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		if len(list.Items) == 0 {
			break
		}
		if time.Since(start) > 10*time.Minute {
			return fmt.Errorf("%d machines are left ten minutes after the deletion", len(list.Items))
		}
		time.Sleep(500 * time.Millisecond)
	}
	r.AllGoneS = since(start)
	gone, err := c.account()
	if err != nil {
		return err
	}
	r.RequestsPerVMDeletion, _ = perVM(after, gone, r.VMs)
	r.MemoryPeakMiB = gone.PeakMiB
	var pods corev1.PodList
	if err := server.Admin.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return err
	}
	if len(pods.Items) > 0 {
		return fmt.Errorf("%d pods outlived their machines", len(pods.Items))
	}
	return nil
}

const template = `
domain:
  cpu: {cores: 1}
  memory: {guest: 256Mi}
  firmware: {kernelBoot: {container: {image: localhost/kubevfio/guest:dev, kernelPath: /boot/vmlinuz, initrdPath: /boot/initrd}}}
  devices:
    alignment: preferred:numa
    interfaces:
    - {name: vf0, sriov: {deviceName: kubevfio.io/igb-vf}}
    - {name: default, passt: {}}
networks: [{name: default, pod: {}}]
`

// createAll makes the machines by eight hands and returns when each was made.
func createAll(ctx context.Context, c client.Client, n int) (map[string]time.Time, error) {
	var spec v1alpha1.VirtualMachineInstanceSpec
	if err := yaml.UnmarshalStrict([]byte(template), &spec); err != nil {
		return nil, err
	}
	var (
		mu       sync.Mutex
		created  = map[string]time.Time{}
		failures []error
		wg       sync.WaitGroup
		names    = make(chan string)
	)
	for range 8 {
		wg.Go(func() {
			for name := range names {
				vm := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
				vm.Spec.RunStrategy, vm.Spec.Template.Spec = v1alpha1.RunAlways, *spec.DeepCopy()
				at := time.Now()
				err := c.Create(ctx, vm)
				mu.Lock()
				created[name] = at
				failures = append(failures, err)
				mu.Unlock()
			}
		})
	}
	for i := range n {
		names <- fmt.Sprintf("vm-%04d", i)
	}
	close(names)
	wg.Wait()
	return created, errors.Join(failures...)
}

// waitReady notes when each machine became ready, to half a second.
func (r *results) waitReady(ctx context.Context, c client.Client, created map[string]time.Time) error {
	ready := map[string]float64{}
	for start := time.Now(); len(ready) < len(created); {
		if time.Since(start) > 15*time.Minute {
			return fmt.Errorf("%d of %d machines are ready after 15 minutes", len(ready), len(created))
		}
		var list v1alpha1.VirtualMachineList
		if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, vm := range list.Items {
			if _, known := ready[vm.Name]; vm.Status.Ready && !known {
				ready[vm.Name] = time.Since(created[vm.Name]).Seconds()
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
	sorted := slices.Sorted(maps.Values(ready))
	at := func(q float64) float64 { return float64(int(10*sorted[int(q*float64(len(sorted)-1))])) / 10 }
	r.Ready = seconds{P50: at(0.5), P99: at(0.99), Max: at(1)}
	return nil
}

// perVM are the requests between two accounts, divided by n, without watches.
func perVM(from, to *Account, n int) (total float64, byKind map[string]float64) {
	byKind = map[string]float64{}
	for kind, count := range to.Requests {
		if d := count - from.Requests[kind]; d > 0 && kind != "watch" {
			byKind[kind] = float64(int(100*float64(d)/float64(n))) / 100
			total += float64(d)
		}
	}
	return float64(int(100*total/float64(n))) / 100, byKind
}

func (r *results) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return err
	}
	_, err = fmt.Printf("%s\n%s\n", b, path)
	return err
}

// controllerProcess is the controller in a process of its own.
type controllerProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	dir string
}

// startController runs this program again, with the rights of the controller's
// service account.
func startController(ctx context.Context, server *apiserver.Server) (*controllerProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "kubevfio-bench-")
	if err != nil {
		return nil, err
	}
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["c"] = &clientcmdapi.Cluster{Server: server.Config.Host, CertificateAuthorityData: server.Config.CAData}
	if !strings.HasPrefix(server.Config.Host, "http") {
		cfg.Clusters["c"].Server = "https://" + server.Config.Host
	}
	cfg.AuthInfos["c"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: server.Config.CertData, ClientKeyData: server.Config.KeyData,
		Impersonate:       "system:serviceaccount:kubevfio-system:kubevfio-controller",
		ImpersonateGroups: []string{"system:serviceaccounts", "system:serviceaccounts:kubevfio-system", "system:authenticated"},
	}
	cfg.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "c"}
	cfg.CurrentContext = "c"
	file := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		return nil, err
	}
	p := &controllerProcess{cmd: exec.CommandContext(ctx, self), dir: dir}
	p.cmd.Env = append(os.Environ(), envChild+"="+file)
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	pipe, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(pipe)
	return p, p.cmd.Start()
}

func (p *controllerProcess) account() (*Account, error) {
	if _, err := io.WriteString(p.in, "account\n"); err != nil {
		return nil, fmt.Errorf("ask the controller: %w", err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("the controller's answer: %w", err)
	}
	var a Account
	return &a, json.Unmarshal(line, &a)
}

// settled waits until the controller made no request for three seconds.
func (p *controllerProcess) settled(ctx context.Context) (*Account, error) {
	last, err := p.account()
	if err != nil {
		return nil, err
	}
	for range 100 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(3 * time.Second):
		}
		now, err := p.account()
		if err != nil {
			return nil, err
		}
		if n, _ := perVM(last, now, 1); n == 0 {
			return now, nil
		}
		last = now
	}
	return nil, errors.New("the controller still makes requests five minutes after all machines run")
}

func (p *controllerProcess) stop() error {
	return errors.Join(p.in.Close(), p.cmd.Wait(), os.RemoveAll(p.dir))
}
