package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/scenario"
)

const killAgent = `kill -9 $(pgrep -f '^/kubevfio-agent run') && echo killed`

// agentStarted waits for an agent process that is younger than the call, and returns
// when it was first seen.
func agentStarted(t *testing.T, before string) time.Time {
	t.Helper()
	err := scenario.Poll(t.Context(), 3*time.Minute, "a new agent", func(ctx context.Context) (bool, string, error) {
		out, err := scenario.NodeOutput(ctx, lab, node(), "sh", "-c", "pgrep -f '^/kubevfio-agent run' || true")
		now := strings.TrimSpace(out)
		return now != "" && now != before, "agents " + now + ", before " + before, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

// TestAgentCrashInAllocate kills the agent again and again while pods are admitted.
// Each pod comes to run with exactly its devices or is refused; the capacity is right
// within ten seconds of the agent's last start.
func TestAgentCrashInAllocate(t *testing.T) {
	before := offered(t, vfResource)
	// Kubelet waits longer before each restart: 0, 10, 20, 40 s.
	const pods = 4
	refused, last := 0, ""
	for i := range pods {
		name := fmt.Sprintf("crash-%d", i)
		create(t, holder(name, map[string]string{vfResource: "1"}, func(h *scenario.Holder) { h.CPU = "900m" }))
		// The moment is another one each time: binding, Allocate, PreStartContainer.
		time.Sleep(time.Duration(i) * 150 * time.Millisecond)
		last = onNode(t, "pgrep -f '^/kubevfio-agent run' || true")
		if last != "" {
			if out := onNode(t, killAgent); out != "killed" {
				t.Fatalf("kill the agent: %s", out)
			}
		}
		ended := time.Now()
		if got := settled(t, name); got {
			runs(t, name)
		} else {
			refused++
		}
		t.Logf("%s settled %.1f s after the agent's death", name, time.Since(ended).Seconds())
		remove(t.Context(), t, name)
	}
	if refused == pods {
		t.Error("every pod was refused")
	}
	t.Logf("%d pods, the agent killed for each; %d were refused", pods, refused)
	agentStarted(t, last)
	took := capacity(t, time.Minute, vfResource, before)
	t.Logf("capacity right %.1f s after the agent was seen again", took.Seconds())
	if took > capacityLimit {
		t.Errorf("capacity was right only %.1f s after the agent's start", took.Seconds())
	}
}

// settled waits until a pod runs (true) or was refused (false).
func settled(t *testing.T, name string) (ran bool) {
	t.Helper()
	err := scenario.Poll(t.Context(), 3*time.Minute, name+" runs or is refused", func(ctx context.Context) (bool, string, error) {
		p, err := env.Pod(ctx, namespace, name)
		if err != nil {
			return false, "", err
		}
		ran = p.Status.Phase == corev1.PodRunning
		if p.Status.Phase == corev1.PodFailed && !scenario.Refused(p) {
			return false, "", fmt.Errorf("%s", scenario.Describe(p))
		}
		return ran || scenario.Refused(p), scenario.Describe(p), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ran
}

func offered(t *testing.T, name string) int64 {
	t.Helper()
	// The last of them may still be on their way from the agent's start.
	last, since := int64(-1), time.Now()
	err := scenario.Poll(t.Context(), time.Minute, "a steady number of "+name, func(ctx context.Context) (bool, string, error) {
		n, err := env.Core.CoreV1().Nodes().Get(ctx, node(), metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		q := n.Status.Allocatable[corev1.ResourceName(name)]
		if q.Value() != last {
			last, since = q.Value(), time.Now()
		}
		return time.Since(since) > 8*time.Second, fmt.Sprintf("it offers %d", last), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// TestOtherSchedulers runs pods that no scheduler of ours placed beside ours: nobody
// gets another's device, and ours get exactly theirs.
func TestOtherSchedulers(t *testing.T) {
	held := map[string]string{}
	for i := range 3 {
		foreign, own := fmt.Sprintf("foreign-%d", i), fmt.Sprintf("own-%d", i)
		create(t, holder(foreign, map[string]string{vfResource: "1"}, func(h *scenario.Holder) { h.Node = node() }))
		create(t, holder(own, map[string]string{vfResource: "1"}))
		for _, name := range []string{foreign, own} {
			if !settled(t, name) {
				// The two raced for a unit: kubelet gave it to one, and the other was refused
				// rather than given something else. Whoever wanted it makes it anew.
				if name == foreign {
					t.Logf("%s was refused; ours had its unit", name)
					continue
				}
				remove(t.Context(), t, name)
				create(t, holder(name+"-again", map[string]string{vfResource: "1"}))
				name += "-again"
			}
			for _, u := range runs(t, name) {
				if held[u] != "" {
					t.Errorf("%s is held by %s and by %s", u, held[u], name)
				}
				held[u] = name
			}
		}
	}
	t.Logf("held: %v", held)
}

// TestUnplug takes a device away through QEMU's monitor and brings it back.
func TestUnplug(t *testing.T) {
	isEdu := func(_ *v1alpha1.InventoryUnit, k v1alpha1.DeviceKind) bool {
		return k.Vendor == "1234" && k.Device == "11e8"
	}
	u, err := unit(t.Context(), isEdu)
	if err != nil || u == nil {
		t.Fatalf("no edu device in the inventory: %v", err)
	}
	bus := eduBus(t)
	if _, err := lab.QMP(t.Context(), node(), "device_del", map[string]any{"id": "edu0"}); err != nil {
		t.Fatal(err)
	}
	back := func(ctx context.Context) error {
		_, err := lab.QMP(ctx, node(), "device_add", map[string]any{"driver": "edu", "id": "edu0", "bus": bus})
		return err
	}
	plugged := false
	t.Cleanup(func() {
		if !plugged {
			_ = back(context.WithoutCancel(t.Context())) // for the tests that follow
		}
	})
	gone := capacity(t, time.Minute, edu, 0)
	t.Logf("capacity 0 after %.1f s", gone.Seconds())
	err = scenario.Poll(t.Context(), 30*time.Second, "the inventory says that the device is away", func(ctx context.Context) (bool, string, error) {
		now, err := unit(ctx, isEdu)
		return err == nil && (now == nil || now.NotReady != ""), fmt.Sprintf("%+v", now), err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Removal takes the port a moment; only then the slot is free.
	err = scenario.Poll(t.Context(), time.Minute, "the device is plugged in again", func(ctx context.Context) (bool, string, error) {
		err := back(ctx)
		return err == nil, fmt.Sprint(err), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	plugged = true
	again := capacity(t, time.Minute, edu, 1)
	t.Logf("capacity 1 again %.1f s after it was plugged in", again.Seconds())
	create(t, holder("after-unplug", map[string]string{edu: "1"}))
	if got := runs(t, "after-unplug"); !slices.Equal(got, []string{u.ID}) {
		t.Errorf("the pod got %v, want %s", got, u.ID)
	}
}

// eduBus finds the port below which QEMU has the edu device.
func eduBus(t *testing.T) string {
	t.Helper()
	for i := 1; i < 16; i++ {
		port := fmt.Sprintf("rp%d", i)
		out, err := lab.QMP(t.Context(), node(), "qom-list", map[string]any{"path": "/machine/peripheral/" + port + "/" + port})
		if err != nil {
			continue
		}
		var list []struct{ Name, Type string }
		if json.Unmarshal(out, &list) != nil {
			continue
		}
		for _, p := range list {
			if !strings.HasPrefix(p.Name, "child[") {
				continue
			}
			if link, err := lab.QMP(t.Context(), node(), "qom-get", map[string]any{"path": "/machine/peripheral/" + port + "/" + port, "property": p.Name}); err == nil && strings.Contains(string(link), "edu0") {
				return port
			}
		}
	}
	t.Fatal("QEMU has no edu device below any port")
	return ""
}

// TestVFCount changes how many virtual functions a pool wants: up at once, down not
// while one of them is in use.
func TestVFCount(t *testing.T) {
	set := func(ctx context.Context, n int) error {
		_, err := env.Run(ctx, "patch", "devicepool", "igb-vf", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"vfs":{"count":%d}}}`, n))
		return err
	}
	before := offered(t, vfResource)
	per := before / 3 // the lab's node has three network cards
	if per < 2 {
		t.Fatalf("%d virtual functions on three cards", before)
	}
	t.Cleanup(func() {
		if err := set(context.WithoutCancel(t.Context()), int(per)); err != nil {
			t.Error(err)
		}
	})
	create(t, holder("keeps", map[string]string{vfResource: "1"}))
	kept := runs(t, "keeps")
	if err := set(t.Context(), int(per)-1); err != nil {
		t.Fatal(err)
	}
	// The card of the function in use stays as it is, and the pool says why.
	took := capacity(t, time.Minute, vfResource, before-2)
	t.Logf("two cards have one function less %.1f s after the change", took.Seconds())
	if got := runs(t, "keeps"); !slices.Equal(got, kept) {
		t.Errorf("the pod had %v and has %v", kept, got)
	}
	err := scenario.Poll(t.Context(), 30*time.Second, "the pool says what is in the way", func(ctx context.Context) (bool, string, error) {
		var pool v1alpha1.DevicePool
		if err := env.Objects.Get(ctx, client.ObjectKey{Name: "igb-vf"}, &pool); err != nil {
			return false, "", err
		}
		b, err := json.Marshal(pool.Status)
		return strings.Contains(string(b), "in use"), string(b), err
	})
	if err != nil {
		t.Error(err)
	}
	remove(t.Context(), t, "keeps")
	took = capacity(t, time.Minute, vfResource, before-3)
	t.Logf("the third followed %.1f s after its function was free", took.Seconds())
	if err := set(t.Context(), int(per)); err != nil {
		t.Fatal(err)
	}
	took = capacity(t, time.Minute, vfResource, before)
	t.Logf("all are back %.1f s after the change", took.Seconds())
}

// TestReboot reboots the node under a pod with a device. Kubelet refuses it, for it
// comes before the device plugins; an event says so, and a new pod gets its device.
func TestReboot(t *testing.T) {
	before := offered(t, vfResource)
	create(t, holder("rebooted", map[string]string{vfResource: "1"}))
	units := runs(t, "rebooted")
	boot := onNode(t, "cat /proc/sys/kernel/random/boot_id")
	if err := lab.RebootNode(t.Context(), node()); err != nil {
		t.Fatal(err)
	}
	err := scenario.Poll(t.Context(), 4*time.Minute, "the node is up again", func(ctx context.Context) (bool, string, error) {
		out, err := scenario.NodeOutput(ctx, lab, node(), "cat", "/proc/sys/kernel/random/boot_id")
		return err == nil && strings.TrimSpace(out) != boot, fmt.Sprint(out, err), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := agentStarted(t, "")
	took := capacity(t, 2*time.Minute, vfResource, before)
	t.Logf("capacity right %.1f s after the agent's start was seen (%.1f s waited)", time.Since(seen).Seconds(), took.Seconds())
	if since := time.Since(seen); since > capacityLimit {
		out, err := env.Run(t.Context(), "-n", "kubevfio-system", "logs", "daemonset/kubevfio-agent", "--timestamps")
		t.Errorf("capacity was right only %.1f s after the agent's start; its log (%v):\n%s", since.Seconds(), err, out)
	}
	p, err := env.Pod(t.Context(), namespace, "rebooted")
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	t.Logf("the pod: %s", scenario.Describe(p))
	if p.Status.Phase == corev1.PodFailed {
		err := scenario.Poll(t.Context(), time.Minute, "an event says why the pod was refused", func(ctx context.Context) (bool, string, error) {
			out, err := env.Run(ctx, "-n", namespace, "get", "events", "--field-selector=involvedObject.name=rebooted", "-o=custom-columns=REASON:.reason,MESSAGE:.message", "--no-headers")
			return strings.Contains(out, "DeviceRefused"), out, err
		})
		if err != nil {
			t.Error(err)
		}
	}
	remove(t.Context(), t, "rebooted")
	create(t, holder("after-reboot", map[string]string{vfResource: "1"}))
	t.Logf("held %v before, a new pod has %v", units, runs(t, "after-reboot"))
}

// TestQuickReuse takes a device a moment after its former holder is gone, many times:
// no admission fails.
func TestQuickReuse(t *testing.T) {
	for i := range 5 {
		name := fmt.Sprintf("reuse-%d", i)
		create(t, holder(name, map[string]string{edu: "1"}))
		runs(t, name) // fails for a pod that was refused
		start := time.Now()
		remove(t.Context(), t, name)
		t.Logf("%s gone after %.1f s", name, time.Since(start).Seconds())
	}
}
