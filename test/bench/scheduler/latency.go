package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology"
	"github.com/kubevfio/kubevfio/topology"
)

// percentiles of microseconds.
type percentiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// snapshot is the part of a scheduler that the plugin looks at.
type snapshot struct {
	fwk.Handle
	list  []fwk.NodeInfo
	infos map[string]fwk.NodeInfo
}

func (s *snapshot) SnapshotSharedLister() fwk.SharedLister { return s }
func (s *snapshot) NodeInfos() fwk.NodeInfoLister          { return lister{s} }
func (s *snapshot) StorageInfos() fwk.StorageInfoLister    { return nil }

func (s *snapshot) PodGroupStates() fwk.PodGroupStateLister { return nil }

type lister struct{ s *snapshot }

func (l lister) List() ([]fwk.NodeInfo, error) { return l.s.list, nil }

func (l lister) Get(n string) (fwk.NodeInfo, error) { return l.s.infos[n], nil }

func (l lister) HavePodsWithAffinityList() ([]fwk.NodeInfo, error) { return nil, nil }

func (l lister) HavePodsWithRequiredAntiAffinityList() ([]fwk.NodeInfo, error) { return nil, nil }

// gpuPod asks for n GPUs and n VFs below one root complex.
func gpuPod(name string, n int64) *corev1.Pod {
	req := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("100m"),
		"kubevfio.io/gpu":  *resource.NewQuantity(n, resource.DecimalSI),
		"kubevfio.io/vf":   *resource.NewQuantity(n, resource.DecimalSI),
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "bench", UID: types.UID(name),
			Annotations: map[string]string{v1alpha1.AlignmentAnnotation: "required:root"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: req, Limits: req}}}},
	}
}

// holder is a pod that has been given the first share of a node's units.
func holder(inv *v1alpha1.NodeInventory, share float64) (*corev1.Pod, error) {
	p := gpuPod("holder-"+inv.Name, 0)
	a := &v1alpha1.Assignment{
		Version: v1alpha1.AssignmentVersion, PodUID: string(p.UID), Node: inv.Name,
		Containers: map[string]map[string][]topology.Address{"c": {}},
	}
	n := int(share * float64(len(inv.Spec.Units)))
	for _, u := range inv.Spec.Units[:n] {
		addr, err := topology.ParseAddress(u.ID)
		if err != nil {
			return nil, err
		}
		res := inv.Spec.Resources[*u.Resource]
		a.Containers["c"][res] = append(a.Containers["c"][res], addr)
		q := p.Spec.Containers[0].Resources.Requests[corev1.ResourceName(res)]
		q.Add(*resource.NewQuantity(1, resource.DecimalSI))
		p.Spec.Containers[0].Resources.Requests[corev1.ResourceName(res)] = q
	}
	text, err := a.Encode()
	p.Annotations[v1alpha1.AssignmentAnnotation] = text
	p.Spec.NodeName = inv.Name
	return p, err
}

// feasibleNodes is how many nodes kube-scheduler looks for before it scores.
func feasibleNodes(nodes int) int {
	return max(100, nodes*max(5, 50-nodes/125)/100)
}

// latency measures pods one after the other on nodes of which share says how
// much is held; it returns µs of PreFilter, Filter, Score and Reserve together.
func latency(nodes, pods int, share func(i int) float64) (percentiles, error) {
	s := &snapshot{infos: make(map[string]fwk.NodeInfo, nodes)}
	off, err := devicetopology.NewOffline(s)
	if err != nil {
		return percentiles{}, err
	}
	for i := range nodes {
		inv := devicetopology.ExampleInventory(fmt.Sprintf("node-%05d", i))
		off.SetInventory(inv)
		ni := framework.NewNodeInfo()
		if f := share(i); f > 0 {
			p, err := holder(inv, f)
			if err != nil {
				return percentiles{}, err
			}
			ni = framework.NewNodeInfo(p)
		}
		ni.SetNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: inv.Name}})
		s.list = append(s.list, ni)
		s.infos[inv.Name] = ni
	}
	pl := off.Plugin()
	preFilter, filter := pl.(fwk.PreFilterPlugin), pl.(fwk.FilterPlugin)
	score, reserve := pl.(fwk.ScorePlugin), pl.(fwk.ReservePlugin)
	ctx := context.Background()
	var took []float64
	start := 0
	for n := range pods + 20 {
		pod := gpuPod(fmt.Sprintf("p%d", n), 2)
		state := framework.NewCycleState()
		begin := time.Now()
		if _, st := preFilter.PreFilter(ctx, state, pod, s.list); !st.IsSuccess() {
			return percentiles{}, fmt.Errorf("PreFilter: %s", st.Message())
		}
		want, seen := feasibleNodes(nodes), 0
		var fit []fwk.NodeInfo
		for seen < nodes && len(fit) < want {
			ni := s.list[(start+seen)%nodes]
			seen++
			if filter.Filter(ctx, state, pod, ni).IsSuccess() {
				fit = append(fit, ni)
			}
		}
		start = (start + seen) % nodes
		var best fwk.NodeInfo
		top := int64(-1)
		for _, ni := range fit {
			v, _ := score.Score(ctx, state, pod, ni)
			if v > top {
				best, top = ni, v
			}
		}
		if best != nil {
			if st := reserve.Reserve(ctx, state, pod, best.Node().Name); !st.IsSuccess() {
				return percentiles{}, fmt.Errorf("reserve: %s", st.Message())
			}
		}
		if n >= 20 { // the first ones warm the memo up
			took = append(took, float64(time.Since(begin).Nanoseconds())/1000)
		}
		if best != nil {
			assumed := pod.DeepCopy()
			assumed.Spec.NodeName = best.Node().Name
			pi, err := framework.NewPodInfo(assumed)
			if err != nil {
				return percentiles{}, err
			}
			best.AddPodInfo(pi)
		}
	}
	slices.Sort(took)
	return percentiles{P50: took[len(took)/2], P99: took[len(took)*99/100]}, nil
}

// latencies runs all cases.
func latencies(sizes []int, pods int) (map[string]percentiles, error) {
	out := map[string]percentiles{}
	for _, n := range sizes {
		for name, share := range map[string]func(i int) float64{
			"empty": func(int) float64 { return 0 },
			"half":  func(int) float64 { return 0.5 },
			"full-ten-left": func(i int) float64 {
				if i%(n/10) == 0 {
					return 0.75
				}
				return 1
			},
			"infeasible": func(int) float64 { return 1 },
		} {
			p := pods
			if name == "full-ten-left" {
				// Ten places, of which the warm-up must leave some.
				p = 20
			}
			r, err := latency(n, p, share)
			if err != nil {
				return nil, fmt.Errorf("%s at %d nodes: %w", name, n, err)
			}
			out[fmt.Sprintf("%s-%d", name, n)] = r
			fmt.Printf("latency %-15s %6d nodes  p50 %9.1f µs  p99 %9.1f µs\n", name, n, r.P50, r.P99)
		}
	}
	return out, nil
}
