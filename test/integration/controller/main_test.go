package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/app"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
	"github.com/kubevfio/kubevfio/test/integration/apiserver"
	"github.com/kubevfio/kubevfio/topology"
)

const node, otherNode = "node-a", "node-b"

// server is shared by all tests of the package: it takes seconds to start.
var server *apiserver.Server

// stop ends the controller; tests that restart it replace it.
var stop func()

// launchers answers for the launchers that are not there.
var launchers = &fakeLaunchers{phase: map[string]launcherrpcv1.Phase{}}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if server, err = apiserver.Start(os.Stderr, map[string]string{"authorization-mode": "RBAC"}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := server.Apply(ctx, "manifests/overlays/lab", func(o *unstructured.Unstructured) bool {
		// The tests have a service of their own for the API: it leads to this process.
		return o.GetKind() != "DevicePool" && o.GetKind() != "APIService" && o.GetName() != "kubevfio-api"
	}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := server.Admin.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := server.Admin.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: otherNode}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := serveAPI(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if stop, err = startController(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { stop() }()
	return m.Run()
}

// startController runs the controller with the rights of its own service account,
// so that missing RBAC rules fail the tests.
func startController(ctx context.Context, changes ...func(*app.Options)) (stop func(), err error) {
	cfg := rest.CopyConfig(server.Config)
	cfg.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:kubevfio-system:kubevfio-controller",
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:kubevfio-system", "system:authenticated"},
	}
	o := app.DefaultOptions()
	o.MetricsAddress, o.HealthAddress, o.LeaderElection, o.SkipNameValidation = "0", "0", false, true
	o.WebhookPort, o.ServingNames, o.EvictionPatience, o.Launcher = webhookPort, []string{"localhost"}, 20*time.Second, launchers
	if o.MetricsAddress, err = freeAddress(); err != nil {
		return nil, err
	}
	metricsAddress = o.MetricsAddress
	o.APIAddress, o.Guests, o.CertificateLife = apiAddress, guests, certificateLife
	for _, change := range changes {
		change(&o)
	}
	c, err := app.New(cfg, o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			fmt.Fprintln(os.Stderr, "controller:", err)
		}
	}, nil
}

// newNamespace enforces the restricted Pod Security Standard, as owners' do.
func newNamespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "vms-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if err := server.Admin.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

const template = `
domain:
  cpu: {cores: 1}
  memory: {guest: 256Mi}
  firmware: {kernelBoot: {container: {image: localhost/kubevfio/guest:dev, kernelPath: /boot/vmlinuz, initrdPath: /boot/initrd}}}
  devices:
    alignment: preferred:numa
    gpus: [{name: gpu0, deviceName: kubevfio.io/gpu}]
    interfaces:
    - {name: vf0, sriov: {deviceName: kubevfio.io/igb-vf}}
    - {name: vf1, sriov: {deviceName: kubevfio.io/igb-vf}}
    - {name: default, passt: {}, macAddress: "02:00:00:00:00:01"}
networks: [{name: default, pod: {}}]
terminationGracePeriodSeconds: 20
`

func newMachine(t *testing.T, ns, name string, strategy v1alpha1.RunStrategy) *v1alpha1.VirtualMachine {
	t.Helper()
	vm := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	vm.Spec.RunStrategy = strategy
	if err := yaml.UnmarshalStrict([]byte(template), &vm.Spec.Template.Spec); err != nil {
		t.Fatal(err)
	}
	if err := server.Admin.Create(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	return vm
}

// eventually waits until check returns no problem; the last one is the failure.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	// Long, for busy machines: nothing here is a measure of speed.
	const limit = 90 * time.Second
	deadline := time.Now().Add(limit)
	for {
		err := check(t.Context())
		if err == nil {
			return
		}
		// A test that writes nonsense will never succeed.
		if time.Now().After(deadline) || apierrors.IsInvalid(err) {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func get[T client.Object](ctx context.Context, o T) (T, error) {
	return o, server.Admin.Get(ctx, client.ObjectKeyFromObject(o), o)
}

// waitInstance waits for an instance that accept takes.
func waitInstance(t *testing.T, ns, name, what string, accept func(*v1alpha1.VirtualMachineInstance) bool) *v1alpha1.VirtualMachineInstance {
	t.Helper()
	vmi := &v1alpha1.VirtualMachineInstance{}
	eventually(t, "instance "+name+" "+what, func(ctx context.Context) error {
		vmi = &v1alpha1.VirtualMachineInstance{}
		if err := server.Admin.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, vmi); err != nil {
			return err
		}
		if !accept(vmi) {
			return fmt.Errorf("status is %s", text(vmi.Status))
		}
		return nil
	})
	return vmi
}

func waitMachine(t *testing.T, ns, name, what string, accept func(*v1alpha1.VirtualMachine) bool) *v1alpha1.VirtualMachine {
	t.Helper()
	vm := &v1alpha1.VirtualMachine{}
	eventually(t, "machine "+name+" "+what, func(ctx context.Context) error {
		vm = &v1alpha1.VirtualMachine{}
		if err := server.Admin.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, vm); err != nil {
			return err
		}
		if !accept(vm) {
			return fmt.Errorf("status is %s", text(vm.Status))
		}
		return nil
	})
	return vm
}

func waitGone(t *testing.T, o client.Object) {
	t.Helper()
	eventually(t, o.GetName()+" is gone", func(ctx context.Context) error {
		err := server.Admin.Get(ctx, client.ObjectKeyFromObject(o), o)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there, finalizers %v (%w)", o.GetFinalizers(), err)
	})
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func podOf(t *testing.T, vmi *v1alpha1.VirtualMachineInstance) *corev1.Pod {
	t.Helper()
	pod, err := get(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: vmi.Namespace, Name: vmi.Status.PodName}})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// assigned are the addresses that the tests' scheduler chooses. The second VF is
// the lower address: the order is the assignment's, not the sorted one.
var assigned = map[string][]string{
	"kubevfio.io/gpu":    {"0000:41:00.0"},
	"kubevfio.io/igb-vf": {"0000:82:10.2", "0000:82:10.0"},
}

// bind plays the scheduler.
func bind(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	bindTo(t, pod, node)
}

func bindTo(t *testing.T, pod *corev1.Pod, node string) {
	t.Helper()
	a := v1alpha1.Assignment{
		Version: v1alpha1.AssignmentVersion, PodUID: string(pod.UID), Node: node, Alignment: "numa",
		Containers: map[string]map[string][]topology.Address{launcherpod.Container: {}},
	}
	for r, list := range assigned {
		for _, s := range list {
			addr, err := topology.ParseAddress(s)
			if err != nil {
				t.Fatal(err)
			}
			a.Containers[launcherpod.Container][r] = append(a.Containers[launcherpod.Container][r], addr)
		}
	}
	value, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	cfg := rest.CopyConfig(server.Config)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:kube-scheduler", Groups: []string{"system:masters"}}
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Annotations: map[string]string{v1alpha1.AssignmentAnnotation: value}},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	if err := c.CoreV1().Pods(pod.Namespace).Bind(t.Context(), b, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// report plays kubelet: it changes the status of a pod.
func report(t *testing.T, pod *corev1.Pod, change func(*corev1.PodStatus)) {
	t.Helper()
	eventually(t, "write the status of pod "+pod.Name, func(ctx context.Context) error {
		p, err := get(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}})
		if err != nil {
			return err
		}
		change(&p.Status)
		return server.Admin.Status().Update(ctx, p)
	})
}

func running(ready bool, given map[string][]string) func(*corev1.PodStatus) {
	return func(s *corev1.PodStatus) {
		s.Phase = corev1.PodRunning
		s.PodIP, s.PodIPs = "10.0.0.7", []corev1.PodIP{{IP: "10.0.0.7"}}
		c := corev1.ContainerStatus{
			Name: launcherpod.Container, Ready: ready, Started: new(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		}
		for r, ids := range given {
			status := corev1.ResourceStatus{Name: corev1.ResourceName(r)}
			for _, id := range ids {
				status.Resources = append(status.Resources, corev1.ResourceHealth{ResourceID: corev1.ResourceID(id), Health: corev1.ResourceHealthStatusHealthy})
			}
			c.AllocatedResourcesStatus = append(c.AllocatedResourcesStatus, status)
		}
		s.ContainerStatuses = []corev1.ContainerStatus{c}
	}
}

func terminated(code int32, reason, message string) func(*corev1.PodStatus) {
	return func(s *corev1.PodStatus) {
		s.Phase = corev1.PodFailed
		if code == 0 {
			s.Phase = corev1.PodSucceeded
		}
		s.ContainerStatuses = []corev1.ContainerStatus{{
			Name: launcherpod.Container,
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: code, Reason: reason, Message: message, FinishedAt: metav1.Now(),
			}},
		}}
	}
}

// kubeletDeletes plays kubelet's part of a deletion: the container ended, the pod
// object goes.
func kubeletDeletes(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	eventually(t, "pod "+pod.Name+" is being deleted", func(ctx context.Context) error {
		p, err := get(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}})
		if apierrors.IsNotFound(err) {
			return nil // it had no node yet: the API server deleted it at once
		}
		if err != nil {
			return err
		}
		if p.DeletionTimestamp.IsZero() {
			return fmt.Errorf("no deletion timestamp")
		}
		return client.IgnoreNotFound(server.Admin.Delete(ctx, p, client.GracePeriodSeconds(0)))
	})
}

// start brings a machine's guest to Running.
func start(t *testing.T, ns, name string) (*v1alpha1.VirtualMachineInstance, *corev1.Pod) {
	t.Helper()
	vmi := waitInstance(t, ns, name, "has a pod", func(v *v1alpha1.VirtualMachineInstance) bool { return v.Status.PodName != "" })
	pod := podOf(t, vmi)
	bind(t, pod)
	report(t, pod, running(true, assigned))
	vmi = waitInstance(t, ns, name, "runs", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.Status.Phase == v1alpha1.VMIRunning && conditionIs(v.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue)
	})
	return vmi, podOf(t, vmi)
}

func conditionIs(list []metav1.Condition, kind string, status metav1.ConditionStatus) bool {
	c := meta.FindStatusCondition(list, kind)
	return c != nil && c.Status == status
}

func contains(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}
