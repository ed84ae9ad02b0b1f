package launcher

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/scenario"
	"github.com/kubevfio/kubevfio/test/testbed"
)

const (
	namespace  = testbed.Namespace
	vfResource = testbed.VFResource
	vfID       = testbed.VFID
	// hugePages is how many 2 MiB pages a node sets aside.
	hugePages = 300
)

// The one lab of this package; TestMain makes it, tests only read it.
var (
	lab *cluster.Cluster
	env *scenario.Env
)

func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Options{
		Lab:     cluster.Config{HugePages2M: hugePages},
		Offered: map[string]int64{vfResource: 2, v1alpha1.ResourceKVM: 2, "kubevfio.io/gpu": 1, "kubevfio.io/nvme": 1},
	}, func(b *testbed.Bed) { lab, env = b.Lab, b.Env })
}

func node() string { return lab.Nodes()[0] }

// guest is a VM specification: kernel boot of the lab's guest with more of the
// domain below.
func guest(memory, kernelArgs, more string) string {
	return fmt.Sprintf(`domain:
  cpu: {cores: 1}
  firmware:
    kernelBoot:
      kernelArgs: console=ttyS0 quiet tsc=reliable no_timer_check kubevfio.passt=off %s
      container: {kernelPath: /guest/boot/vmlinux, initrdPath: /guest/boot/initrd}
  memory: {guest: %s}
%s
terminationGracePeriodSeconds: 30
`, kernelArgs, memory, more)
}

// create makes a pod and deletes it when the test ends.
func create(t *testing.T, v scenario.VMPod) *corev1.Pod {
	t.Helper()
	v.Namespace, v.Node = namespace, node()
	p, err := env.Core.CoreV1().Pods(namespace).Create(t.Context(), v.Build(), metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create pod %s: %v", v.Name, err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if t.Failed() {
			dump(ctx, t, p.Name)
		}
		_ = env.Core.CoreV1().Pods(namespace).Delete(ctx, p.Name, metav1.DeleteOptions{})
		if err := env.WaitGone(ctx, 2*time.Minute, namespace, p.Name); err != nil {
			t.Error(err)
		}
	})
	return p
}

// dump logs what a failing pod said.
func dump(ctx context.Context, t *testing.T, name string) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if p, err := env.Pod(ctx, namespace, name); err == nil {
		t.Logf("%s: %s", name, scenario.Describe(p))
	}
	for _, args := range [][]string{
		{"-n", namespace, "logs", name, "--tail=80"},
		{"-n", namespace, "get", "events", "--field-selector=involvedObject.name=" + name, "-o=custom-columns=REASON:.reason,MESSAGE:.message"},
	} {
		out, err := env.Run(ctx, args...)
		t.Logf("kubectl %s (%v):\n%s", strings.Join(args, " "), err, out)
	}
}

// up waits until the guest has said all of its report.
func up(t *testing.T, name string) *scenario.Guest {
	t.Helper()
	g, err := env.Console(t.Context(), 10*time.Minute, namespace, name, "the guest's report", func(g *scenario.Guest) bool {
		return g.Contains("KUBEVFIO-GUEST report-end")
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// phase waits for the launcher's phase.
func phase(t *testing.T, name string, want launcherrpcv1.Phase) *launcherrpcv1.State {
	t.Helper()
	var st *launcherrpcv1.State
	err := scenario.Poll(t.Context(), 4*time.Minute, name+" in phase "+string(want), func(ctx context.Context) (bool, string, error) {
		var err error
		if st, err = env.LauncherState(ctx, namespace, name); err != nil {
			return false, "", err
		}
		return st.Phase == want, string(st.Phase), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// ended waits for the container's end and gives its status and outcome.
func ended(t *testing.T, name string) (corev1.ContainerStateTerminated, launcherrpcv1.Outcome) {
	t.Helper()
	var term *corev1.ContainerStateTerminated
	err := scenario.Poll(t.Context(), 10*time.Minute, name+" ended", func(ctx context.Context) (bool, string, error) {
		p, err := env.Pod(ctx, namespace, name)
		if err != nil {
			return false, "", err
		}
		if len(p.Status.ContainerStatuses) > 0 {
			term = p.Status.ContainerStatuses[0].State.Terminated
		}
		return term != nil, scenario.Describe(p), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	o, _ := launcherrpcv1.ParseOutcome([]byte(term.Message))
	t.Logf("%s ended with exit code %d, %s: %s", name, term.ExitCode, term.Reason, term.Message)
	return *term, o
}

// typed sends lines to the guest's shell by the launcher's proxy.
func typed(t *testing.T, name, lines string) {
	t.Helper()
	_, err := env.RunInput(t.Context(), strings.NewReader("\n"+lines+"\n"), "-n", namespace, "exec", "-i", name, "-c", scenario.Container, "--",
		"timeout", "5", "/usr/bin/kubevfio-launcher", "proxy", "console")
	if err != nil && !strings.Contains(err.Error(), "exit code 124") {
		t.Fatal(err)
	}
}

// says waits until the console has shown a text.
func says(t *testing.T, name, text string) *scenario.Guest {
	t.Helper()
	g, err := env.Console(t.Context(), time.Minute, namespace, name, "the text "+text, func(g *scenario.Guest) bool { return g.Contains(text) })
	if err != nil {
		t.Fatal(err)
	}
	return g
}
