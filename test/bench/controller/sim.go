package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
	"github.com/kubevfio/kubevfio/test/integration/apiserver"
	"github.com/kubevfio/kubevfio/topology"
)

const resource = "kubevfio.io/igb-vf"

// simulation plays scheduler and kubelets: a new pod is bound to a node with a
// unit of its own, its launcher runs after a moment, and a deleted pod goes after
// another.
type simulation struct {
	server *apiserver.Server
	binder kubernetes.Interface
	nodes  int
	units  int // per node
	queue  workqueue.TypedRateLimitingInterface[client.ObjectKey]
	pods   cache.Cache

	mu   sync.Mutex
	next int
	unit map[string]int // by pod UID
}

func newSimulation(server *apiserver.Server, nodes, units int) (*simulation, error) {
	cfg := rest.CopyConfig(server.Config)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:kube-scheduler", Groups: []string{"system:masters"}}
	binder, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	return &simulation{
		server: server, binder: binder, nodes: nodes, units: units, unit: map[string]int{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[client.ObjectKey]()),
	}, nil
}

func nodeName(i int) string { return fmt.Sprintf("node-%03d", i) }

func address(i int) topology.Address {
	a, err := topology.ParseAddress(fmt.Sprintf("0000:%02x:%02x.%x", 0x10+i/256, i/8%32, i%8))
	if err != nil {
		panic(err) // the numbers above are in range
	}
	return a
}

// hardware makes the nodes and their inventories.
func (s *simulation) hardware(ctx context.Context) error {
	for i := range s.nodes {
		inv := &v1alpha1.NodeInventory{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i)}}
		inv.Spec.Attachments = []v1alpha1.Attachment{{Name: "pci0000:10"}}
		inv.Spec.Kinds = []v1alpha1.DeviceKind{{Vendor: "8086", Device: "10ca", Class: "020000"}}
		for u := range s.units {
			inv.Spec.Units = append(inv.Spec.Units, v1alpha1.InventoryUnit{ID: address(u).String(), NUMA: new(int32(0))})
		}
		for _, o := range []client.Object{&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i)}}, inv} {
			if err := s.server.Admin.Create(ctx, o); err != nil {
				return fmt.Errorf("make %s: %w", nodeName(i), err)
			}
		}
	}
	return nil
}

// start watches pods and works until the context ends.
func (s *simulation) start(ctx context.Context) error {
	var err error
	if s.pods, err = cache.New(s.server.Config, cache.Options{Scheme: s.server.Scheme}); err != nil {
		return err
	}
	informer, err := s.pods.GetInformer(ctx, &corev1.Pod{})
	if err != nil {
		return err
	}
	enqueue := func(o any) {
		if pod, ok := o.(*corev1.Pod); ok {
			s.queue.Add(client.ObjectKeyFromObject(pod))
		}
	}
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: enqueue, UpdateFunc: func(_, o any) { enqueue(o) },
	}); err != nil {
		return err
	}
	go func() { _ = s.pods.Start(ctx) }() // ends with the context
	if !s.pods.WaitForCacheSync(ctx) {
		return ctx.Err()
	}
	for range 16 {
		go s.work(ctx)
	}
	go func() { <-ctx.Done(); s.queue.ShutDown() }()
	return nil
}

func (s *simulation) work(ctx context.Context) {
	for {
		key, down := s.queue.Get()
		if down {
			return
		}
		if err := s.step(ctx, key); err != nil && ctx.Err() == nil {
			s.queue.AddRateLimited(key)
		} else {
			s.queue.Forget(key)
		}
		s.queue.Done(key)
	}
}

func (s *simulation) step(ctx context.Context, key client.ObjectKey) error {
	var pod corev1.Pod
	if err := s.pods.Get(ctx, key, &pod); err != nil {
		return client.IgnoreNotFound(err)
	}
	switch {
	case !pod.DeletionTimestamp.IsZero():
		// The guest shut down, the pod object goes.
		return client.IgnoreNotFound(s.server.Admin.Delete(ctx, &pod, client.GracePeriodSeconds(0)))
	case pod.Spec.NodeName == "":
		return s.bind(ctx, &pod)
	case pod.Status.Phase != corev1.PodRunning:
		return s.run(ctx, &pod, false)
	case !pod.Status.ContainerStatuses[0].Ready:
		return s.run(ctx, &pod, true)
	}
	return nil
}

func (s *simulation) place(uid string) (node string, a topology.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.unit[uid]
	if !ok {
		n = s.next
		s.next++
		s.unit[uid] = n
	}
	return nodeName(n % s.nodes), address(n / s.nodes % s.units)
}

func (s *simulation) bind(ctx context.Context, pod *corev1.Pod) error {
	node, unit := s.place(string(pod.UID))
	a := v1alpha1.Assignment{
		Version: v1alpha1.AssignmentVersion, PodUID: string(pod.UID), Node: node, Alignment: "switch",
		Containers: map[string]map[string][]topology.Address{launcherpod.Container: {resource: {unit}}},
	}
	value, err := a.Encode()
	if err != nil {
		return err
	}
	err = s.binder.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Annotations: map[string]string{v1alpha1.AssignmentAnnotation: value}},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // bound or gone already
	}
	return err
}

// run writes the status as kubelet does: a running container first, then a ready
// one.
func (s *simulation) run(ctx context.Context, pod *corev1.Pod, ready bool) error {
	_, unit := s.place(string(pod.UID))
	before := pod.DeepCopy()
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, "10.0.0.7", []corev1.PodIP{{IP: "10.0.0.7"}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: launcherpod.Container, Ready: ready, Started: new(true),
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(time.Now())}},
		AllocatedResourcesStatus: []corev1.ResourceStatus{{
			Name:      resource,
			Resources: []corev1.ResourceHealth{{ResourceID: corev1.ResourceID(unit.String()), Health: corev1.ResourceHealthStatusHealthy}},
		}},
	}}
	return client.IgnoreNotFound(s.server.Admin.Status().Patch(ctx, pod, client.MergeFrom(before)))
}
