package machines

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/scenario"
)

// bootLimit is how long a guest may take from its object to its first report;
// everything is emulated.
const bootLimit = 6 * time.Minute

// exampleVM reads the example machine under another name and with a MAC address
// of its own.
func exampleVM(t *testing.T, ns, name, mac string) *v1alpha1.VirtualMachine {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(lab.Config().Checkout, "manifests/examples/virtual-machine/vm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var vm v1alpha1.VirtualMachine
	if err := yaml.UnmarshalStrict(b, &vm); err != nil {
		t.Fatal(err)
	}
	vm.Name, vm.Namespace = name, ns
	vm.Spec.Template.Spec.Domain.Devices.Interfaces[0].MacAddress = mac
	return &vm
}

// createVM makes a machine and deletes it when the test ends.
func createVM(t *testing.T, vm *v1alpha1.VirtualMachine) {
	t.Helper()
	if err := env.Objects.Create(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
		defer cancel()
		if t.Failed() {
			describeVM(ctx, t, vm.Namespace, vm.Name)
		}
		if err := env.Objects.Delete(ctx, vm); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
		err := scenario.Poll(ctx, 3*time.Minute, "machine "+vm.Name+" gone", func(ctx context.Context) (bool, string, error) {
			err := env.Objects.Get(ctx, client.ObjectKeyFromObject(vm), &v1alpha1.VirtualMachine{})
			return apierrors.IsNotFound(err), "it is there", client.IgnoreNotFound(err)
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// describeVM logs what a person would look at.
func describeVM(ctx context.Context, t *testing.T, ns, name string) {
	for _, args := range [][]string{
		{"-n", ns, "get", "kvm,kvmi,pods", "-o", "wide"},
		{"-n", ns, "get", "kvmi", name, "-o", "yaml"},
		{"-n", ns, "get", "events", "--sort-by=.metadata.creationTimestamp", "-o=custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message"},
		{"-n", v1alpha1.SystemNamespace, "logs", "deployment/kubevfio-controller", "--all-pods", "--tail=60"},
	} {
		out, err := env.Run(ctx, args...)
		t.Logf("kubectl %s (%v):\n%s", strings.Join(args, " "), err, out)
	}
}

// waitVMI waits for an instance that accept takes.
func waitVMI(t *testing.T, limit time.Duration, ns, name, what string, accept func(*v1alpha1.VirtualMachineInstance) bool) *v1alpha1.VirtualMachineInstance {
	t.Helper()
	vmi := &v1alpha1.VirtualMachineInstance{}
	err := scenario.Poll(t.Context(), limit, name+" "+what, func(ctx context.Context) (bool, string, error) {
		vmi = &v1alpha1.VirtualMachineInstance{}
		err := env.Objects.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, vmi)
		if apierrors.IsNotFound(err) {
			return false, "there is no instance", nil
		}
		s := &vmi.Status
		return err == nil && accept(vmi), fmt.Sprintf("phase %s on %q, pod %s, move %+v, %s: %s", s.Phase, s.NodeName, s.PodName, s.Move, s.Reason, s.Message), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return vmi
}

// up waits until the guest runs and its userspace has reported on the console.
func up(t *testing.T, ns, name string) *v1alpha1.VirtualMachineInstance {
	t.Helper()
	vmi := waitVMI(t, bootLimit, ns, name, "runs", ready)
	guestUp(t, vmi)
	return vmi
}

func ready(v *v1alpha1.VirtualMachineInstance) bool {
	for _, c := range v.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady && c.Status == metav1.ConditionTrue {
			return v.Status.Phase == v1alpha1.VMIRunning && v.DeletionTimestamp.IsZero()
		}
	}
	return false
}

func guestUp(t *testing.T, vmi *v1alpha1.VirtualMachineInstance) {
	t.Helper()
	if _, err := env.Console(t.Context(), bootLimit, vmi.Namespace, vmi.Status.PodName, "has booted", func(g *scenario.Guest) bool { return g.Ready }); err != nil {
		t.Fatal(err)
	}
}

// qemus counts the QEMU processes of all nodes.
func qemus(t *testing.T) int {
	t.Helper()
	nodes, err := env.Core.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, node := range nodes.Items {
		out, err := scenario.NodeOutput(t.Context(), lab, node.Name, "sh", "-c", "pgrep -f '^[^ ]*qemu-system' | wc -l")
		if err != nil {
			t.Fatal(err)
		}
		var here int
		if _, err := fmt.Sscan(out, &here); err != nil {
			t.Fatalf("pgrep on %s said %q", node.Name, out)
		}
		n += here
	}
	return n
}

// TestDrain empties the node under a running guest with plain kubectl: a pod on
// the other node takes equivalent devices first, then the guest moves.
func TestDrain(t *testing.T) {
	createVM(t, exampleVM(t, namespace, "drained", "02:00:00:0a:09:41"))
	before := up(t, namespace, "drained")
	from := before.Status.NodeName
	t.Logf("runs on %s with %+v", from, before.Status.DeviceSummary)

	t.Cleanup(func() {
		if _, err := env.Run(context.WithoutCancel(t.Context()), "uncordon", from); err != nil {
			t.Error(err)
		}
	})
	drained := make(chan error, 1)
	start := time.Now()
	go func() {
		out, err := env.Run(t.Context(), "drain", from, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=8m")
		t.Logf("kubectl drain after %s:\n%s", time.Since(start).Round(time.Second), out)
		drained <- err
	}()
	after := waitVMI(t, 10*time.Minute, namespace, "drained", "runs on another node", func(v *v1alpha1.VirtualMachineInstance) bool {
		return ready(v) && v.Status.NodeName != from
	})
	if err := <-drained; err != nil {
		t.Errorf("the drain: %v", err)
	}
	guestUp(t, after)
	m := after.Status.Move
	switch {
	case after.UID != before.UID:
		t.Errorf("the guest was lost and another instance started: a standby pod should have taken over")
	case m == nil || m.Step != v1alpha1.MoveDone || m.From != from || m.To != after.Status.NodeName:
		t.Errorf("move %+v", m)
	default:
		t.Logf("held devices on %s before the guest stopped; stopped %s after the drain began, ran again %s later",
			m.To, m.StoppedAt.Sub(start).Round(time.Second), m.RunningAt.Sub(m.StoppedAt.Time))
	}
	if len(after.Status.Devices) != len(before.Status.Devices) {
		t.Fatalf("devices before %+v, after %+v", before.Status.Devices, after.Status.Devices)
	}
	for i, d := range after.Status.Devices {
		was := before.Status.Devices[i]
		if d.Name != was.Name || d.Resource != was.Resource || d.Product != was.Product || d.Node != after.Status.NodeName || d.Address == "" || d.Problem != "" {
			t.Errorf("device %+v, before %+v", d, was)
		}
	}
}

// TestControllerKilled kills the controller under a running guest: the guest runs
// on, and the next controller goes on with it.
func TestControllerKilled(t *testing.T) {
	vm := exampleVM(t, namespace, "kept", "02:00:00:0a:09:42")
	createVM(t, vm)
	before := up(t, namespace, "kept")
	running := qemus(t)
	if _, err := env.Run(t.Context(), "-n", v1alpha1.SystemNamespace, "delete", "pods", "-l", "app.kubernetes.io/name=kubevfio-controller", "--grace-period=0", "--force"); err != nil {
		t.Fatal(err)
	}
	// Meanwhile its machine is to be stopped.
	if _, err := env.Run(t.Context(), "-n", namespace, "patch", "kvm", "kept", "--type=merge", "-p", `{"spec":{"runStrategy":"Halted"}}`); err != nil {
		t.Fatal(err)
	}
	if now := qemus(t); now != running {
		t.Errorf("%d QEMU processes, before %d: the controller's death ended a guest", now, running)
	}
	err := scenario.Poll(t.Context(), 5*time.Minute, "the next controller stops the guest", func(ctx context.Context) (bool, string, error) {
		var now v1alpha1.VirtualMachine
		if err := env.Objects.Get(ctx, client.ObjectKeyFromObject(vm), &now); err != nil {
			return false, "", err
		}
		return now.Status.PrintableStatus == v1alpha1.VMStopped, now.Status.PrintableStatus, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := env.WaitGone(t.Context(), time.Minute, namespace, before.Status.PodName); err != nil {
		t.Error(err)
	}
}

// TestPodDeleted deletes the pod under a running guest: the guest is shut down in
// order and the machine starts another.
func TestPodDeleted(t *testing.T) {
	createVM(t, exampleVM(t, namespace, "restarted", "02:00:00:0a:09:43"))
	before := up(t, namespace, "restarted")
	if _, err := env.Run(t.Context(), "-n", namespace, "delete", "pod", before.Status.PodName, "--timeout=3m"); err != nil {
		t.Fatal(err)
	}
	after := waitVMI(t, bootLimit, namespace, "restarted", "runs again", func(v *v1alpha1.VirtualMachineInstance) bool {
		return v.UID != before.UID && ready(v)
	})
	if after.Status.DeviceSummary == nil || after.Status.DeviceSummary.Devices != "1/1" {
		t.Errorf("devices %+v", after.Status.DeviceSummary)
	}
	var vm v1alpha1.VirtualMachine
	if err := env.Objects.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "restarted"}, &vm); err != nil {
		t.Fatal(err)
	}
	if o := vm.Status.LastOutcome; o == nil || o.Reason != "PodDeleted" {
		t.Errorf("last outcome %+v", o)
	}
}

// TestNamespaceDeleted deletes a namespace with a running guest: everything goes,
// no guest is left and its devices are free.
func TestNamespaceDeleted(t *testing.T) {
	running := qemus(t)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "short-lived", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if err := env.Objects.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	if err := env.Objects.Create(t.Context(), exampleVM(t, ns.Name, "goes", "02:00:00:0a:09:44")); err != nil {
		t.Fatal(err)
	}
	vmi := up(t, ns.Name, "goes")
	if _, err := env.Run(t.Context(), "delete", "namespace", ns.Name, "--timeout=4m"); err != nil {
		describeVM(t.Context(), t, ns.Name, "goes")
		t.Fatal(err)
	}
	if now := qemus(t); now != running {
		t.Errorf("%d QEMU processes, before %d: a guest outlived its namespace", now, running)
	}
	if err := env.WaitReleased(t.Context(), time.Minute, vmi.Status.NodeName, []string{vmi.Status.Devices[0].Address}); err != nil {
		t.Error(err)
	}
}
