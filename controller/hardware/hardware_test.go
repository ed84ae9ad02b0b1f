package hardware_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/hardware"
	"github.com/kubevfio/kubevfio/controller/hardware/hardwaretest"
	"github.com/kubevfio/kubevfio/topology/draw"
)

var update = flag.Bool("update", false, "write the golden files")

func cluster(t *testing.T, n int) *hardwaretest.Cluster {
	t.Helper()
	c, err := hardwaretest.New(context.Background(), n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got), -update after looking:\n%s", name, d)
	}
}

func TestTree(t *testing.T) {
	c := cluster(t, 2)
	inv := &c.Inventories[1]
	box := hardware.Boxes(inv, hardware.Units(inv, hardware.NewHolders(c.Pods, c.Usages)), true)
	var text, svg bytes.Buffer
	if err := errors.Join(draw.Text(&text, box), draw.SVG(&svg, box)); err != nil {
		t.Fatal(err)
	}
	golden(t, "node.txt", text.Bytes())
	golden(t, "node.svg", svg.Bytes())
	seen := map[string]int{}
	box.Walk(func(b *draw.Box) { seen[b.Ref]++ })
	delete(seen, "")
	if len(seen) != len(inv.Spec.Units) {
		t.Errorf("%d units are drawn, the node has %d", len(seen), len(inv.Spec.Units))
	}
	for ref, n := range seen {
		if n != 1 {
			t.Errorf("%s is drawn %d times", ref, n)
		}
	}
	for d := xml.NewDecoder(&svg); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("no well-formed XML: %v", err)
		}
	}
}

func TestUnits(t *testing.T) {
	c := cluster(t, 2)
	units := map[string]hardware.Unit{}
	count := map[string]int{}
	for _, u := range hardware.Units(&c.Inventories[1], hardware.NewHolders(c.Pods, c.Usages)) {
		units[u.Address] = u
		count[u.State]++
	}
	// Four machines of three units and the plain pod; a GPU of nobody is in trouble,
	// the sick virtual function is held.
	if d := cmp.Diff(map[string]int{"Held": 13, "NotReady": 1, "Free": 59}, count); d != "" {
		t.Errorf("states (-want +got):\n%s", d)
	}
	gpu := units["0000:13:00.0"]
	if gpu.State != hardware.Held || gpu.Holder.String() != "vmi vms/trainer-1" || gpu.Class != draw.GPU || gpu.Product != "H200 SXM" || gpu.Root != "pci0000:10" {
		t.Errorf("GPU: %+v", gpu)
	}
	if d := cmp.Diff([]string{"pci0000:10", "0000:11:00.0"}, gpu.Path); d != "" {
		t.Errorf("path (-want +got):\n%s", d)
	}
	sick := units["0000:14:00.5"]
	if sick.State != hardware.Held || sick.Healthy || !strings.Contains(sick.Problem, "mlx5_core") {
		t.Errorf("a unit is held and not ready: %+v", sick)
	}
}

func TestHolders(t *testing.T) {
	pod := func(uid string, phase corev1.PodPhase, reported bool, labels map[string]string) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p-" + uid, Namespace: "ns", UID: types.UID("u-" + uid), Labels: labels}}
		p.Spec.NodeName, p.Status.Phase = "node", phase
		p.Annotations = map[string]string{v1alpha1.AssignmentAnnotation: `{"version":"v1","podUID":"u-` + uid + `","node":"node","containers":{"compute":{"r":["0000:0` + uid + `:00.0"]}}}`}
		if reported {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "other", AllocatedResourcesStatus: []corev1.ResourceStatus{{
				Name: "r", Resources: []corev1.ResourceHealth{{ResourceID: corev1.ResourceID("0000:0" + uid + ":00.1")}},
			}}}}
		}
		return p
	}
	owned := pod("6", corev1.PodRunning, false, map[string]string{"kubevfio.io/instance": "cut"})
	owned.OwnerReferences = []metav1.OwnerReference{{Kind: "VirtualMachineInstance", Name: "cut-is-not-the-name"}}
	copied := pod("5", corev1.PodPending, false, nil)
	copied.UID = "another"
	held := hardware.NewHolders([]corev1.Pod{
		pod("1", corev1.PodPending, false, map[string]string{"kubevfio.io/instance": "vm"}),
		pod("2", corev1.PodRunning, true, nil),
		pod("3", corev1.PodFailed, false, nil),
		copied, owned,
	}, []v1alpha1.NodeUsage{{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Spec: v1alpha1.NodeUsageSpec{Pods: []v1alpha1.PodUsage{
		{UID: "u-3", Devices: map[string][]string{"r": {"0000:03:00.0"}}},
		{UID: "u-4", Devices: map[string][]string{"r": {"0000:04:00.0"}}},
		{UID: "u-2", Devices: map[string][]string{"r": {"0000:01:00.0"}}},
	}}}})
	got := map[string]string{}
	for unit, h := range held["node"] {
		got[unit] = h.String()
	}
	want := map[string]string{
		"0000:01:00.0": "vmi ns/vm",
		"0000:02:00.1": "pod ns/p-2", // what kubelet gave, not what was decided
		"0000:04:00.0": "pod with UID u-4",
		"0000:06:00.0": "vmi ns/cut-is-not-the-name",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Objects of another version, or damaged ones, must not bring a controller down.
func TestDamagedInventory(t *testing.T) {
	n, up := int32(7), int32(1)
	inv := &v1alpha1.NodeInventory{Spec: v1alpha1.NodeInventorySpec{
		Attachments: []v1alpha1.Attachment{{Name: "a", Parent: &up}, {Name: "b", Parent: &n}},
		Units:       []v1alpha1.InventoryUnit{{ID: "0000:01:00.0", At: 1, Kind: 9, Resource: &n, NUMA: &n}, {ID: "0000:02:00.0", At: -1, Kind: -1}, {ID: "0000:03:00.0"}},
	}}
	units := hardware.Units(inv, nil)
	var text bytes.Buffer
	if err := draw.Text(&text, hardware.Boxes(inv, units, true)); err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		if u.State != hardware.NotOffered || !strings.Contains(text.String(), u.Address) {
			t.Errorf("%+v is not drawn as what it is:\n%s", u, text.String())
		}
	}
}
