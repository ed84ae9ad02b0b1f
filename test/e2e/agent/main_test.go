package agent

import (
	"context"
	"errors"
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
	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/scenario"
	"github.com/kubevfio/kubevfio/test/testbed"
)

const (
	namespace  = testbed.Namespace
	vfResource = testbed.VFResource
	edu        = "kubevfio.io/edu"
	// capacityLimit is how long after the agent's start the node's capacity may be
	// wrong; kubelet posts it within its own period of a second after that.
	capacityLimit = 10 * time.Second
)

// The one lab of this package; TestMain makes it, tests only read it.
var (
	lab *cluster.Cluster
	env *scenario.Env
)

func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Options{
		Lab: cluster.Config{Nodes: 1}, Reboots: true,
		Offered: map[string]int64{vfResource: 2, v1alpha1.ResourceKVM: 2, edu: 1},
	}, func(b *testbed.Bed) { lab, env = b.Lab, b.Env })
}

func node() string { return lab.Nodes()[0] }

// holder is a pod with devices; more changes it.
func holder(name string, resources map[string]string, more ...func(*scenario.Holder)) *corev1.Pod {
	h := scenario.Holder{Namespace: namespace, Name: name, Image: cluster.PauseImage, Resources: resources}
	for _, m := range more {
		m(&h)
	}
	return h.Build()
}

// create makes a pod and deletes it when the test ends.
func create(t *testing.T, p *corev1.Pod) {
	t.Helper()
	if _, err := env.Core.CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(context.WithoutCancel(t.Context()), t, p.Name) })
}

func remove(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	zero := int64(0)
	if err := env.Core.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	if err := env.WaitGone(ctx, time.Minute, namespace, name); err != nil {
		t.Error(err)
	}
}

// runs waits until a pod runs, with exactly what it was assigned, and returns it.
func runs(t *testing.T, name string) []string {
	t.Helper()
	var units []string
	err := scenario.Poll(t.Context(), 2*time.Minute, name+" runs with its devices", func(ctx context.Context) (bool, string, error) {
		p, err := env.Pod(ctx, namespace, name)
		if err != nil {
			return false, "", err
		}
		if p.Status.Phase == corev1.PodFailed {
			return false, "", errors.New(scenario.Describe(p))
		}
		got := scenario.Allocated(p)
		if p.Status.Phase != corev1.PodRunning || len(got) == 0 {
			return false, scenario.Describe(p), nil
		}
		units = got
		if p.Annotations[v1alpha1.AssignmentAnnotation] == "" {
			return true, "", nil // another scheduler's
		}
		want, _, err := scenario.Assigned(p)
		if err == nil && !slices.Equal(want, got) {
			err = fmt.Errorf("assigned %v, kubelet gave %v", want, got)
		}
		return err == nil, "", err
	})
	if err != nil {
		t.Fatal(err)
	}
	return units
}

// capacity waits until the node offers exactly want of a resource, and returns how
// long that took.
func capacity(t *testing.T, limit time.Duration, name string, want int64) time.Duration {
	t.Helper()
	start := time.Now()
	err := scenario.Poll(t.Context(), limit, fmt.Sprintf("%s offers %d of %s", node(), want, name), func(ctx context.Context) (bool, string, error) {
		n, err := env.Core.CoreV1().Nodes().Get(ctx, node(), metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		q := n.Status.Allocatable[corev1.ResourceName(name)]
		return q.Value() == want, fmt.Sprintf("it offers %d", q.Value()), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

// unit reads a unit of the node's inventory by its resource.
func unit(ctx context.Context, match func(*v1alpha1.InventoryUnit, v1alpha1.DeviceKind) bool) (*v1alpha1.InventoryUnit, error) {
	var inv v1alpha1.NodeInventory
	if err := env.Objects.Get(ctx, client.ObjectKey{Name: node()}, &inv); err != nil {
		return nil, err
	}
	for i := range inv.Spec.Units {
		u := &inv.Spec.Units[i]
		if int(u.Kind) < len(inv.Spec.Kinds) && match(u, inv.Spec.Kinds[u.Kind]) {
			return u, nil
		}
	}
	return nil, nil // not there is an answer
}

func onNode(t *testing.T, script string) string {
	t.Helper()
	out, err := scenario.NodeOutput(t.Context(), lab, node(), "sh", "-c", script)
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSpace(out)
}
