package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/deviceplugin/agentsocket"
	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
	"github.com/kubevfio/kubevfio/deviceplugin/metrics"
	"github.com/kubevfio/kubevfio/deviceplugin/netdev"
	"github.com/kubevfio/kubevfio/deviceplugin/plugin"
	"github.com/kubevfio/kubevfio/deviceplugin/podsource"
	"github.com/kubevfio/kubevfio/deviceplugin/publish"
	"github.com/kubevfio/kubevfio/deviceplugin/tenancy"
	"github.com/kubevfio/kubevfio/deviceplugin/vitals"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/bind"
	"github.com/kubevfio/kubevfio/topology"
)

// ErrConfig: the agent cannot run with these settings or rights.
var ErrConfig = errors.New("agent configuration")

// Agent is the node agent. Make it with New, then Run it.
type Agent struct {
	cfg     Config
	metrics *metrics.Metrics

	fs      host.FS
	scanner *host.Scanner
	writes  *host.ProcessWriter
	writer  host.Writer
	state   *host.State
	binder  *bind.Reconciler
	net     *netdev.Host

	kube      kubernetes.Interface
	cache     cache.Cache
	events    record.EventRecorder
	eventing  record.EventBroadcaster
	publisher *publish.Publisher
	pods      *podsource.Informer
	kubelet   *podsource.Kubelet
	resources *podsource.PodResources

	ledger  *handoff.Ledger
	owners  atomic.Pointer[handoff.Ledger] // ledger, for what begins before it is made
	keeper  *tenancy.Keeper
	told    toldGroups
	gone    departed
	hands   hands
	early   *early
	vitals  vitals.Watch
	watcher *plugin.Watcher
	plugins map[string]*running

	trigger chan struct{} // look again
	done    chan bind.Result

	// Of the loop alone:
	policy           v1alpha1.KubeletPolicy // kubelet's last answer
	spoken           map[string]bool        // pools whose status has our entry
	boot, remembered string                 // boot ID, saved ledger
	preparing        bool                   // begin has started to prepare the node

	mu      sync.Mutex
	picture *picture // the last look, immutable
	ready   bool
	served  []*plugin.Plugin
}

// New builds the agent: it reads its state files and makes clients. On a node that has
// booted it begins to prepare the devices, until ctx ends; else it touches nothing.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	cfg.defaults()
	if cfg.Node == "" || cfg.REST == nil || len(cfg.WriteCommand) == 0 {
		return nil, fmt.Errorf("%w: node name, API server and write command are needed", ErrConfig)
	}
	if cfg.DeviceFiles != ByCDI && cfg.DeviceFiles != ByPath {
		return nil, fmt.Errorf("%w: device files %q: want %s or %s", ErrConfig, cfg.DeviceFiles, ByCDI, ByPath)
	}
	a := &Agent{
		cfg: cfg, metrics: metrics.New(cfg.Version), plugins: map[string]*running{},
		trigger: make(chan struct{}, 1), done: make(chan bind.Result, 1),
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: state folder: %w", ErrConfig, err)
	}
	a.told.file = filepath.Join(cfg.StateDir, "groups.json")
	if err := makeCapabilityFolder(cfg.RunDir); err != nil {
		return nil, err
	}
	if err := a.buildHost(); err != nil {
		return nil, err
	}
	// On a booting node the clients alone take a second.
	a.begin(ctx)
	if err := a.buildClients(); err != nil {
		return nil, err
	}
	a.keeper = tenancy.New(tenancy.Config{
		Cleaner: cleaner{a}, Changed: a.kick, Observe: a.cleaned, Log: cfg.Log.With("part", "tenancy"),
	})
	a.ledger = handoff.New(handoff.Config{
		Node: cfg.Node, Kubelet: a.kubeletSource(), Informer: a.pods, Changed: a.pods.Changed, Holders: a.resources,
		Report: a.report, Released: a.released, Log: cfg.Log.With("part", "handoff"),
	})
	a.owners.Store(a.ledger)
	a.metrics.CountUnits(a.countUnits)
	a.watcher = plugin.NewWatcher(cfg.PluginDir, time.Second, cfg.Log.With("part", "plugin"))
	return a, nil
}

// makeCapabilityFolder makes the folder that the launcher's DaemonSet fills,
// which runs as an ordinary user. Pods see it read-only.
func makeCapabilityFolder(runDir string) error {
	dir := filepath.Join(runDir, filepath.Base(v1alpha1.CapabilityCacheDir))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("%w: capability folder: %w", ErrConfig, err)
	}
	if os.Geteuid() != 0 {
		return nil // a test
	}
	if err := os.Chown(dir, v1alpha1.LauncherUser, v1alpha1.LauncherUser); err != nil {
		return fmt.Errorf("%w: capability folder: %w", ErrConfig, err)
	}
	return nil
}

// kubeletSource is nil without a kubelet address: an interface that holds a nil
// pointer is not nil.
func (a *Agent) kubeletSource() handoff.Source {
	if a.kubelet == nil {
		return nil
	}
	return a.kubelet
}

func (a *Agent) buildHost() error {
	a.fs = host.WithProc(host.Dir(a.cfg.HostRoot), host.Dir(filepath.Dir(a.cfg.Proc)))
	a.scanner = host.NewScanner(a.fs)
	a.net = netdev.NewHost(filepath.Join(a.cfg.Proc, "1/ns/net"))
	var err error
	if a.state, err = host.OpenState(filepath.Join(a.cfg.StateDir, "former-drivers.json")); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	a.writes = host.NewProcessWriter(a.cfg.HostRoot, a.cfg.WriteCommand, a.cfg.WriteLimit)
	a.writer = host.NewWriter(host.WriterConfig{
		FS: a.fs, Attrs: a.writes, State: a.state, Modprobe: a.modprobe,
		Busy: a.busy, Log: a.cfg.Log.With("part", "host"),
	})
	variants, err := host.ReadVariants(a.fs, host.Dir(filepath.Join(a.cfg.Proc, "1/root")))
	if err != nil {
		a.cfg.Log.Info("no list of VFIO variant drivers: driver \"auto\" means vfio-pci", "err", err)
	}
	a.binder = bind.New(bind.Config{
		Writer: a.writer, Variants: variants, Log: a.cfg.Log.With("part", "bind"),
		LinkUp: func(_ context.Context, name string) error { return a.net.Up(name) }, LinkDone: a.kick,
	})
	a.early = &early{
		file: filepath.Join(a.cfg.StateDir, "pools.json"), fs: a.fs, state: a.state, writer: a.writer, binder: a.binder,
		log: a.cfg.Log.With("part", "early"),
	}
	return nil
}

func (a *Agent) buildClients() error {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	var err error
	if a.kube, err = kubernetes.NewForConfig(a.cfg.REST); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	direct, err := client.New(a.cfg.REST, client.Options{Scheme: scheme, Mapper: mapper()})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	a.publisher = publish.New(direct)
	a.cache, err = cache.New(a.cfg.REST, cache.Options{
		Scheme: scheme, Mapper: mapper(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Node{}: {Field: fields.OneTermEqualSelector("metadata.name", a.cfg.Node)},
		},
		DefaultTransform: cache.TransformStripManagedFields(),
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if a.pods, err = podsource.NewInformer(a.kube, a.cfg.Node); err != nil {
		return err
	}
	if a.resources, err = podsource.NewPodResources(a.cfg.PodResources); err != nil {
		return err
	}
	if a.cfg.NodeIP != "" {
		address := net.JoinHostPort(a.cfg.NodeIP, strconv.Itoa(a.cfg.KubeletPort))
		if a.kubelet, err = podsource.NewKubelet(address, a.cfg.TokenFile, a.cfg.KubeletCA); err != nil {
			return err
		}
	}
	a.eventing = record.NewBroadcaster()
	a.events = a.eventing.NewRecorder(scheme, corev1.EventSource{Component: "kubevfio-agent", Host: a.cfg.Node})
	return nil
}

// mapper knows the few types that the agent reads and writes. Asking the API server
// for them would keep the agent from starting while that does not answer.
func mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	m.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	for _, kind := range []string{"DevicePool", "NodeInventory", "NodeUsage"} {
		m.Add(v1alpha1.GroupVersion.WithKind(kind), meta.RESTScopeRoot)
	}
	return m
}

// Run works until ctx ends. It returns an error when a part that nothing else
// can do the work of fails.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.startEvents()
	defer a.eventing.Shutdown()
	defer a.resources.Close() //nolint:errcheck // the process ends

	if changed, err := a.installSeccomp(); err != nil {
		a.cfg.Log.Error("launcher pods cannot start on this node: their seccomp profile is not installed", "err", err)
	} else if changed {
		a.cfg.Log.Info("installed the launchers' seccomp profile")
	}
	if err := a.watchObjects(ctx); err != nil {
		return err
	}

	var wg sync.WaitGroup
	failed := make(chan error, 8)
	part := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	part("cache", a.cache.Start)
	part("pods", func(ctx context.Context) error { a.pods.Run(ctx); return nil })
	part("device plugin folder", a.watcher.Run)
	part("tenancy", func(ctx context.Context) error { a.keeper.Run(ctx); return nil })
	part("socket", a.socket().Run)
	part("metrics", a.serveMetrics)
	part("device events", a.listen)
	part("ledger", a.sweep)
	part("usage", a.usage)
	part("loop", a.loop)

	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	cancel()
	wg.Wait()
	return err
}

// kick makes the loop look again.
func (a *Agent) kick() {
	select {
	case a.trigger <- struct{}{}:
	default:
	}
}

// watchObjects wakes the loop when pools or the own node change.
func (a *Agent) watchObjects(ctx context.Context) error {
	for _, o := range []client.Object{&v1alpha1.DevicePool{}, &corev1.Node{}} {
		i, err := a.cache.GetInformer(ctx, o, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %T: %w", o, err)
		}
		if _, err := i.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { a.kick() },
			UpdateFunc: func(old, now any) { a.onUpdate(old, now) },
			DeleteFunc: func(any) { a.kick() },
		}); err != nil {
			return fmt.Errorf("watch %T: %w", o, err)
		}
	}
	return nil
}

// onUpdate ignores what does not matter: a Node's status changes all the time.
func (a *Agent) onUpdate(old, now any) {
	o, ok1 := old.(*corev1.Node)
	n, ok2 := now.(*corev1.Node)
	if ok1 && ok2 && o.UID == n.UID && equalMaps(o.Labels, n.Labels) &&
		o.Annotations[v1alpha1.PauseAnnotation] == n.Annotations[v1alpha1.PauseAnnotation] {
		return
	}
	a.kick()
}

func equalMaps(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// modprobe loads a module with the host's own tool and files. A driver that is
// there needs none.
func (a *Agent) modprobe(ctx context.Context, module string) error {
	for _, name := range []string{module, strings.ReplaceAll(module, "_", "-")} {
		if _, err := os.Stat(filepath.Join(a.cfg.HostRoot, "sys/bus/pci/drivers", name)); err == nil {
			return nil
		}
	}
	root := filepath.Join(a.cfg.Proc, "1/root")
	for _, tool := range []string{"/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe"} {
		if _, err := os.Lstat(filepath.Join(root, tool)); err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, tool, "-b", "--", module)
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		cmd.Dir = "/"
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", tool, module, err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	return fmt.Errorf("%w: the host has no modprobe; load %s by other means", ErrConfig, module)
}

// busy tells the host's writer who holds a function.
func (a *Agent) busy(f topology.Address) string {
	unit := f.String()
	if p := a.last(); p != nil {
		if u := p.unitOf[f]; u != nil {
			unit = u.ID.String()
		}
	}
	l := a.owners.Load()
	if l == nil {
		return "" // the node has booted: nobody has anything yet
	}
	if c, ok := l.Owner(unit); ok {
		return fmt.Sprintf("pod %s/%s holds it", c.Namespace, c.Name)
	}
	return ""
}

// last is the newest picture, nil before the first look.
func (a *Agent) last() *picture {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.picture
}

// socket builds the launchers' server.
func (a *Agent) socket() *agentsocket.Server {
	return agentsocket.New(agentsocket.Config{
		Version: a.cfg.Version, Node: a.cfg.Node, Dir: a.cfg.RunDir, Name: v1alpha1.AgentSocketName, Proc: a.cfg.Proc,
		IOMMUFDName: v1alpha1.IOMMUFDSocketName,
		OpenIOMMUFD: func() (*os.File, error) { return agentsocket.OpenIOMMUFD(filepath.Join(a.cfg.HostDev, "iommu")) },
		Pods:        callers{a}, VFs: vfs{a}, Observe: a.metrics.Call, Log: a.cfg.Log.With("part", "socket"),
	})
}
