package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/scenario"
)

const (
	pods = 20
	// maxRefusals bounds how many pods the node may refuse in all: kubelet and agent
	// refuse rather than give other devices, and whoever wants the pod makes another.
	maxRefusals = 10
	// minKills is how often the scheduler must have died while pods waited.
	minKills = 5
	limit    = 12 * time.Minute
)

// holder is a pod that takes a virtual function and waits. Four of them fill a node.
func holder(name string) *corev1.Pod {
	return scenario.Holder{
		Namespace: namespace, Name: name, Image: cluster.PauseImage, CPU: "900m", Resources: map[string]string{vfResource: "1"},
	}.Build()
}

// TestSchedulerKilled creates 20 pods at once, of which the node can hold some
// at a time, kills the scheduler again and again, and removes every pod once it
// runs. Every pod must come to run with exactly the unit that it was assigned,
// and at no time may a unit be assigned to two live pods.
func TestSchedulerKilled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	api := env.Core.CoreV1().Pods(namespace)
	t.Cleanup(func() {
		zero := int64(0)
		if err := api.DeleteCollection(context.WithoutCancel(ctx), metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{}); err != nil {
			t.Errorf("remove the pods: %v", err)
		}
	})
	var wg sync.WaitGroup
	errs := make([]error, pods)
	for i := range pods {
		wg.Go(func() { _, errs[i] = api.Create(ctx, holder(fmt.Sprintf("holder-%02d", i)), metav1.CreateOptions{}) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}

	ran := map[string]string{}
	var refusals []string
	kills, lastKill := 0, time.Time{}
	for len(ran) < pods || kills < minKills {
		list, err := api.List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatalf("%d of %d pods ran, %d kills: %v", len(ran), pods, kills, err)
		}
		waiting, refused := look(t, list.Items, ran)
		for _, p := range refused {
			// As a controller would: another pod in its place.
			refusals = append(refusals, p.Name+": "+p.Status.Message)
			if len(refusals) > maxRefusals {
				t.Fatalf("the node refused %d pods: %q", len(refusals), refusals)
			}
			if err := api.Delete(ctx, p.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Fatal(err)
			}
			if _, err := api.Create(ctx, holder(fmt.Sprintf("again-%02d", len(refusals))), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range list.Items {
			p := &list.Items[i]
			if _, done := ran[p.Name]; !done || p.DeletionTimestamp != nil {
				continue
			}
			if err := api.Delete(ctx, p.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Fatal(err)
			}
		}
		if waiting == 0 && len(ran) == pods {
			break
		}
		// The first kill hits the first pods; later ones come at all phases of
		// the scheduler's life, from its start on.
		if waiting > 0 && time.Since(lastKill) > time.Duration(1+kills%5)*1500*time.Millisecond {
			if err := lab.KillProcess(ctx, cluster.Scheduler); err != nil {
				t.Fatalf("kill the scheduler: %v", err)
			}
			if err := lab.StartProcess(ctx, cluster.Scheduler); err != nil {
				t.Fatalf("start the scheduler: %v", err)
			}
			kills++
			lastKill = time.Now()
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %s only %d of %d pods have run (%d kills)", limit, len(ran), pods, kills)
		case <-time.After(200 * time.Millisecond):
		}
	}
	if kills < minKills {
		t.Errorf("the scheduler was killed only %d times while pods waited: the test tests little", kills)
	}
	t.Logf("%d pods ran with their assigned units; the scheduler was killed %d times; the node refused %d pods: %q", len(ran), kills, len(refusals), refusals)
}

// look checks one snapshot of all pods, notes those that run, and returns how
// many are not placed yet, and those that the node refused.
func look(t *testing.T, list []corev1.Pod, ran map[string]string) (waiting int, refused []*corev1.Pod) {
	t.Helper()
	tenant := map[string]string{}
	for i := range list {
		p := &list[i]
		switch {
		case ran[p.Name] == "" && scenario.Refused(p):
			if p.DeletionTimestamp == nil {
				refused = append(refused, p)
			}
			continue
		case p.Status.Phase == corev1.PodFailed && ran[p.Name] == "":
			t.Fatalf("%s failed: %s", p.Name, scenario.Describe(p))
		case p.Spec.NodeName == "":
			waiting++
			continue
		case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
			continue
		}
		units, _, err := scenario.Assigned(p)
		if err != nil {
			t.Fatalf("%s is bound without a valid assignment: %v", p.Name, err)
		}
		for _, u := range units {
			if other, taken := tenant[p.Spec.NodeName+" "+u]; taken {
				t.Fatalf("%s is assigned to %s and to %s", u, other, p.Name)
			}
			tenant[p.Spec.NodeName+" "+u] = p.Name
		}
		if p.Status.Phase != corev1.PodRunning {
			continue
		}
		got := scenario.Allocated(p)
		if len(got) == 0 {
			// Kubelet's report comes with a later status.
			continue
		}
		if !slices.Equal(got, units) {
			t.Fatalf("%s: assigned %v, kubelet gave %v", p.Name, units, got)
		}
		if ran[p.Name] == "" {
			ran[p.Name] = units[0]
		}
	}
	return waiting, refused
}
