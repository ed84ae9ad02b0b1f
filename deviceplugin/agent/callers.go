package agent

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	agentrpc "github.com/kubevfio/kubevfio/api/agentrpc/v1"
	"github.com/kubevfio/kubevfio/deviceplugin/agentsocket"
	"github.com/kubevfio/kubevfio/topology"
)

// callers finds the pods of processes that call the socket.
type callers struct{ agent *Agent }

// Pod implements agentsocket.Pods.
func (c callers) Pod(_ context.Context, uid, containerID string) (agentsocket.Pod, error) {
	var out agentsocket.Pod
	if !c.agent.pods.Synced() {
		return out, fmt.Errorf("the agent has just started and does not know the node's pods yet")
	}
	pod := c.agent.pods.ByUID(uid)
	if pod == nil {
		return out, agentsocket.ErrUnknownPod
	}
	out.Namespace, out.Name = pod.Namespace, pod.Name
	holders := map[string]bool{}
	for _, claim := range c.agent.ledger.Claims() {
		if claim.PodUID == uid {
			out.Units = append(out.Units, claim.IDs...)
			holders[claim.Container] = true
		}
	}
	out.LockBase = lockBase(pod, containerID, holders)
	return out, nil
}

// lockBase sums the memory limits of the calling container. Its ID may not be in
// the status yet; then the containers that hold units come into question, the
// smallest of them.
func lockBase(pod *corev1.Pod, containerID string, holders map[string]bool) uint64 {
	name := ""
	for _, s := range pod.Status.ContainerStatuses {
		if containerID != "" && strings.HasSuffix(s.ContainerID, "://"+containerID) {
			name = s.Name
		}
	}
	var least uint64
	for i := range pod.Spec.Containers {
		k := &pod.Spec.Containers[i]
		if name != "" && k.Name != name || name == "" && !holders[k.Name] {
			continue
		}
		n := memoryLimit(k)
		if n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}

func memoryLimit(c *corev1.Container) uint64 {
	var sum uint64
	for r, q := range c.Resources.Limits {
		if r == corev1.ResourceMemory || strings.HasPrefix(string(r), corev1.ResourceHugePagesPrefix) {
			sum += uint64(max(0, q.Value()))
		}
	}
	return sum
}

// vfs finds and sets virtual functions.
type vfs struct{ agent *Agent }

// FindVF implements agentsocket.VFs.
func (v vfs) FindVF(address string) (agentsocket.VF, error) {
	p := v.agent.last()
	if p == nil {
		return agentsocket.VF{}, errNoPicture
	}
	addr, err := topology.ParseAddress(address)
	if err != nil {
		return agentsocket.VF{}, err
	}
	f := p.host.Function(addr)
	if f == nil || f.PF == nil || f.VFIndex < 0 || p.unitOf[addr] == nil {
		return agentsocket.VF{}, agentsocket.ErrNoVF
	}
	out := agentsocket.VF{Unit: p.unitOf[addr].ID.String(), Index: f.VFIndex}
	if pf := p.host.Function(*f.PF); pf != nil && len(pf.Net) > 0 {
		out.PF = pf.Net[0]
	}
	return out, nil
}

// SetVF implements agentsocket.VFs.
func (v vfs) SetVF(ctx context.Context, vf agentsocket.VF, r *agentrpc.ConfigureVFRequest) error {
	return v.agent.net.SetVF(ctx, vf, r)
}
