package launcher

import (
	"context"
	"fmt"
	"testing"
	"time"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/test/scenario"
)

// TestTakenAway removes a device on the node under a running guest: the guest
// gives it back and goes on, and the launcher says so.
func TestTakenAway(t *testing.T) {
	name := "taken-away"
	create(t, scenario.VMPod{
		Name: name, Limits: map[string]string{"kubevfio.io/nvme": "1"},
		Spec: guest("256Mi", "", "  devices:\n    autoattachPodInterface: false\n    hostDevices:\n    - {name: nvme0, deviceName: kubevfio.io/nvme}"),
	})
	if g := up(t, name); len(g.WithID("1b36:0010")) != 1 {
		t.Fatalf("the guest has no NVMe controller: %v", g.PCI)
	}
	st := phase(t, name, launcherrpcv1.PhaseRunning)
	if len(st.Devices) != 1 {
		t.Fatalf("devices %+v", st.Devices)
	}
	remove := fmt.Sprintf("(echo 1 >/sys/bus/pci/devices/%s/remove) >/dev/null 2>&1 & exit 0", st.Devices[0].Host)
	if _, err := scenario.NodeOutput(t.Context(), lab, node(), "sh", "-c", remove); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := scenario.NodeOutput(context.WithoutCancel(t.Context()), lab, node(), "sh", "-c", "echo 1 >/sys/bus/pci/rescan"); err != nil {
			t.Error(err)
		}
	})
	err := scenario.Poll(t.Context(), 2*time.Minute, "the launcher notices", func(ctx context.Context) (bool, string, error) {
		st, err := env.LauncherState(ctx, namespace, name)
		if err != nil {
			return false, "", err
		}
		return len(st.Devices) == 1 && st.Devices[0].TakenAway, fmt.Sprintf("%+v", st.Devices), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	typed(t, name, `printf "still-%d-here\n" 42`)
	says(t, name, "still-42-here")
}
