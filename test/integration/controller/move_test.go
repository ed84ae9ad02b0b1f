package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/app"
)

// webhookPort is where the controller of these tests serves its webhook. It is
// not one that the system gives to others.
const webhookPort = 19443

// fakeLaunchers plays the launchers of standby pods.
type fakeLaunchers struct {
	mu       sync.Mutex
	phase    map[string]launcherrpcv1.Phase
	released []string
}

func (f *fakeLaunchers) Phase(_ context.Context, pod *corev1.Pod) (launcherrpcv1.Phase, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p, ok := f.phase[pod.Name]; ok {
		return p, nil
	}
	return "", errors.New("no socket yet")
}

func (f *fakeLaunchers) Release(_ context.Context, pod *corev1.Pod) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase[pod.Name] = launcherrpcv1.PhaseStarting
	f.released = append(f.released, pod.Name)
	return nil
}

func (f *fakeLaunchers) set(pod string, p launcherrpcv1.Phase) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase[pod] = p
}

func (f *fakeLaunchers) wasReleased(pod string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.released {
		if r == pod {
			n++
		}
	}
	return n
}

// cordon sets spec.unschedulable until the test ends.
func cordon(t *testing.T, name string, off bool) {
	t.Helper()
	set := func(ctx context.Context, off bool) error {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := server.Admin.Get(ctx, client.ObjectKeyFromObject(n), n); err != nil {
			return err
		}
		n.Spec.Unschedulable = off
		return server.Admin.Update(ctx, n)
	}
	eventually(t, "cordon "+name, func(ctx context.Context) error { return set(ctx, off) })
	if off {
		t.Cleanup(func() {
			if err := set(context.WithoutCancel(t.Context()), false); err != nil {
				t.Error(err)
			}
		})
	}
}

// standby waits for the pod of a move.
func standby(t *testing.T, ns string, not ...string) *corev1.Pod {
	t.Helper()
	vmi := waitInstance(t, ns, "vm", "has a standby pod", func(v *v1alpha1.VirtualMachineInstance) bool {
		m := v.Status.Move
		return m != nil && m.Step == v1alpha1.MovePreparing && m.PodName != "" && !contains(strings.Join(not, " "), m.PodName)
	})
	pod, err := get(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: vmi.Status.Move.PodName}})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// holds brings a standby pod to hold its devices on the other node.
func holds(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	bindTo(t, pod, otherNode)
	report(t, pod, running(false, assigned))
	launchers.set(pod.Name, launcherrpcv1.PhaseStandby)
}

// A node is cordoned: a pod on the other node holds devices of the same kinds
// before the guest is shut down, and the guest starts there.
func TestColdMove(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	first, old := start(t, ns, "vm")
	cordon(t, node, true)
	next := standby(t, ns)
	if a := text(next.Spec.Affinity); !contains(a, "metadata.name", "NotIn", node) {
		t.Errorf("the standby pod does not avoid the node: %s", a)
	}
	if !contains(text(next.Spec.Containers[0].Env), launcherrpcv1.EnvStandby) {
		t.Errorf("the standby pod does not wait: %s", text(next.Spec.Containers[0].Env))
	}
	bindTo(t, next, otherNode)
	report(t, next, running(false, assigned))
	// Its launcher is not ready yet: the guest runs on.
	launchers.set(next.Name, launcherrpcv1.PhasePreparing)
	time.Sleep(time.Second)
	if p, err := get(t.Context(), old.DeepCopy()); err != nil || !p.DeletionTimestamp.IsZero() {
		t.Fatalf("the old pod is being deleted before the new one holds its devices (%v)", err)
	}
	launchers.set(next.Name, launcherrpcv1.PhaseStandby)
	waitMachine(t, ns, "vm", "is migrating", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.PrintableStatus == v1alpha1.VMMigrating && !vm.Status.Ready
	})
	eventually(t, "the guest is shut down in order", func(ctx context.Context) error {
		p, err := get(ctx, old.DeepCopy())
		if err != nil {
			return err
		}
		if g := p.DeletionGracePeriodSeconds; g == nil || *g != 35 {
			return fmt.Errorf("grace period %v", g)
		}
		return nil
	})
	// It takes its time; the new one waits.
	time.Sleep(time.Second)
	if n := launchers.wasReleased(next.Name); n != 0 {
		t.Fatal("two guests would run: released before the old pod is gone")
	}
	kubeletDeletes(t, old)
	eventually(t, "the standby launcher is released", func(context.Context) error {
		if n := launchers.wasReleased(next.Name); n != 1 {
			return fmt.Errorf("released %d times", n)
		}
		return nil
	})
	report(t, next, running(true, assigned))
	vmi := waitInstance(t, ns, "vm", "runs on the other node", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.Status.Phase == v1alpha1.VMIRunning && v.Status.NodeName == otherNode && v.Status.Move.Step == v1alpha1.MoveDone
	})
	if vmi.UID != first.UID {
		t.Error("it is another instance")
	}
	m := vmi.Status.Move
	if m.From != node || m.To != otherNode || m.StoppedAt == nil || m.RunningAt == nil {
		t.Errorf("move %s", text(m))
	}
	for i, d := range vmi.Status.Devices {
		if d.Node != otherNode || d.Resource != first.Status.Devices[i].Resource || d.Address == "" {
			t.Errorf("device %s", text(d))
		}
	}
	if vmi.Status.EvacuationNodeName != "" || conditionIs(vmi.Status.Conditions, v1alpha1.ConditionEvictionRequested, metav1.ConditionTrue) {
		t.Errorf("the eviction is still asked for: %s", text(vmi.Status))
	}
	vm := waitMachine(t, ns, "vm", "runs", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.PrintableStatus == v1alpha1.VMRunning && vm.Status.NodeName == otherNode
	})
	if vm.Status.StartFailure != nil {
		t.Errorf("the move counts as a failure: %s", text(vm.Status.StartFailure))
	}
}

// The node is in use again before another was found: nothing happened to the guest.
func TestMoveCancelled(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	_, old := start(t, ns, "vm")
	cordon(t, node, true)
	next := standby(t, ns)
	report(t, next, func(s *corev1.PodStatus) {
		s.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/2 nodes have room"}}
	})
	waitInstance(t, ns, "vm", "says what the move waits for", func(v *v1alpha1.VirtualMachineInstance) bool {
		return contains(v.Status.Move.Message, "0/2 nodes have room")
	})
	cordon(t, node, false)
	waitGone(t, next)
	vmi := waitInstance(t, ns, "vm", "stays", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.Status.Move.Step == v1alpha1.MoveCancelled && v.Status.Phase == v1alpha1.VMIRunning && v.Status.EvacuationNodeName == ""
	})
	if vmi.Status.PodUID != old.UID {
		t.Error("the guest has another pod")
	}
	// And a later move takes another name.
	cordon(t, node, true)
	if again := standby(t, ns); again.Name == next.Name {
		t.Error("the second standby pod has the first one's name")
	}
}

// Kubelet of the other node refuses the standby pod: another one is made.
func TestStandbyRefused(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	_, old := start(t, ns, "vm")
	cordon(t, node, true)
	next := standby(t, ns)
	bindTo(t, next, otherNode)
	report(t, next, func(s *corev1.PodStatus) { s.Phase, s.Reason = corev1.PodFailed, "UnexpectedAdmissionError" })
	kubeletDeletes(t, next)
	another := standby(t, ns, next.Name)
	if a := text(another.Spec.Affinity); !contains(a, node, otherNode) {
		t.Errorf("it does not avoid the node that refused: %s", a)
	}
	waitGone(t, next)
	if p, err := get(t.Context(), old.DeepCopy()); err != nil || !p.DeletionTimestamp.IsZero() {
		t.Errorf("the guest was touched (%v)", err)
	}
}

// The guest ends by itself while a standby pod waits: that pod must not stay.
func TestGuestEndsDuringMove(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunOnce)
	_, old := start(t, ns, "vm")
	cordon(t, node, true)
	next := standby(t, ns)
	report(t, old, terminated(0, "Completed", text(launcherrpcv1.Outcome{Reason: launcherrpcv1.ReasonGuestShutdown})))
	waitInstance(t, ns, "vm", "succeeded", func(v *v1alpha1.VirtualMachineInstance) bool { return v.Status.Phase == v1alpha1.VMISucceeded })
	waitGone(t, next)
}

// A machine is deleted in the middle of a move: neither pod outlives it.
func TestDeletedDuringMove(t *testing.T) {
	ns := newNamespace(t)
	vm := newMachine(t, ns, "vm", v1alpha1.RunAlways)
	vmi, old := start(t, ns, "vm")
	cordon(t, node, true)
	next := standby(t, ns)
	holds(t, next)
	if err := server.Admin.Delete(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	kubeletDeletes(t, old)
	kubeletDeletes(t, next)
	waitGone(t, vmi)
	waitGone(t, vm)
	var pods corev1.PodList
	if err := server.Admin.List(t.Context(), &pods, client.InNamespace(ns)); err != nil || len(pods.Items) != 0 {
		t.Errorf("%d pods are left (%v)", len(pods.Items), err)
	}
}

// Strategy None: the guest stays until its pod is evicted.
func TestEvictionStrategyNone(t *testing.T) {
	ns := newNamespace(t)
	vm := newMachine(t, ns, "vm", v1alpha1.RunHalted)
	change(t, ns, "vm", func(vm *v1alpha1.VirtualMachine) {
		vm.Spec.Template.Spec.EvictionStrategy = v1alpha1.EvictionNone
		vm.Spec.RunStrategy = v1alpha1.RunRerunOnFailure
	})
	first, pod := start(t, ns, vm.Name)
	cordon(t, node, true)
	time.Sleep(time.Second)
	if v := waitInstance(t, ns, "vm", "is there", func(*v1alpha1.VirtualMachineInstance) bool { return true }); v.Status.Move != nil {
		t.Fatalf("a move began: %s", text(v.Status.Move))
	}
	webhook(t)
	if err := evict(t.Context(), pod); err != nil {
		t.Fatalf("the eviction is refused: %v", err)
	}
	// Its guest shuts down in order; that is not the end that the strategy means.
	report(t, pod, terminated(0, "Completed", text(launcherrpcv1.Outcome{Reason: launcherrpcv1.ReasonGuestShutdown})))
	waitMachine(t, ns, "vm", "counts the eviction", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.LastOutcome != nil && vm.Status.LastOutcome.Reason == "Evicted"
	})
	kubeletDeletes(t, pod)
	waitInstance(t, ns, "vm", "is another", func(v *v1alpha1.VirtualMachineInstance) bool { return v.UID != first.UID })
}

func evict(ctx context.Context, pod *corev1.Pod) error {
	return server.Admin.SubResource("eviction").Create(ctx, pod.DeepCopy(), &policyv1.Eviction{})
}

// webhook points the shipped webhook configuration at this process.
func webhook(t *testing.T) {
	t.Helper()
	eventually(t, "the webhook is trusted", func(ctx context.Context) error {
		c, err := get(ctx, &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "kubevfio-evictions"}})
		if err != nil {
			return err
		}
		w := &c.Webhooks[0]
		if len(w.ClientConfig.CABundle) == 0 {
			return errors.New("no caBundle yet")
		}
		if w.ClientConfig.Service != nil {
			url := fmt.Sprintf("https://localhost:%d%s", webhookPort, *w.ClientConfig.Service.Path)
			// A slow machine must not make the API server give up on the answer.
			w.ClientConfig.Service, w.ClientConfig.URL, w.TimeoutSeconds = nil, &url, new(int32(30))
			return server.Admin.Update(ctx, c)
		}
		return nil
	})
}

// An eviction waits for the move, but not for ever.
func TestEvictionWaitsForTheMove(t *testing.T) {
	webhook(t)
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	_, old := start(t, ns, "vm")
	eventually(t, "the eviction is put off", func(ctx context.Context) error {
		// In a dry run, until the API server has read the configuration.
		err := server.Admin.SubResource("eviction").Create(ctx, old.DeepCopy(), &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}})
		if !apierrors.IsTooManyRequests(err) || !contains(err.Error(), ns+"/vm", "is being moved") {
			return fmt.Errorf("answer: %w", err)
		}
		return nil
	})
	if err := evict(t.Context(), old); !apierrors.IsTooManyRequests(err) {
		t.Fatalf("eviction: %v", err)
	}
	standby(t, ns)
	vmi := waitInstance(t, ns, "vm", "knows why", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.Status.EvacuationNodeName == node && conditionIs(v.Status.Conditions, v1alpha1.ConditionEvictionRequested, metav1.ConditionTrue)
	})
	if vmi.Status.PodUID != old.UID {
		t.Error("the guest has another pod")
	}
	// A pod that is not a launcher's has nothing to wait for.
	other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "other-0123456789"}, Spec: *podOf(t, vmi).Spec.DeepCopy()}
	other.Spec.NodeName = ""
	if err := server.Admin.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if err := evict(t.Context(), other); err != nil {
		t.Errorf("another pod: %v", err)
	}
	// No node is found: after the patience of these tests the pod goes.
	eventually(t, "the eviction is let go", func(ctx context.Context) error { return evict(ctx, old) })
	kubeletDeletes(t, old)
	waitMachine(t, ns, "vm", "counts a failure", func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.LastOutcome != nil
	})
}

// The controller is killed in the middle of a move, and while a guest runs; the
// next one takes up what it finds.
func TestControllerRestarts(t *testing.T) {
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	vmi, old := start(t, ns, "vm")
	restart := func(meanwhile func()) {
		t.Helper()
		stop()
		meanwhile()
		var err error
		if stop, err = startController(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	// A guest runs; a status written meanwhile is seen.
	restart(func() { report(t, old, running(false, assigned)) })
	waitInstance(t, ns, "vm", "is adopted", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.UID == vmi.UID && v.Status.PodUID == old.UID && conditionIs(v.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionFalse)
	})
	report(t, old, running(true, assigned))

	cordon(t, node, true)
	next := standby(t, ns)
	restart(func() { holds(t, next) })
	waitInstance(t, ns, "vm", "is stopping", func(v *v1alpha1.VirtualMachineInstance) bool { return v.Status.Move.Step == v1alpha1.MoveStopping })
	eventually(t, "the old pod is being deleted", func(ctx context.Context) error {
		p, err := get(ctx, old.DeepCopy())
		if err == nil && p.DeletionTimestamp.IsZero() {
			err = errors.New("no deletion timestamp")
		}
		return err
	})
	restart(func() { kubeletDeletes(t, old) })
	eventually(t, "the standby launcher is released", func(context.Context) error {
		if n := launchers.wasReleased(next.Name); n != 1 {
			return fmt.Errorf("released %d times", n)
		}
		return nil
	})
	restart(func() { report(t, next, running(true, assigned)) })
	after := waitInstance(t, ns, "vm", "runs there", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.Status.Move.Step == v1alpha1.MoveDone && v.Status.NodeName == otherNode
	})
	if after.UID != vmi.UID || after.Status.PodUID != next.UID {
		t.Errorf("instance %s pod %s; want %s %s", after.UID, after.Status.PodUID, vmi.UID, next.UID)
	}
	var pods corev1.PodList
	if err := server.Admin.List(t.Context(), &pods, client.InNamespace(ns)); err != nil || len(pods.Items) != 1 {
		t.Errorf("%d pods, want the one (%v)", len(pods.Items), err)
	}
}

// Of two replicas one acts; when it ends the other takes over and goes on with what
// it finds.
func TestLeaderElection(t *testing.T) {
	stop()
	defer func() {
		var err error
		if stop, err = startController(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}()
	replica := func() func() {
		t.Helper()
		end, err := startController(context.WithoutCancel(t.Context()), func(o *app.Options) {
			o.LeaderElection, o.WebhookPort, o.APIAddress, o.MetricsAddress = true, 0, app.Off, app.Off
		})
		if err != nil {
			t.Fatal(err)
		}
		return end
	}
	first := replica()
	ns := newNamespace(t)
	newMachine(t, ns, "vm", v1alpha1.RunAlways)
	vmi, pod := start(t, ns, "vm")
	second := replica()
	defer second()
	lease := func() string {
		t.Helper()
		var l coordinationv1.Lease
		if err := server.Admin.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "kubevfio-controller"}, &l); err != nil {
			t.Fatal(err)
		}
		if l.Spec.HolderIdentity == nil {
			return ""
		}
		return *l.Spec.HolderIdentity
	}
	leader := lease()
	first()
	report(t, pod, running(false, assigned))
	waitInstance(t, ns, "vm", "is seen by the next leader", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.UID == vmi.UID && conditionIs(v.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionFalse)
	})
	if now := lease(); now == "" || now == leader {
		t.Errorf("the lease is held by %q, before by %q", now, leader)
	}
	var pods corev1.PodList
	if err := server.Admin.List(t.Context(), &pods, client.InNamespace(ns)); err != nil || len(pods.Items) != 1 {
		t.Errorf("%d pods, want the one (%v)", len(pods.Items), err)
	}
}
