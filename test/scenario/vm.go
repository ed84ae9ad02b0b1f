package scenario

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Container is the name of the launcher's container in a VM pod.
const Container = "compute"

// Pod reads a pod.
func (e *Env) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return e.Core.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

// WaitPhase waits until the pod has the phase; a pod that ended otherwise fails
// at once, with its container's message.
func (e *Env) WaitPhase(ctx context.Context, limit time.Duration, namespace, name string, phase corev1.PodPhase) (*corev1.Pod, error) {
	var pod *corev1.Pod
	var ended error
	err := Poll(ctx, limit, fmt.Sprintf("pod %s/%s %s", namespace, name, phase), func(ctx context.Context) (bool, string, error) {
		p, err := e.Pod(ctx, namespace, name)
		if err != nil {
			return false, "", err
		}
		pod = p
		if p.Status.Phase == phase {
			return true, "", nil
		}
		if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
			ended = fmt.Errorf("pod %s/%s ended: %s", namespace, name, Describe(p))
			return true, "", nil
		}
		return false, Describe(p), nil
	})
	return pod, errors.Join(err, ended)
}

// Describe tells a pod's state in one line: phase, reason, container states.
func Describe(p *corev1.Pod) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", p.Status.Phase)
	if p.Status.Reason != "" || p.Status.Message != "" {
		fmt.Fprintf(&b, " %s: %s", p.Status.Reason, p.Status.Message)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue {
			fmt.Fprintf(&b, "; not scheduled: %s", c.Message)
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil:
			fmt.Fprintf(&b, "; %s waits: %s %s", c.Name, c.State.Waiting.Reason, c.State.Waiting.Message)
		case c.State.Terminated != nil:
			fmt.Fprintf(&b, "; %s ended with %d: %s %s", c.Name, c.State.Terminated.ExitCode, c.State.Terminated.Reason, c.State.Terminated.Message)
		}
	}
	return b.String()
}

// Assigned returns the scheduler's decision for the pod: the sorted unit
// addresses of all containers and resources, and the decision itself.
func Assigned(p *corev1.Pod) ([]string, *v1alpha1.Assignment, error) {
	a, err := v1alpha1.DecodeAssignment(p.Annotations[v1alpha1.AssignmentAnnotation])
	if err != nil {
		return nil, nil, fmt.Errorf("pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	if a.PodUID != string(p.UID) || a.Node != p.Spec.NodeName {
		return nil, nil, fmt.Errorf("pod %s/%s: the assignment is for pod %s on %s, not %s on %s",
			p.Namespace, p.Name, a.PodUID, a.Node, p.UID, p.Spec.NodeName)
	}
	var units []string
	for _, resources := range a.Containers {
		for _, addrs := range resources {
			for _, u := range addrs {
				units = append(units, u.String())
			}
		}
	}
	slices.Sort(units)
	return units, a, nil
}

// Allocated returns what kubelet says that it gave to the pod: the sorted
// device IDs of all resources that are not slots.
func Allocated(p *corev1.Pod) []string {
	var units []string
	for _, c := range p.Status.ContainerStatuses {
		for _, r := range c.AllocatedResourcesStatus {
			if strings.HasPrefix(string(r.Name), v1alpha1.SlotPrefix) {
				continue
			}
			for _, d := range r.Resources {
				units = append(units, string(d.ResourceID))
			}
		}
	}
	slices.Sort(units)
	return units
}

// WaitGone waits until the pod is deleted.
func (e *Env) WaitGone(ctx context.Context, limit time.Duration, namespace, name string) error {
	return Poll(ctx, limit, fmt.Sprintf("pod %s/%s gone", namespace, name), func(ctx context.Context) (bool, string, error) {
		p, err := e.Pod(ctx, namespace, name)
		if apierrors.IsNotFound(err) {
			return true, "", nil
		}
		if err != nil {
			return false, "", err
		}
		return false, Describe(p), nil
	})
}

// Console follows the guest's console until done says so of what the guest
// reported, or the limit ends.
func (e *Env) Console(ctx context.Context, limit time.Duration, namespace, name, what string, done func(*Guest) bool) (*Guest, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	g := &Guest{}
	for {
		// A stream ends early when the container restarts or the connection
		// breaks; the log is read again from its start then.
		err := e.follow(ctx, namespace, name, g, done)
		if done(g) {
			return g, nil
		}
		if ctx.Err() != nil {
			return g, fmt.Errorf("guest %s/%s: %s: not after %s; last console lines:\n%s", namespace, name, what, limit, g.Tail(25))
		}
		pod, perr := e.Pod(ctx, namespace, name)
		if perr == nil && (pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded) {
			return g, fmt.Errorf("guest %s/%s: %s: the pod ended: %s; last console lines:\n%s", namespace, name, what, Describe(pod), g.Tail(25))
		}
		if err != nil && perr != nil {
			return g, errors.Join(err, perr)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (e *Env) follow(ctx context.Context, namespace, name string, g *Guest, done func(*Guest) bool) error {
	rc, err := e.Core.CoreV1().Pods(namespace).GetLogs(name, &corev1.PodLogOptions{Container: Container, Follow: true}).Stream(ctx)
	if err != nil {
		return fmt.Errorf("logs of %s/%s: %w", namespace, name, err)
	}
	defer rc.Close()
	*g = Guest{}
	sc := bufio.NewScanner(rc)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	for sc.Scan() {
		g.Read(sc.Text())
		if done(g) {
			return nil
		}
	}
	return sc.Err()
}
