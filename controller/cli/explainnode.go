package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/explain"
)

func (s *session) explainNode(ctx context.Context, cl *cluster, name string) error {
	in := explain.NodeInput{Name: name}
	var (
		node corev1.Node
		inv  v1alpha1.NodeInventory
	)
	found, err := cl.maybe(ctx, name, &node)
	if err != nil {
		return err
	}
	if found {
		in.Node = &node
	}
	if found, err = cl.maybe(ctx, name, &inv); err != nil {
		return err
	}
	if found {
		in.Inventory = &inv
	}
	held, partial, err := cl.holders(ctx)
	if err != nil {
		return err
	}
	in.Held = held
	s.note(partial)
	r := explain.ExplainNode(in)
	if s.output == "json" {
		return s.json(r)
	}
	return s.printNodeReport(r)
}

// maybe reads a cluster-scoped object that may be absent, or not be for the caller.
func (c *cluster) maybe(ctx context.Context, name string, into client.Object) (bool, error) {
	err := c.client.Get(ctx, client.ObjectKey{Name: name}, into)
	if _, isNode := into.(*corev1.Node); apierrors.IsNotFound(err) && !typeMissing(err) || isNode && apierrors.IsForbidden(err) {
		return false, nil
	}
	return err == nil, err
}

func (s *session) printNodeReport(r explain.NodeReport) error {
	var b strings.Builder
	fmt.Fprintln(&b, r.Cause)
	if r.Next != "" {
		fmt.Fprintf(&b, "next: %s\n", r.Next)
	}
	for _, text := range r.Remarks {
		fmt.Fprintf(&b, "note: %s\n", text)
	}
	if _, err := fmt.Fprint(s.out, b.String()); err != nil {
		return err
	}
	b.Reset()
	if len(r.Resources) > 0 {
		rows := [][]string{{"\nRESOURCE", "UNITS", "READY", "HELD", "FREE", "KUBELET OFFERS"}}
		for _, name := range slices.Sorted(maps.Keys(r.Resources)) {
			c := r.Resources[name]
			offers := "?"
			if c.Allocatable >= 0 {
				offers = strconv.FormatInt(c.Allocatable, 10)
			}
			rows = append(rows, []string{name, strconv.Itoa(c.Total), strconv.Itoa(c.Ready), strconv.Itoa(c.Held), strconv.Itoa(c.Free), offers})
		}
		if err := s.table(rows); err != nil {
			return err
		}
	}
	section := func(title string, keys []string, line func(string) string) {
		if len(keys) > 0 {
			fmt.Fprintf(&b, "\n%s:\n", title)
		}
		for _, k := range keys {
			fmt.Fprintf(&b, "  %s: %s\n", k, line(k))
		}
	}
	section("not ready", slices.Sorted(maps.Keys(r.Problems)), func(k string) string { return strings.TrimPrefix(r.Problems[k], k+": ") })
	section("holders", slices.Sorted(maps.Keys(r.Holders)), func(k string) string { return strings.Join(r.Holders[k], " ") })
	if k := r.Kubelet; k != nil {
		fmt.Fprintf(&b, "\nkubelet: topology manager %s, CPU manager %s, memory manager %s\n",
			cmp.Or(k.TopologyManagerPolicy, "unknown"), cmp.Or(k.CPUManagerPolicy, "unknown"), cmp.Or(k.MemoryManagerPolicy, "unknown"))
	}
	if l := r.Launcher; l != nil {
		fmt.Fprintf(&b, "launcher: seccomp profile %s, /dev/kvm %s\n", there(l.Seccomp), there(l.KVM))
	}
	_, err := fmt.Fprint(s.out, b.String())
	return err
}

func there(ok bool) string {
	if ok {
		return "is there"
	}
	return "is missing"
}
