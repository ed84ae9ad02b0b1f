package e2e

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/scenario"
)

// TestAcrossNodes needs a lab of two nodes (E2E_NODES=2): two VMs on different nodes ping each other over their virtual
// functions, and pods of one node reach pods of the other.
func TestAcrossNodes(t *testing.T) {
	if len(lab.Nodes()) < 2 {
		t.Skip("this lab has one node; E2E_NODES=2 boots two")
	}
	first, second := lab.Nodes()[0], lab.Nodes()[1]

	t.Run("pod network", func(t *testing.T) {
		pods, err := env.Core.CoreV1().Pods(v1alpha1.SystemNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=kubevfio-agent"})
		if err != nil {
			t.Fatal(err)
		}
		address := map[string]string{}
		for i := range pods.Items {
			address[pods.Items[i].Spec.NodeName] = pods.Items[i].Status.PodIP
		}
		// From the first node's agent pod: its network namespace is the pod network of that node.
		out, err := scenario.NodeOutput(t.Context(), lab, first, "sh", "-c",
			`nsenter -n -t "$(pgrep -f '^/kubevfio-agent run' | head -1)" ping -c 3 -W 5 `+address[second])
		if err != nil || !strings.Contains(out, " 0% packet loss") {
			t.Errorf("from a pod of %s to %s on %s: %v: %s", first, address[second], second, err, out)
		}
	})
	t.Run("virtual functions", func(t *testing.T) {
		create(t, examplePod(t, "two-vms/vm-a.yaml", "vm-1", onNode(first)))
		create(t, examplePod(t, "two-vms/vm-b.yaml", "vm-2", onNode(second)))
		for _, name := range []string{"vm-1", "vm-2"} {
			running(t, name)
		}
		for _, name := range []string{"vm-1", "vm-2"} {
			g := console(t, name, "answers to 3 pings from the other node's guest", 8*time.Minute, atLeast(3))
			v, err := env.Report(t.Context(), lab, namespace, name, vfID, g)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %+v", name, *v)
		}
	})
}
