package launcher

import (
	"strconv"
	"strings"
	"testing"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/scenario"
)

const oneVF = `  devices:
    panicDevices: [{model: pvpanic}]
    autoattachPodInterface: false
    interfaces:
    - {name: vf0, sriov: {deviceName: kubevfio.io/igb-vf}}`

// TestFailures produces failures side by side; each has its exit code and a
// message that says why, and its device is usable afterwards.
func TestFailures(t *testing.T) {
	t.Run("group", func(t *testing.T) {
		t.Run("no huge pages", func(t *testing.T) {
			t.Parallel()
			spec := strings.Replace(guest("256Mi", "", oneVF), "memory: {guest: 256Mi}", "memory: {guest: 256Mi, hugepages: {pageSize: 2Mi}}", 1)
			create(t, scenario.VMPod{Name: "no-hugepages", Spec: spec, Limits: map[string]string{vfResource: "1"}})
			term, o := ended(t, "no-hugepages")
			if term.ExitCode != v1alpha1.ExitQEMUDidNotStart || o.Reason != launcherrpcv1.ReasonHostCannotHold || !strings.Contains(o.Message, "hugepages-2Mi") {
				t.Errorf("exit code %d, %+v", term.ExitCode, o)
			}
		})
		t.Run("too small a memory limit", func(t *testing.T) {
			t.Parallel()
			// The agent raises the lock limit to what the pod's memory limit allows.
			create(t, scenario.VMPod{Name: "memlock", Spec: guest("384Mi", "", oneVF), Memory: "300Mi", Limits: map[string]string{vfResource: "1"}})
			term, o := ended(t, "memlock")
			if term.ExitCode != v1alpha1.ExitMemoryLock || o.Reason != launcherrpcv1.ReasonMemoryLock || !strings.Contains(o.Message, "1408 MiB") {
				t.Errorf("exit code %d, %+v", term.ExitCode, o)
			}
		})
		t.Run("out of memory", func(t *testing.T) {
			t.Parallel()
			create(t, scenario.VMPod{Name: "oom", Spec: guest("384Mi", "", oneVF), Memory: "388Mi", Limits: map[string]string{vfResource: "1"}})
			term, _ := ended(t, "oom")
			if term.ExitCode != 137 || term.Reason != "OOMKilled" {
				t.Errorf("exit code %d, %s; want kubelet's 137, OOMKilled", term.ExitCode, term.Reason)
			}
		})
		t.Run("guest panics", func(t *testing.T) {
			t.Parallel()
			create(t, scenario.VMPod{Name: "panics", Spec: guest("256Mi", "kubevfio.panic=1", oneVF), Limits: map[string]string{vfResource: "1"}})
			term, o := ended(t, "panics")
			if term.ExitCode != v1alpha1.ExitGuestPanicked || o.Reason != launcherrpcv1.ReasonGuestPanicked {
				t.Errorf("exit code %d, %+v", term.ExitCode, o)
			}
		})
		t.Run("QEMU killed", func(t *testing.T) {
			t.Parallel()
			p := create(t, scenario.VMPod{Name: "qemu-killed", Spec: guest("256Mi", "", oneVF), Limits: map[string]string{vfResource: "1"}})
			phase(t, "qemu-killed", launcherrpcv1.PhaseRunning)
			p, err := env.Pod(t.Context(), namespace, p.Name)
			if err != nil {
				t.Fatal(err)
			}
			ps, err := scenario.Processes(t.Context(), lab, p)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range ps {
				if strings.Contains(x.Command, "guest=qemu-killed") {
					if _, err := scenario.NodeOutput(t.Context(), lab, node(), "sh", "-c", "kill -9 "+strconv.Itoa(x.PID)); err != nil {
						t.Fatal(err)
					}
				}
			}
			term, o := ended(t, "qemu-killed")
			if term.ExitCode != v1alpha1.ExitQEMUDied || !strings.Contains(o.Message, "signal 9") {
				t.Errorf("exit code %d, %+v", term.ExitCode, o)
			}
		})
	})
	// All four pods are gone: their functions serve again.
	create(t, scenario.VMPod{Name: "next", Spec: guest("256Mi", "kubevfio.poweroff=1", oneVF), Limits: map[string]string{vfResource: "1"}})
	if term, o := ended(t, "next"); term.ExitCode != 0 || o.Reason != launcherrpcv1.ReasonGuestShutdown {
		t.Errorf("exit code %d, %+v", term.ExitCode, o)
	}
}
