package devicetopology

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
)

// stateKey is where PreFilter leaves the pod's request.
const stateKey fwk.StateKey = "PreFilter" + Name

// cycle is the plugin's data of one scheduling cycle. It is immutable.
type cycle struct {
	*podRequest
	// nodes is how many nodes the cycle looks at.
	nodes int
	// need is the pod's CPU and memory.
	need engine.Resources
	// mix is what kinds of requests there are; the same for the whole cycle.
	mix *engine.Mix
}

// Clone implements [fwk.StateData].
func (c *cycle) Clone() fwk.StateData { return c }

func readCycle(state fwk.CycleState) *cycle {
	d, err := state.Read(stateKey)
	if err != nil {
		return nil
	}
	c, ok := d.(*cycle)
	if !ok {
		return nil
	}
	return c
}

// PreFilter parses the pod's wish. Pods without one skip the plugin.
func (pl *plugin) PreFilter(_ context.Context, state fwk.CycleState, pod *corev1.Pod, nodes []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	_, wished := pod.Annotations[v1alpha1.AlignmentAnnotation]
	if !wished && !asksExtended(pod) {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	// From here on news about inventories may help the pod, whatever comes.
	pl.waiting.add(pod)
	for _, src := range pl.sources {
		if !src.settled() {
			return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf("the scheduler is still reading %s.%s%s", src.resource, v1alpha1.Group, because(src.err())))
		}
	}
	pr, err := parsePod(pod, pl.inv.ours)
	if err != nil {
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, err.Error())
	}
	if pr == nil {
		pl.waiting.remove(pod.UID)
		return nil, fwk.NewStatus(fwk.Skip)
	}
	pr.pod = pl.inv.interner.Pod(pr.pod)
	f := pl.inv.fitness(pr.pod.Request)
	if f.miss != "" {
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, f.miss)
	}
	c := &cycle{podRequest: pr, nodes: len(nodes), need: needs(pod)}
	if pl.waiting.first(pod.UID) {
		pl.seen.Observe(pr.pod.Request, c.need)
	}
	c.mix = pl.seen.Mix()
	state.Write(stateKey, c)
	pl.memos.settle(len(nodes))
	if f.nodes != nil {
		// Facts about hardware only: what is excluded here is never preempted on.
		return &fwk.PreFilterResult{NodeNames: f.nodes}, nil
	}
	return nil, nil
}

// needs are the CPU and memory that the pod's long-running containers ask for.
func needs(pod *corev1.Pod) engine.Resources {
	var r engine.Resources
	eachDeviceContainer(pod, func(c *corev1.Container) {
		r.MilliCPU += c.Resources.Requests.Cpu().MilliValue()
		r.Memory += c.Resources.Requests.Memory().Value()
	})
	return r
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// PreFilterExtensions is nil: Filter reads the NodeInfo that it is given, which
// already has the pods of dry runs added and removed.
func (pl *plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter reports whether the node has a legal set of devices for the pod.
func (pl *plugin) Filter(_ context.Context, state fwk.CycleState, _ *corev1.Pod, ni fwk.NodeInfo) *fwk.Status {
	c := readCycle(state)
	if c == nil {
		return nil
	}
	e, st, bad := pl.lookup(ni)
	if bad != nil {
		return bad
	}
	if engine.Fits(st, c.pod, c.mix) {
		return nil
	}
	name := ni.Node().Name
	if c.nodes > *pl.args.NamedNodes {
		name = ""
	}
	reason := engine.Explain(st, c.pod, name)
	if engine.Never(e.node.Shape, c.pod.Request) {
		// Evicting pods cannot help.
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reason)
	}
	return fwk.NewStatus(fwk.Unschedulable, reason)
}

// usable says why a node cannot be judged, nil when it can. No eviction helps
// there; the agent's next inventory does.
func usable(e *nodeEntry, node *corev1.Node) *fwk.Status {
	switch {
	case e == nil:
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "node(s) without a device inventory: no KubeVFIO agent has published one")
	case e.err != nil:
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "node(s) with an unusable device inventory: "+e.err.Error())
	case e.bootID != "" && node.Status.NodeInfo.BootID != "" && e.bootID != node.Status.NodeInfo.BootID:
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "node(s) whose device inventory is from before the last boot: waiting for the KubeVFIO agent")
	}
	return nil
}

// PreScore skips scoring for pods without devices.
func (pl *plugin) PreScore(_ context.Context, state fwk.CycleState, _ *corev1.Pod, _ []fwk.NodeInfo) *fwk.Status {
	if readCycle(state) == nil {
		return fwk.NewStatus(fwk.Skip)
	}
	return nil
}

// Score prefers the node whose best choice comes nearest to the wish, then the
// one that loses least for other pods: 0 to 100.
func (pl *plugin) Score(_ context.Context, state fwk.CycleState, _ *corev1.Pod, ni fwk.NodeInfo) (int64, *fwk.Status) {
	c := readCycle(state)
	if c == nil {
		return 0, nil
	}
	_, st, bad := pl.lookup(ni)
	if bad != nil {
		return 0, nil
	}
	have := engine.Resources{
		MilliCPU: ni.GetAllocatable().GetMilliCPU() - ni.GetRequested().GetMilliCPU(),
		Memory:   ni.GetAllocatable().GetMemory() - ni.GetRequested().GetMemory(),
	}
	return engine.Score(st, c.pod, c.mix, have, c.need), nil
}

// ScoreExtensions is nil: scores are already 0 to 100.
func (pl *plugin) ScoreExtensions() fwk.ScoreExtensions { return nil }
