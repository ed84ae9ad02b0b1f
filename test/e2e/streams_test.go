package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// streams uses what the API server reaches through a node's kubelet: logs (which every other test reads as well), exec,
// attach and port-forward, with kubectl as a person would.
func streams(t *testing.T, node, vm string) {
	t.Run("exec", func(t *testing.T) {
		out, err := env.Run(t.Context(), "-n", namespace, "exec", vm, "--", "kubevfio-launcher", "proxy", "state")
		if err != nil || !strings.Contains(out, `"phase": "Running"`) {
			t.Errorf("the launcher's state through exec: %v: %q", err, out)
		}
	})
	t.Run("attach", func(t *testing.T) {
		// The guest prints its pings for ever, so a line of them must come in.
		line := firstLine(t, `KUBEVFIO-GUEST ping`, "-n", namespace, "attach", vm)
		t.Log(line)
	})
	t.Run("port-forward", func(t *testing.T) {
		pods, err := env.Core.CoreV1().Pods(v1alpha1.SystemNamespace).List(t.Context(), metav1.ListOptions{
			LabelSelector: "app.kubernetes.io/name=kubevfio-agent", FieldSelector: "spec.nodeName=" + node})
		if err != nil || len(pods.Items) != 1 {
			t.Fatalf("agent's pod on %s: %v (%d found)", node, err, len(pods.Items))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		line := startKubectl(ctx, t, `Forwarding from 127\.0\.0\.1:(\d+)`, "-n", v1alpha1.SystemNamespace, "port-forward", "pod/"+pods.Items[0].Name, ":9180")
		url := fmt.Sprintf("http://127.0.0.1:%s/metrics", line[1])
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("through the forwarded port: %v", err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(body), "kubevfio_agent_") {
			t.Errorf("the agent's metrics through the forwarded port: %v, %s: %.200s", err, resp.Status, body)
		}
	})
}

// firstLine runs kubectl until a line of its standard output matches, ends it and returns the line.
func firstLine(t *testing.T, pattern string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return startKubectl(ctx, t, pattern, args...)[0]
}

// startKubectl runs kubectl, returns the submatches of the first line of its standard output that matches, and leaves it
// running until ctx or the test ends.
func startKubectl(ctx context.Context, t *testing.T, pattern string, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, env.Kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+env.Kubeconfig)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	match := regexp.MustCompile(pattern)
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		if m := match.FindStringSubmatch(sc.Text()); m != nil {
			go func() { _, _ = io.Copy(io.Discard, out) }() // a full pipe would stop it
			return m
		}
	}
	cancel()
	_ = cmd.Wait() // why it ended is in errs
	t.Fatalf("kubectl %s: no line with %q before it ended or the time was over: %s", strings.Join(args, " "), pattern, errs.String())
	return nil
}
