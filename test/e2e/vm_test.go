package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/scenario"
)

// examplePod reads a pod of the examples under another name, optionally changed.
func examplePod(t *testing.T, file, name string, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(lab.Config().Checkout, "manifests/examples", file))
	if err != nil {
		t.Fatal(err)
	}
	var p corev1.Pod
	if err := yaml.UnmarshalStrict(b, &p); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	p.Name, p.Namespace = name, namespace
	if change != nil {
		change(&p)
	}
	return &p
}

// create makes a pod and deletes it when the test ends.
func create(t *testing.T, p *corev1.Pod) {
	t.Helper()
	if _, err := env.Core.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create pod %s: %v", p.Name, err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if t.Failed() {
			dump(t, p.Name)
		}
		remove(ctx, t, p.Name)
	})
}

// remove deletes a pod and waits until it is gone.
func remove(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	_ = env.Core.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err := env.WaitGone(ctx, 2*time.Minute, namespace, name); err != nil {
		t.Error(err)
	}
}

// dump logs what a failing pod said.
func dump(t *testing.T, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	if p, err := env.Pod(ctx, namespace, name); err == nil {
		t.Logf("%s: %s; annotations %v", name, scenario.Describe(p), p.Annotations[v1alpha1.AssignmentAnnotation])
	}
	for _, args := range [][]string{
		{"-n", namespace, "logs", name, "--tail=60"},
		{"-n", namespace, "get", "events", "--field-selector=involvedObject.name=" + name, "-o=custom-columns=REASON:.reason,MESSAGE:.message"},
	} {
		out, err := env.Run(ctx, args...)
		t.Logf("kubectl %s (%v):\n%s", strings.Join(args, " "), err, out)
	}
}

// pingArgs points a VM pod's guest at an address and a peer.
func pingArgs(ip, peer, mac string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		vm := p.Annotations[v1alpha1.VMAnnotation]
		lines := strings.Split(vm, "\n")
		for i, l := range lines {
			switch {
			case strings.Contains(l, "kernelArgs:"):
				indent := l[:strings.Index(l, "kernelArgs:")]
				args := "console=ttyS0 quiet tsc=reliable no_timer_check kubevfio.ip=" + ip + "/24"
				if peer != "" {
					args += " kubevfio.ping=" + peer
				}
				lines[i] = indent + "kernelArgs: " + args
			case strings.Contains(l, "macAddress:"):
				lines[i] = l[:strings.Index(l, "macAddress:")] + "macAddress: " + mac
			}
		}
		p.Annotations[v1alpha1.VMAnnotation] = strings.Join(lines, "\n")
	}
}

func onNode(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": node}
	}
}

func both(changes ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, c := range changes {
			c(p)
		}
	}
}

// console waits for a state of a guest.
func console(t *testing.T, name, what string, limit time.Duration, done func(*scenario.Guest) bool) *scenario.Guest {
	t.Helper()
	g, err := env.Console(t.Context(), limit, namespace, name, what, done)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func running(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	p, err := env.WaitPhase(t.Context(), 2*time.Minute, namespace, name, corev1.PodRunning)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func atLeast(n int) func(*scenario.Guest) bool {
	return func(g *scenario.Guest) bool { return g.PingReceived >= n }
}

// TestMainJob is what the project is for, and then what may happen to it while
// the two guests run.
func TestMainJob(t *testing.T) {
	node := firstNode(t)
	create(t, examplePod(t, "two-vms/vm-a.yaml", "vm-a", onNode(node)))
	create(t, examplePod(t, "two-vms/vm-b.yaml", "vm-b", onNode(node)))
	for _, n := range []string{"vm-a", "vm-b"} {
		running(t, n)
	}
	holders := map[string]string{}
	reports := map[string]*scenario.VM{}
	for _, n := range []string{"vm-a", "vm-b"} {
		g := console(t, n, "answers to 3 pings over the virtual function", 5*time.Minute, atLeast(3))
		v, err := env.Report(t.Context(), lab, namespace, n, vfID, g)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v", n, *v)
		reports[n] = v
		for _, a := range v.Assigned {
			if holders[a] != "" {
				t.Errorf("%s is in %s and in %s", a, holders[a], n)
			}
			holders[a] = n
		}
		if !strings.HasPrefix(g.Passt, "ok") && !strings.Contains(g.Passt, "reply") && g.Passt == "" {
			t.Errorf("%s: nothing heard of the passt network card", n)
		}
		// The guest's NUMA node of the device exists: its guest has one cell.
		if slices.Contains(v.GuestNUMA, -1) {
			t.Errorf("%s: the guest does not know the device's NUMA node: %v", n, v.GuestNUMA)
		}
	}

	t.Run("streams", func(t *testing.T) { streams(t, node, "vm-a") })
	t.Run("supervisor killed", func(t *testing.T) {
		p, err := env.Pod(t.Context(), namespace, "vm-a")
		if err != nil {
			t.Fatal(err)
		}
		before := pids(t, node, p, "supervise")
		if len(before) != 1 {
			t.Fatalf("want one supervisor process, found %v", before)
		}
		qemu := pids(t, node, p, "qemu-system")
		if len(qemu) == 0 {
			t.Fatal("no QEMU process of the pod")
		}
		if _, err := scenario.NodeOutput(t.Context(), lab, node, "kill", "-9", before[0]); err != nil {
			t.Fatal(err)
		}
		if err := scenario.Poll(t.Context(), time.Minute, "a new supervisor", func(context.Context) (bool, string, error) {
			after := pids(t, node, p, "supervise")
			return len(after) == 1 && after[0] != before[0], fmt.Sprintf("supervisors %v, before %v", after, before), nil
		}); err != nil {
			t.Fatal(err)
		}
		if after := pids(t, node, p, "qemu-system"); !slices.Equal(qemu, after) {
			t.Errorf("QEMU processes were %v, are %v: the guest did not run on", qemu, after)
		}
		n := console(t, "vm-a", "pings", time.Minute, atLeast(1)).PingReceived
		console(t, "vm-a", "more pings after the supervisor's death", time.Minute, atLeast(n+3))
	})
	t.Run("agent killed", func(t *testing.T) {
		n := console(t, "vm-a", "pings", time.Minute, atLeast(1)).PingReceived
		since := nodeTime(t, node)
		if out, err := scenario.NodeOutput(t.Context(), lab, node, "sh", "-c", `kill -9 $(pgrep -f '^/kubevfio-agent run') && echo killed`); err != nil || !strings.Contains(out, "killed") {
			t.Fatalf("kill the agent: %v: %s", err, out)
		}
		offeredAgain(t, node, since)
		thirdVM(t, node, "vm-c")
		console(t, "vm-a", "pings go on", time.Minute, atLeast(n+3))
	})
	t.Run("kubelet restarted", func(t *testing.T) {
		n := console(t, "vm-a", "pings", time.Minute, atLeast(1)).PingReceived
		since := nodeTime(t, node)
		if err := lab.RestartKubelet(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		offeredAgain(t, node, since)
		thirdVM(t, node, "vm-d")
		console(t, "vm-a", "pings go on", 2*time.Minute, atLeast(n+3))
		for _, name := range []string{"vm-a", "vm-b"} {
			p, err := env.Pod(t.Context(), namespace, name)
			if err != nil {
				t.Fatal(err)
			}
			if got := scenario.Allocated(p); !slices.Equal(got, reports[name].Allocated) {
				t.Errorf("%s: allocated %v before, %v after kubelet's restart", name, reports[name].Allocated, got)
			}
		}
	})
	t.Run("deleted and reused", func(t *testing.T) {
		code := deleteAndWatch(t, "vm-b")
		if code != v1alpha1.ExitGuestShutdown {
			t.Errorf("vm-b's launcher ended with exit code %d after SIGTERM, want %d", code, v1alpha1.ExitGuestShutdown)
		}
		// The scheduler keeps a unit back until the node has reported that no pod holds it any more, which is a matter of
		// a second unless the machine is very busy.
		freed, since := reports["vm-b"].Assigned, time.Now()
		if err := env.WaitReleased(t.Context(), time.Minute, node, freed); err != nil {
			t.Fatal(err)
		}
		t.Logf("the node reported %v free %.1f s after the pod was gone", freed, time.Since(since).Seconds())
		if got := thirdVM(t, node, "vm-e"); !slices.Equal(got, freed) {
			t.Errorf("vm-e got %v; vm-b's %v had become free", got, freed)
		}
	})
}

// thirdVM runs one more VM to its userspace, removes it, and returns its devices.
func thirdVM(t *testing.T, node, name string) []string {
	t.Helper()
	create(t, examplePod(t, "two-vms/vm-b.yaml", name, both(onNode(node), pingArgs("10.9.0.9", "10.9.0.1", "02:00:00:0a:09:09"))))
	running(t, name)
	g := console(t, name, "answers to 2 pings", 5*time.Minute, atLeast(2))
	v, err := env.Report(t.Context(), lab, namespace, name, vfID, g)
	if err != nil {
		t.Fatal(err)
	}
	remove(t.Context(), t, name)
	return v.Assigned
}

// nodeTime is the node's clock in seconds.
func nodeTime(t *testing.T, node string) string {
	t.Helper()
	out, err := scenario.NodeOutput(t.Context(), lab, node, "date", "+%s")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// offeredAgain waits until the node's device plugins have registered again after a time of the node's clock and all nodes
// offer their hardware. Until then kubelet refuses pods with devices, finally: the API's figures lag behind by a node status,
// so they alone do not tell.
func offeredAgain(t *testing.T, node, since string) {
	t.Helper()
	const plugins = 5 // of the lab's pools
	err := scenario.Poll(t.Context(), 2*time.Minute, "device plugins registered anew", func(ctx context.Context) (bool, string, error) {
		out, err := scenario.NodeOutput(ctx, lab, node, "sh", "-c",
			"find /var/lib/kubelet/device-plugins -name 'kvfio-*.sock' -newermt @"+since+" | wc -l")
		return strings.TrimSpace(out) == strconv.Itoa(plugins), out + " new sockets", err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Registration is followed by the device lists within a second or two; a
	// node status that knows them is posted after that.
	if err := env.WaitHeartbeat(t.Context(), time.Minute, node); err != nil {
		t.Fatal(err)
	}
	if err := env.WaitOffered(t.Context(), 2*time.Minute, map[string]int64{vfResource: 2, v1alpha1.ResourceKVM: 2}); err != nil {
		t.Fatal(err)
	}
}

// pids returns the processes of a pod on its node whose command line has a word.
func pids(t *testing.T, node string, p *corev1.Pod, word string) []string {
	t.Helper()
	uid := string(p.UID)
	out, err := scenario.NodeOutput(t.Context(), lab, node, "sh", "-c", fmt.Sprintf(
		`for d in /proc/[0-9]*; do tr '\0' ' ' <$d/cmdline 2>/dev/null | grep -q -- '%s' && grep -qE '%s|%s' $d/cgroup 2>/dev/null && echo ${d#/proc/}; done; true`,
		word, uid, strings.ReplaceAll(uid, "-", "_")))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(out)
}

// deleteAndWatch deletes a pod and returns its container's exit code.
func deleteAndWatch(t *testing.T, name string) int32 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w, err := env.Core.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if err := env.Core.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	code := int32(-1)
	for e := range w.ResultChan() {
		p, ok := e.Object.(*corev1.Pod)
		if !ok {
			continue
		}
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Terminated != nil {
				code = c.State.Terminated.ExitCode
				t.Logf("%s ended: %s", name, scenario.Describe(p))
			}
		}
		if e.Type == watch.Deleted {
			return code
		}
	}
	t.Fatalf("pod %s is not gone after 2 minutes", name)
	return code
}

func firstNode(t *testing.T) string {
	t.Helper()
	nodes, err := env.Core.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) == 0 {
		t.Fatalf("nodes: %v (%d)", err, len(nodes.Items))
	}
	return nodes.Items[0].Name
}
