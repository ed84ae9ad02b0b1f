package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/scenario"
)

const (
	containerdConf = "/etc/containerd/config.toml"
	byPathFlag     = "--device-files=paths"
	withoutCDI     = "enable_cdi = false"
)

// agentFlag puts a flag to the agent's command or takes it away, and waits for the
// agent that has it so.
func agentFlag(ctx context.Context, t *testing.T, patch string) {
	t.Helper()
	if out, err := env.Run(ctx, "-n", "kubevfio-system", "patch", "daemonset/kubevfio-agent", "--type=json", "-p", patch); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := env.Run(ctx, "-n", "kubevfio-system", "rollout", "status", "daemonset/kubevfio-agent", "--timeout=3m"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestWithoutCDI gives a function by its device nodes, on a container runtime that
// knows no CDI: the container's user can open the group.
func TestWithoutCDI(t *testing.T) {
	before := offered(t, vfResource)
	restart := func(ctx context.Context, edit string) error {
		if _, err := scenario.NodeOutput(ctx, lab, node(), "sed", "-i", edit, containerdConf); err != nil {
			return err
		}
		return lab.RestartNodeProcess(ctx, node(), cluster.Containerd)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
		defer cancel()
		agentFlag(ctx, t, `[{"op":"remove","path":"/spec/template/spec/containers/0/command/2"}]`)
		if err := restart(ctx, "/"+withoutCDI+"/d"); err != nil {
			t.Error(err)
		}
	})
	if err := restart(t.Context(), `s/^\( *\)device_ownership_from_security_context = true$/&\n\1`+withoutCDI+"/"); err != nil {
		t.Fatal(err)
	}
	if n := onNode(t, "grep -c '"+withoutCDI+"' "+containerdConf); n != "1" {
		t.Fatalf("the setting is %s times in containerd's configuration", n)
	}
	agentFlag(t.Context(), t, `[{"op":"add","path":"/spec/template/spec/containers/0/command/-","value":"`+byPathFlag+`"}]`)
	capacity(t, time.Minute, vfResource, before)

	create(t, holder("by-path", map[string]string{vfResource: "1"}))
	units := runs(t, "by-path")
	group := onNode(t, "basename $(readlink /sys/bus/pci/devices/"+units[0]+"/iommu_group)")
	// The container's own process: its environment names the function.
	seen := onNode(t, `for p in /proc/[0-9]*; do
  if tr '\0' '\n' <$p/environ 2>/dev/null | grep -q '^PCIDEVICE_.*=`+units[0]+`$'; then
    stat -c '%n %u %a' $p/root/dev/vfio/* | sed 's|.*/root||'
    break
  fi
done`)
	t.Logf("%s is in group %s; the container has\n%s", units[0], group, seen)
	for _, want := range []string{"/dev/vfio/vfio ", "/dev/vfio/" + group + " 65535 "} {
		if !strings.Contains(seen+"\n", want) {
			t.Errorf("the container lacks %q", want)
		}
	}
}
