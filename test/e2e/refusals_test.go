package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/scenario"
)

// TestTooMany asks for more virtual functions than any node has.
func TestTooMany(t *testing.T) {
	name := "too-many"
	create(t, examplePod(t, "too-many/too-many.yaml", name, nil))
	nodes, err := env.Core.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = scenario.Poll(t.Context(), time.Minute, "an event that says what is missing", func(ctx context.Context) (bool, string, error) {
		p, err := env.Pod(ctx, namespace, name)
		if err != nil {
			return false, "", err
		}
		state := scenario.Describe(p)
		named := slices.ContainsFunc(nodes.Items, func(n corev1.Node) bool { return strings.Contains(state, n.Name) })
		return p.Status.Phase == corev1.PodPending && strings.Contains(state, vfResource) && named, state, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := env.Pod(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(scenario.Describe(p))
}

// TestBadSpec ends with its own exit code and a message that names the field.
func TestBadSpec(t *testing.T) {
	name := "bad-spec"
	create(t, examplePod(t, "bad-spec/bad-spec.yaml", name, nil))
	p, err := env.WaitPhase(t.Context(), 2*time.Minute, namespace, name, corev1.PodFailed)
	if err != nil {
		t.Fatal(err)
	}
	term := p.Status.ContainerStatuses[0].State.Terminated
	if term == nil || term.ExitCode != v1alpha1.ExitBadSpec {
		t.Fatalf("want exit code %d: %s", v1alpha1.ExitBadSpec, scenario.Describe(p))
	}
	var message map[string]any
	if err := json.Unmarshal([]byte(term.Message), &message); err != nil {
		t.Errorf("the termination message is not JSON: %v: %q", err, term.Message)
	}
	if !strings.Contains(term.Message, "domain.cpu.coers") {
		t.Errorf("the message does not name the field: %q", term.Message)
	}
	t.Log(term.Message)
}

// TestForgery tries to give a pod an assignment that the scheduler did not make.
func TestForgery(t *testing.T) {
	pods := env.Core.CoreV1().Pods(namespace)
	forged := `{"version":"v1","podUID":"x","node":"node-1","containers":{}}`
	p := examplePod(t, "too-many/too-many.yaml", "forger", nil)
	p.Annotations[v1alpha1.AssignmentAnnotation] = forged
	refused := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s was accepted", what)
		} else if !strings.Contains(err.Error(), v1alpha1.AssignmentAnnotation) {
			t.Errorf("%s: the refusal does not name the annotation: %v", what, err)
		}
	}
	_, err := pods.Create(t.Context(), p, metav1.CreateOptions{})
	refused("creating a pod with the annotation", err)

	delete(p.Annotations, v1alpha1.AssignmentAnnotation)
	create(t, p)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{v1alpha1.AssignmentAnnotation: forged}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = pods.Patch(t.Context(), p.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	refused("patching the annotation", err)
	_, err = pods.Patch(t.Context(), p.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	refused("patching the annotation through the status", err)
	err = pods.Bind(t.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: namespace, Annotations: map[string]string{v1alpha1.AssignmentAnnotation: forged}},
		Target:     corev1.ObjectReference{Kind: "Node", Name: firstNode(t)},
	}, metav1.CreateOptions{})
	refused("binding with the annotation", err)
}
