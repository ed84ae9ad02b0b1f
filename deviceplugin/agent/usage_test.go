package agent

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
)

func TestDeparted(t *testing.T) {
	d := &departed{}
	woken := d.changed()
	select {
	case <-woken:
		t.Fatal("nobody has left")
	default:
	}
	d.add("a")
	d.add("b")
	d.add("a") // its second unit
	select {
	case <-woken:
	default:
		t.Error("nobody is told")
	}
	if diff := cmp.Diff([]string{"b", "a"}, d.without(nil)); diff != "" {
		t.Errorf("departed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b"}, d.without([]handoff.Claim{{PodUID: "a"}, {PodUID: "c"}})); diff != "" {
		t.Errorf("one still holds a unit (-want +got):\n%s", diff)
	}
	for i := range v1alpha1.MaxReleased + 5 {
		d.add(fmt.Sprint(i))
	}
	got := d.without(nil)
	if len(got) != v1alpha1.MaxReleased || got[0] != "5" {
		t.Errorf("%d, from %s on", len(got), got[0])
	}
}
