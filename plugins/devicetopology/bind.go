package devicetopology

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
)

// Reserve picks the exact devices and keeps them in memory.
func (pl *plugin) Reserve(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, node string) *fwk.Status {
	c := readCycle(state)
	if c == nil {
		return nil
	}
	ni, err := pl.handle.SnapshotSharedLister().NodeInfos().Get(node)
	if err != nil {
		return fwk.AsStatus(fmt.Errorf("read node %s from the snapshot: %w", node, err))
	}
	e := pl.inv.get(node)
	if st := usable(e, ni.Node()); st != nil {
		return st
	}
	st, _ := pl.buildState(e, node, ni.GetPods(), pod.UID)
	choice, ok := engine.Place(st, c.pod, c.mix)
	if !ok {
		return fwk.NewStatus(fwk.Unschedulable, engine.Explain(st, c.pod, node))
	}
	a, err := c.assign(e.node, choice, string(pod.UID), node)
	if err != nil {
		return fwk.AsStatus(err)
	}
	text, err := a.Encode()
	if err != nil {
		return fwk.AsStatus(err)
	}
	pl.ledger.put(pod.UID, &reservation{node: node, assignment: a, encoded: text, live: true})
	klog.FromContext(ctx).V(3).Info("Reserved devices", "pod", klog.KObj(pod), "node", node, "assignment", text)
	return nil
}

// Unreserve leaves a tombstone: the scheduler's cache still holds the pod when
// this is called. The tombstone counts for as long as the pod is in NodeInfo.
func (pl *plugin) Unreserve(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, _ string) {
	pl.ledger.settle(pod.UID)
}

// Bind writes the node's name and the assignment in one API call: annotations
// of a Binding are merged into the pod in the same write. For pods without
// devices it does what the scheduler's DefaultBinder does.
func (pl *plugin) Bind(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, node string) *fwk.Status {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	var r *reservation
	if readCycle(state) != nil {
		r = pl.ledger.get(pod.UID)
		if r == nil || r.node != node || !r.live {
			return fwk.AsStatus(fmt.Errorf("no reservation of devices for pod %s on node %s", klog.KObj(pod), node))
		}
		binding.Annotations = map[string]string{v1alpha1.AssignmentAnnotation: r.encoded}
	}
	err := pl.send(ctx, binding)
	if r != nil {
		pl.bound(pod, r, err)
	}
	if err != nil {
		return fwk.AsStatus(err)
	}
	return nil
}

// bound notes the outcome of a Binding with an assignment. When the API server
// did not clearly refuse it, the Binding may still come true although the
// scheduler now forgets the pod: the units stay taken until the pod is seen
// bound or deleted, or is bound again by us.
func (pl *plugin) bound(pod *corev1.Pod, r *reservation, err error) {
	switch {
	case err == nil:
		pl.ledger.settle(pod.UID)
		pl.ledger.release("", pod.UID)
		pl.waiting.remove(pod.UID)
	case !refused(err):
		pl.ledger.hold(r.node, pod.UID, r.assignment, holdBinding)
	}
}

// refused reports whether an error says for sure that nothing was written.
func refused(err error) bool {
	if apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsInternalError(err) || apierrors.IsUnexpectedServerError(err) {
		return false
	}
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

// send makes the API call, through the scheduler's cache where it has one.
func (pl *plugin) send(ctx context.Context, binding *corev1.Binding) error {
	if api := pl.handle.APICacher(); api != nil {
		done, err := api.BindPod(binding)
		if err != nil {
			return err
		}
		return api.WaitOnFinish(ctx, done)
	}
	return pl.handle.ClientSet().CoreV1().Pods(binding.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
}
