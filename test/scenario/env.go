package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Env is a cluster to act on.
type Env struct {
	// Kubectl and Kubeconfig are host paths; Checkout is the repository's root.
	Kubectl    string
	Kubeconfig string
	Checkout   string
	// Core is the typed client, Objects reads and writes our own kinds too.
	Core    kubernetes.Interface
	Objects client.Client
}

// New connects to the cluster of a kubeconfig.
func New(kubectl, kubeconfig, checkout string) (*Env, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", kubeconfig, err)
	}
	cfg.QPS, cfg.Burst = 50, 100
	core, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("scheme: %w", err)
	}
	objects, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return &Env{Kubectl: kubectl, Kubeconfig: kubeconfig, Checkout: checkout, Core: core, Objects: objects}, nil
}

// Run calls kubectl and returns its standard output; an error carries what it
// printed on standard error.
func (e *Env) Run(ctx context.Context, args ...string) (string, error) {
	return e.RunInput(ctx, nil, args...)
}

// RunInput is [Env.Run] with a standard input.
func (e *Env) RunInput(ctx context.Context, in io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, e.Kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.Kubeconfig)
	cmd.Dir = e.Checkout
	cmd.Stdin = in
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// ApplyKustomization is `kubectl apply -k DIR`. Custom objects in the same
// folder as their definitions need a moment until the API server serves the
// new kinds, so it is repeated for up to two minutes.
func (e *Env) ApplyKustomization(ctx context.Context, dir string) error {
	return Poll(ctx, 2*time.Minute, "kubectl apply -k "+dir, func(ctx context.Context) (bool, string, error) {
		_, err := e.Run(ctx, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(e.Checkout, dir))
		return err == nil, "", err
	})
}

// Poll calls cond every half second until it is true, fails with its last
// explanation when ctx or the limit ends.
func Poll(ctx context.Context, limit time.Duration, what string, cond func(context.Context) (done bool, state string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	state := ""
	for {
		done, s, err := cond(ctx)
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			state = s
		case ctx.Err() == nil || state == "":
			state = err.Error()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not after %s: %s: %w", what, limit, state, context.Cause(ctx))
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// WaitOffered waits until every node has published an inventory whose units are
// all ready, and its kubelet offers at least the given numbers of units, by resource name.
func (e *Env) WaitOffered(ctx context.Context, limit time.Duration, want map[string]int64) error {
	return Poll(ctx, limit, "hardware offered by every node", func(ctx context.Context) (bool, string, error) {
		nodes, err := e.Core.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, "", err
		}
		if len(nodes.Items) == 0 {
			return false, "no nodes", nil
		}
		for i := range nodes.Items {
			n := &nodes.Items[i]
			for r, least := range want {
				q := n.Status.Allocatable[corev1.ResourceName(r)]
				if q.Value() < least {
					return false, fmt.Sprintf("node %s offers %d of %d %s%s", n.Name, q.Value(), least, r, e.agentState(ctx)), nil
				}
			}
			var inv v1alpha1.NodeInventory
			if err := e.Objects.Get(ctx, client.ObjectKey{Name: n.Name}, &inv); err != nil {
				return false, "", err
			}
			if s := inv.Spec.Summary; s.Ready < s.Units {
				return false, fmt.Sprintf("node %s has %d of %d units ready: %s", n.Name, s.Ready, s.Units, s.Problem), nil
			}
		}
		return true, "", nil
	})
}

// agentState says in a few words how the agent pods are, for failure messages.
func (e *Env) agentState(ctx context.Context) string {
	pods, err := e.Core.CoreV1().Pods(v1alpha1.SystemNamespace).List(ctx, metav1.ListOptions{})
	if err != nil || len(pods.Items) == 0 {
		return "; no pods in " + v1alpha1.SystemNamespace
	}
	var b strings.Builder
	for i := range pods.Items {
		p := &pods.Items[i]
		fmt.Fprintf(&b, "; pod %s %s", p.Name, p.Status.Phase)
		for _, c := range p.Status.ContainerStatuses {
			switch {
			case c.State.Waiting != nil:
				fmt.Fprintf(&b, " (%s: %s)", c.State.Waiting.Reason, c.State.Waiting.Message)
			case c.State.Terminated != nil:
				fmt.Fprintf(&b, " (exit %d: %s)", c.State.Terminated.ExitCode, c.State.Terminated.Message)
			}
		}
	}
	return b.String()
}

// WaitHeartbeat waits until kubelet has posted the node's status anew, twice:
// what the first one says may have been gathered before the call.
func (e *Env) WaitHeartbeat(ctx context.Context, limit time.Duration, node string) error {
	var seen []time.Time
	return Poll(ctx, limit, "heartbeats of "+node, func(ctx context.Context) (bool, string, error) {
		n, err := e.Core.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && (len(seen) == 0 || !c.LastHeartbeatTime.Time.Equal(seen[len(seen)-1])) {
				seen = append(seen, c.LastHeartbeatTime.Time)
			}
		}
		return len(seen) > 2, fmt.Sprintf("%d heartbeats", len(seen)), nil
	})
}

// WaitReleased waits until the node's agent reports that no pod holds any of
// the units.
func (e *Env) WaitReleased(ctx context.Context, limit time.Duration, node string, units []string) error {
	return Poll(ctx, limit, fmt.Sprintf("%v released on %s", units, node), func(ctx context.Context) (bool, string, error) {
		var usage v1alpha1.NodeUsage
		if err := e.Objects.Get(ctx, client.ObjectKey{Name: node}, &usage); err != nil {
			return false, "", err
		}
		for _, p := range usage.Spec.Pods {
			for resource, held := range p.Devices {
				for _, u := range held {
					if slices.Contains(units, u) {
						return false, fmt.Sprintf("%s of %s is held by pod %s", u, resource, p.UID), nil
					}
				}
			}
		}
		return true, "", nil
	})
}
