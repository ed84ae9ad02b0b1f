package handoff

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// assigned are the units that a pod's assignment names for a container; false
// when the pod has no assignment.
func assigned(p *Pod, container, resource string) ([]string, bool) {
	if p.Assignment == nil {
		return nil, false
	}
	return unitsOf(p.Assignment, container, resource), true
}

func unitsOf(a *v1alpha1.Assignment, container, resource string) []string {
	units := a.Containers[container][resource]
	out := make([]string, len(units))
	for i, u := range units {
		out[i] = u.String()
	}
	return out
}

func startedWith(p *Pod, container string) bool {
	for i := range p.Containers {
		if p.Containers[i].Name == container {
			return p.Containers[i].Started
		}
	}
	return false
}

func sameSet(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	set := make(map[string]bool, len(a))
	for _, s := range a {
		set[s] = true
	}
	for _, s := range b {
		if !set[s] {
			return false
		}
	}
	return len(set) == len(b)
}

// list shortens long lists for messages.
func list(ids []string) string {
	if len(ids) == 0 {
		return "nothing"
	}
	ids = slices.Sorted(slices.Values(ids))
	if len(ids) > 8 {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:8], ", "), len(ids)-8)
	}
	return strings.Join(ids, ", ")
}

// clonePods makes a map by UID.
func clonePods(pods []Pod) map[string]*Pod {
	out := make(map[string]*Pod, len(pods))
	for i := range pods {
		out[pods[i].UID] = &pods[i]
	}
	return out
}
