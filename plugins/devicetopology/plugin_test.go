package devicetopology

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

func TestDecodeArgs(t *testing.T) {
	for name, tc := range map[string]struct {
		raw     string
		want    time.Duration
		wantErr string
	}{
		"defaults":      {raw: `{}`, want: time.Second},
		"set":           {raw: `{"retryInterval":"3s","namedNodes":0}`, want: 3 * time.Second},
		"unknown field": {raw: `{"retryIntervall":"3s"}`, wantErr: "retryIntervall"},
		"too short":     {raw: `{"retryInterval":"1ms"}`, wantErr: "at least 10ms"},
		"negative":      {raw: `{"namedNodes":-1}`, wantErr: "namedNodes"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := decodeArgs(&runtime.Unknown{Raw: []byte(tc.raw), ContentType: runtime.ContentTypeJSON})
			if tc.wantErr != "" {
				if !errors.Is(err, ErrArgs) || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("error %v, want ErrArgs with %q", err, tc.wantErr)
				}
				return
			}
			if err != nil || a.RetryInterval.Duration != tc.want {
				t.Fatalf("got %+v, %v", a, err)
			}
		})
	}
}

func TestPlainPodsSkip(t *testing.T) {
	h := newFakeHandle(t, "a")
	pl := newTestPlugin(t, h)
	pl.inv.set(testInventory("a", 1, 2))
	pod := testPod("plain", 0, "")
	pod.Spec.Containers[0].Resources.Requests["devices.kubevfio.io/kvm"] = resource.MustParse("1")
	pod.Spec.Containers[0].Resources.Requests["example.com/fpga"] = resource.MustParse("1")
	state, st := filter(pl, h, pod, "a")
	if st.Code() != fwk.Skip {
		t.Fatalf("PreFilter = %v, want Skip", st)
	}
	if st := pl.PreScore(context.Background(), state, pod, nil); st.Code() != fwk.Skip {
		t.Errorf("PreScore = %v, want Skip", st)
	}
	if st := bindTo(pl, h, state, pod, "a"); !st.IsSuccess() {
		t.Fatal(st)
	}
	if got := h.bindings[0].Annotations; got != nil {
		t.Errorf("the Binding of a plain pod has annotations %v", got)
	}
}

// TestMessages holds what a VM's owner reads.
func TestMessages(t *testing.T) {
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		code fwk.Code
		want string
	}{
		"fits":     {pod: testPod("x", 2, "required:root"), code: fwk.Success},
		"too few":  {pod: testPod("x", 4, ""), code: fwk.Unschedulable, want: "needs 4 kubevfio.io/vf, node a has 3 free of 4"},
		"apart":    {pod: testPod("x", 3, "preferred:root"), code: fwk.Success},
		"aligned":  {pod: testPod("x", 2, "required:numa"), code: fwk.Success},
		"never":    {pod: testPod("x", 9, ""), code: fwk.UnschedulableAndUnresolvable, want: "no node's hardware can ever fit this pod: needs 9 kubevfio.io/vf, nearest: node a has 4 kubevfio.io/vf in all"},
		"never so": {pod: testPod("x", 3, "required:root"), code: fwk.UnschedulableAndUnresolvable, want: "no node's hardware can ever fit this pod: needs 3 kubevfio.io/vf (required: root), nearest: node a has them, but not behind one PCIe root complex"},
		"bad wish": {pod: testPod("x", 1, "required:rack"), code: fwk.UnschedulableAndUnresolvable, want: `annotation kubevfio.io/alignment: invalid alignment: "required:rack": level "rack" is none of switch, root, numa, socket`},
		"no units": {pod: testPod("x", 0, "required:root"), code: fwk.UnschedulableAndUnresolvable, want: "annotation kubevfio.io/alignment: the pod asks for no device resource that a DevicePool or a node's inventory offers"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHandle(t, "a")
			pl := newTestPlugin(t, h)
			pl.inv.set(testInventory("a", 2, 2))
			first := testPod("first", 1, "")
			state, st := filter(pl, h, first, "a")
			if !st.IsSuccess() || !bindTo(pl, h, state, first, "a").IsSuccess() {
				t.Fatal("the first pod was not placed")
			}
			_, st = filter(pl, h, tc.pod, "a")
			if st.Code() != tc.code || st.Message() != tc.want {
				t.Errorf("got %v %q\nwant %v %q", st.Code(), st.Message(), tc.code, tc.want)
			}
		})
	}
}

// TestRequiredRootOccupied: enough units are free, but apart.
func TestRequiredRootOccupied(t *testing.T) {
	h := newFakeHandle(t, "a")
	pl := newTestPlugin(t, h)
	pl.inv.set(testInventory("a", 2, 2))
	for _, id := range []string{"0000:11:10.0", "0000:21:10.0"} {
		p := testPod("holds-"+id, 1, "")
		p.Spec.NodeName = "a"
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", AllocatedResourcesStatus: []corev1.ResourceStatus{
			{Name: testVF, Resources: []corev1.ResourceHealth{{ResourceID: corev1.ResourceID(id)}}},
		}}}
		h.pods["a"] = append(h.pods["a"], p)
	}
	_, st := filter(pl, h, testPod("x", 2, "required:root"), "a")
	want := "needs 2 kubevfio.io/vf, node a has 2 kubevfio.io/vf free but not behind one PCIe root complex (required: root)"
	if st.Code() != fwk.Unschedulable || st.Message() != want {
		t.Errorf("got %v %q\nwant %q", st.Code(), st.Message(), want)
	}
}

// TestWaits: states in which nothing can be said about a node yet.
func TestWaits(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*plugin, *fakeHandle)
		want    string
	}{
		"no inventory": {func(pl *plugin, _ *fakeHandle) { pl.inv.set(testInventory("other", 1, 8)) }, "without a device inventory"},
		"rebooted": {func(pl *plugin, h *fakeHandle) {
			pl.inv.set(testInventory("a", 1, 8))
			h.nodes[0].Status.NodeInfo.BootID = "next"
		}, "before the last boot"},
		"broken": {func(pl *plugin, _ *fakeHandle) {
			pl.inv.set(testInventory("b", 1, 8))
			inv := testInventory("a", 1, 2)
			inv.Spec.Units[1].ID = inv.Spec.Units[0].ID
			pl.inv.set(inv)
		}, "listed twice"},
		"not listed yet": {func(pl *plugin, _ *fakeHandle) {
			pl.sources = []*source{{resource: "nodeinventories"}}
		}, "still reading nodeinventories.kubevfio.io"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHandle(t, "a")
			pl := newTestPlugin(t, h)
			tc.prepare(pl, h)
			_, st := filter(pl, h, testPod("x", 1, ""), "a")
			if st.Code() != fwk.UnschedulableAndUnresolvable || !strings.Contains(st.Message(), tc.want) {
				t.Errorf("got %v %q, want %q", st.Code(), st.Message(), tc.want)
			}
			pl.waiting.activate(klogNone(), h)
			if h.activated != 1 {
				t.Errorf("news woke %d pods, want 1", h.activated)
			}
		})
	}
}

// TestForeignPods: a pod without an assignment counts for what it asks for,
// wherever that may be, until kubelet or the agent says what it holds.
func TestForeignPods(t *testing.T) {
	h := newFakeHandle(t, "a")
	pl := newTestPlugin(t, h)
	pl.inv.set(testInventory("a", 2, 2))
	foreign := testPod("foreign", 1, "")
	foreign.Spec.NodeName = "a"
	h.pods["a"] = []*corev1.Pod{foreign}
	if _, st := filter(pl, h, testPod("x", 2, "required:root"), "a"); st.IsSuccess() {
		t.Error("two units below one root are not sure while one unit is held somewhere")
	}
	if _, st := filter(pl, h, testPod("x", 3, ""), "a"); !st.IsSuccess() {
		t.Errorf("three of four units are free for sure: %s", st.Message())
	}
	usage := &v1alpha1.NodeUsage{}
	usage.Name = "a"
	usage.Spec.Pods = []v1alpha1.PodUsage{{UID: string(foreign.UID), Devices: map[string][]string{testVF: {"0000:11:10.0"}}}}
	pl.setUsage(usage)
	state, st := filter(pl, h, testPod("x", 2, "required:root"), "a")
	if !st.IsSuccess() {
		t.Fatalf("the agent says which unit is held: %s", st.Message())
	}
	if st := bindTo(pl, h, state, testPod("x", 2, "required:root"), "a"); !st.IsSuccess() {
		t.Fatal(st)
	}
	a, err := v1alpha1.DecodeAssignment(h.bindings[0].Annotations[v1alpha1.AssignmentAnnotation])
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range a.Containers["c"][testVF] {
		got = append(got, u.String())
	}
	if diff := cmp.Diff([]string{"0000:21:10.0", "0000:21:10.1"}, got); diff != "" {
		t.Errorf("assignment (-want +got):\n%s", diff)
	}
}

// TestUncertainBinding: when nobody knows whether a Binding was written, its
// units stay taken although the scheduler forgets the pod.
func TestUncertainBinding(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		held bool
	}{
		"refused":    {apierrors.NewConflict(corev1.Resource("pods"), "x", errors.New("already bound")), false},
		"timed out":  {apierrors.NewTimeoutError("no answer", 1), true},
		"connection": {errors.New("connection reset"), true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHandle(t, "a")
			pl := newTestPlugin(t, h)
			pl.inv.set(testInventory("a", 1, 1))
			now := time.Now()
			pl.ledger.now = func() time.Time { return now }
			h.bind = func(*corev1.Binding) error { return tc.err }
			pod := testPod("x", 1, "")
			state, _ := filter(pl, h, pod, "a")
			if st := bindTo(pl, h, state, pod, "a"); st.IsSuccess() {
				t.Fatal("the Binding must fail")
			}
			_, st := filter(pl, h, testPod("y", 1, ""), "a")
			if got := !st.IsSuccess(); got != tc.held {
				t.Errorf("held = %v, want %v (%s)", got, tc.held, st.Message())
			}
			now = now.Add(holdBinding + time.Second)
			if _, st := filter(pl, h, testPod("y", 1, ""), "a"); !st.IsSuccess() {
				t.Errorf("the hold does not end: %s", st.Message())
			}
		})
	}
}

// runningOn is the first pod on a node as the API server has it when it runs.
func runningOn(h *fakeHandle, node string) *corev1.Pod {
	p := h.pods[node][0].DeepCopy()
	p.Annotations = h.bindings[0].Annotations
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	return p
}

// TestForceDelete: the units of a pod that was deleted by force while its guest
// ran stay taken until the node reports that it has let go of them.
func TestForceDelete(t *testing.T) {
	h := newFakeHandle(t, "a")
	pl := newTestPlugin(t, h)
	pl.inv.set(testInventory("a", 1, 1))
	pod := testPod("x", 1, "")
	state, _ := filter(pl, h, pod, "a")
	if st := bindTo(pl, h, state, pod, "a"); !st.IsSuccess() {
		t.Fatal(st)
	}
	bound := runningOn(h, "a")
	report := func(pods ...v1alpha1.PodUsage) {
		u := &v1alpha1.NodeUsage{}
		u.Name = "a"
		u.Spec.Pods = pods
		pl.setUsage(u)
	}
	report(v1alpha1.PodUsage{UID: string(pod.UID)})
	h.forget("a", pod.UID)
	pl.forget(bound)
	if _, st := filter(pl, h, testPod("y", 1, ""), "a"); st.IsSuccess() {
		t.Error("the guest still runs: its unit is not free")
	}
	report()
	if _, st := filter(pl, h, testPod("y", 1, ""), "a"); !st.IsSuccess() {
		t.Errorf("the node let go of the unit: %s", st.Message())
	}
}

// TestQuickTurnover: a pod that came and went between two reports is in none of
// them; the node says that it has left.
func TestQuickTurnover(t *testing.T) {
	for name, first := range map[string]bool{"the report comes first": true, "the deletion comes first": false} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHandle(t, "a")
			pl := newTestPlugin(t, h)
			pl.inv.set(testInventory("a", 1, 1))
			report := func(released ...string) {
				u := &v1alpha1.NodeUsage{}
				u.Name = "a"
				u.Spec.Released = released
				pl.setUsage(u)
			}
			report()
			pod := testPod("x", 1, "")
			state, _ := filter(pl, h, pod, "a")
			if st := bindTo(pl, h, state, pod, "a"); !st.IsSuccess() {
				t.Fatal(st)
			}
			bound := runningOn(h, "a")
			if first {
				report("another", string(pod.UID))
			}
			h.forget("a", pod.UID)
			pl.forget(bound)
			if !first {
				if _, st := filter(pl, h, testPod("y", 1, ""), "a"); st.IsSuccess() {
					t.Error("its unit is free before the node has said so")
				}
				report("another", string(pod.UID))
			}
			if _, st := filter(pl, h, testPod("y", 1, ""), "a"); !st.IsSuccess() {
				t.Errorf("the node has said that the pod left: %s", st.Message())
			}
		})
	}
}

// TestEndedInOrder: a pod that ended leaves the scheduler's informer with the
// status that it had while it ran. When the node has reported already that it
// let go of it, its units are free at once.
func TestEndedInOrder(t *testing.T) {
	h := newFakeHandle(t, "a")
	pl := newTestPlugin(t, h)
	pl.inv.set(testInventory("a", 1, 1))
	pod := testPod("x", 1, "")
	state, _ := filter(pl, h, pod, "a")
	if st := bindTo(pl, h, state, pod, "a"); !st.IsSuccess() {
		t.Fatal(st)
	}
	bound := runningOn(h, "a")
	report := func(pods ...v1alpha1.PodUsage) {
		u := &v1alpha1.NodeUsage{}
		u.Name = "a"
		u.Spec.Pods = pods
		pl.setUsage(u)
	}
	report(v1alpha1.PodUsage{UID: string(pod.UID)})
	report()
	h.forget("a", pod.UID)
	pl.forget(bound)
	if _, st := filter(pl, h, testPod("y", 1, ""), "a"); !st.IsSuccess() {
		t.Errorf("the node had let go of the unit before: %s", st.Message())
	}
}

// TestNominatedPods: a pod that preemption promised the node to gets its place
// before others, by the engine's own choice.
func TestNominatedPods(t *testing.T) {
	h := newFakeHandle(t, "a")
	pl := newTestPlugin(t, h)
	pl.inv.set(testInventory("a", 2, 2))
	// The scheduler adds nominated pods to a clone of NodeInfo, without a node's name.
	h.pods["a"] = []*corev1.Pod{testPod("nominated", 2, "required:root")}
	if _, st := filter(pl, h, testPod("x", 2, "required:root"), "a"); !st.IsSuccess() {
		t.Errorf("the other root complex is free: %s", st.Message())
	}
	if _, st := filter(pl, h, testPod("x", 3, ""), "a"); st.IsSuccess() {
		t.Error("two of four units are promised")
	}
}

// TestRestart: a new scheduler reads what is taken off the pods.
func TestRestart(t *testing.T) {
	h := newFakeHandle(t, "a")
	pl := newTestPlugin(t, h)
	pl.inv.set(testInventory("a", 1, 2))
	pod := testPod("x", 2, "")
	state, _ := filter(pl, h, pod, "a")
	if st := bindTo(pl, h, state, pod, "a"); !st.IsSuccess() {
		t.Fatal(st)
	}
	again := newTestPlugin(t, h)
	again.inv.set(testInventory("a", 1, 2))
	h.pods["a"][0].Annotations = h.bindings[0].Annotations
	if _, st := filter(again, h, testPod("y", 1, ""), "a"); st.IsSuccess() {
		t.Error("the restarted scheduler hands out an assigned unit")
	}
	// A copied annotation means nothing: wrong UID.
	h.pods["a"][0].UID = "other"
	if _, st := filter(again, h, testPod("y", 1, ""), "a"); st.IsSuccess() {
		t.Error("a pod with a foreign assignment still holds two unknown units")
	}
}

// TestFilterDoesNotAllocate holds the promise for the memoised case.
func TestFilterDoesNotAllocate(t *testing.T) {
	h := newFakeHandle(t, "a")
	pl := newTestPlugin(t, h)
	pl.inv.set(testInventory("a", 4, 16))
	ctx := context.Background()
	state, st := filter(pl, h, testPod("x", 2, "required:root"), "a")
	if !st.IsSuccess() {
		t.Fatal(st)
	}
	ni := h.infos["a"]
	if n := testing.AllocsPerRun(200, func() { pl.Filter(ctx, state, nil, ni) }); n != 0 {
		t.Errorf("Filter allocates %v times", n)
	}
}

// TestPodGone: only pods that held a resource in common are news.
func TestPodGone(t *testing.T) {
	pl := newTestPlugin(t, newFakeHandle(t, "a"))
	other := testPod("other", 0, "")
	other.Spec.Containers[0].Resources.Requests["kubevfio.io/gpu"] = resource.MustParse("1")
	for name, tc := range map[string]struct {
		gone *corev1.Pod
		want fwk.QueueingHint
	}{
		"same resource":  {testPod("g", 1, ""), fwk.Queue},
		"plain pod":      {testPod("g", 0, ""), fwk.QueueSkip},
		"other resource": {other, fwk.QueueSkip},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := pl.podGone(klogNone(), testPod("x", 2, ""), tc.gone, nil)
			if err != nil || got != tc.want {
				t.Errorf("got %v %v, want %v", got, err, tc.want)
			}
		})
	}
}

// TestSignPod: pods with equal wishes are signed equally, others not.
func TestSignPod(t *testing.T) {
	pl := newTestPlugin(t, newFakeHandle(t, "a"))
	sign := func(p *corev1.Pod) []fwk.SignFragment {
		f, st := pl.SignPod(context.Background(), p)
		if !st.IsSuccess() {
			t.Fatal(st)
		}
		return f
	}
	base := sign(testPod("a", 2, "required:root"))
	if diff := cmp.Diff(base, sign(testPod("b", 2, "required:root"))); diff != "" {
		t.Errorf("equal pods are signed differently:\n%s", diff)
	}
	for name, p := range map[string]*corev1.Pod{"count": testPod("c", 3, "required:root"), "wish": testPod("c", 2, "required:numa")} {
		if cmp.Diff(base, sign(p)) == "" {
			t.Errorf("another %s is signed equally", name)
		}
	}
}
