package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/explain"
)

func (s *session) explain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain vm|vmi|pod|node NAME",
		Short: "Say why a guest does not run, or what a node has",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := s.cluster()
			if err != nil {
				return err
			}
			if args[0] == "node" {
				return s.explainNode(cmd.Context(), cl, args[1])
			}
			facts, err := cl.facts(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			report := explain.Explain(*facts)
			if s.output == "json" {
				return s.json(report)
			}
			return s.printReport(args[0]+" "+args[1], report)
		},
	}
}

// facts gathers the objects around a guest.
func (c *cluster) facts(ctx context.Context, kind, name string) (*explain.Facts, error) {
	f := &explain.Facts{Nodes: map[string]*corev1.Node{}, Inventories: map[string]*v1alpha1.NodeInventory{}}
	key := client.ObjectKey{Namespace: c.namespace, Name: name}
	podName := ""
	switch kind {
	case "vm", "kvm":
		f.VM = &v1alpha1.VirtualMachine{}
		if err := c.client.Get(ctx, key, f.VM); err != nil {
			return nil, err
		}
		fallthrough
	case "vmi", "kvmi":
		vmi := &v1alpha1.VirtualMachineInstance{}
		switch err := c.client.Get(ctx, key, vmi); {
		case err == nil:
			f.VMI, podName = vmi, vmi.Status.PodName
		case !apierrors.IsNotFound(err) || f.VM == nil:
			return nil, err
		}
	case "pod":
		podName = name
	default:
		return nil, fmt.Errorf("%w: %q: want vm, vmi, pod or node", ErrUsage, kind)
	}
	if podName != "" {
		pod := &corev1.Pod{}
		switch err := c.client.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: podName}, pod); {
		case err == nil:
			f.Pod = pod
		case !apierrors.IsNotFound(err) || kind == "pod":
			return nil, err
		}
	}
	if f.Pod == nil {
		return f, nil
	}
	return f, c.surroundings(ctx, f)
}

// surroundings reads events, nodes, inventories and pods. What the caller may not
// read stays absent: an owner of VMs need not be allowed to see nodes.
func (c *cluster) surroundings(ctx context.Context, f *explain.Facts) error {
	var failures []error
	may := func(err error) bool {
		if err != nil && !apierrors.IsForbidden(err) {
			failures = append(failures, err)
		}
		return err == nil
	}
	events, err := c.kube.CoreV1().Events(c.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(f.Pod.UID) + ",type=Warning",
	})
	if may(err) {
		slices.SortStableFunc(events.Items, func(a, b corev1.Event) int { return eventTime(&a).Compare(eventTime(&b).Time) })
		for _, e := range events.Items {
			f.Events = append(f.Events, explain.Event{Reason: e.Reason, Message: e.Message})
		}
	}
	var nodes corev1.NodeList
	if may(c.client.List(ctx, &nodes)) {
		for i := range nodes.Items {
			f.Nodes[nodes.Items[i].Name] = &nodes.Items[i]
		}
	}
	var inventories v1alpha1.NodeInventoryList
	if may(c.client.List(ctx, &inventories)) {
		for i := range inventories.Items {
			f.Inventories[inventories.Items[i].Name] = &inventories.Items[i]
		}
	}
	var pods corev1.PodList
	if may(c.client.List(ctx, &pods)) {
		f.Pods = pods.Items
	}
	var usages v1alpha1.NodeUsageList
	if may(c.client.List(ctx, &usages)) {
		f.Usages = usages.Items
	}
	if len(failures) > 0 {
		return failures[0]
	}
	return nil
}

func eventTime(e *corev1.Event) metav1.Time {
	switch {
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp
	case e.Series != nil:
		return metav1.NewTime(e.Series.LastObservedTime.Time)
	}
	return metav1.NewTime(e.EventTime.Time)
}

func (s *session) printReport(what string, r explain.Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", what, r.Cause)
	if r.Next != "" {
		fmt.Fprintf(&b, "next: %s\n", r.Next)
	}
	if len(r.Asked) > 0 {
		var list []string
		for _, res := range slices.Sorted(maps.Keys(r.Asked)) {
			list = append(list, fmt.Sprintf("%d %s", r.Asked[res], res))
		}
		fmt.Fprintf(&b, "\nasked for:  %s\n", strings.Join(list, ", "))
		if r.Alignment != "" {
			fmt.Fprintf(&b, "alignment:  %s\n", r.Alignment)
		}
	}
	byResource := func(title string, m map[string][]string) {
		for _, res := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(&b, "%-11s %s: %s\n", title, res, strings.Join(m[res], " "))
		}
	}
	if r.Node != "" {
		fmt.Fprintf(&b, "node:       %s\n", r.Node)
	}
	byResource("chosen:", r.Assigned)
	byResource("given:", r.Given)
	if r.Launcher != nil {
		fmt.Fprintf(&b, "launcher:   exit code %d, %s: %s\n", r.Launcher.ExitCode, r.Launcher.Reason, r.Launcher.Message)
	}
	if r.Node == "" && len(r.Nodes) > 0 {
		b.WriteString("\nnodes:\n")
		for _, n := range r.Nodes {
			fmt.Fprintf(&b, "  %s: %s\n", n.Node, cmp.Or(strings.Join(n.Lacks, "; "), "counts suffice, policy "+cmp.Or(n.Policy, "unknown")))
		}
	}
	if len(r.Events) > 0 && !r.OK {
		b.WriteString("\nlast warnings:\n")
		for _, e := range r.Events {
			fmt.Fprintf(&b, "  %s: %s\n", e.Reason, e.Message)
		}
	}
	_, err := fmt.Fprint(s.out, b.String())
	return err
}
