package launchercall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// ErrCall is the class of errors about a launcher that cannot be reached or that
// refuses what it is asked.
var ErrCall = errors.New("call the launcher")

const (
	// limit bounds one call.
	limit = 15 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes: it comes from a pod.
	maxAnswer = 1 << 20
)

// Caller calls launchers with the rights of its configuration, which must allow
// create (and get, for WebSockets) on pods/exec.
type Caller struct {
	config *rest.Config
	client rest.Interface
}

// New makes a caller. It does not connect to anything.
func New(cfg *rest.Config) (*Caller, error) {
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCall, err)
	}
	return &Caller{config: cfg, client: c.CoreV1().RESTClient()}, nil
}

// Phase asks a launcher where it is. Errors are of class [ErrCall].
func (c *Caller) Phase(ctx context.Context, pod *corev1.Pod) (launcherrpcv1.Phase, error) {
	answer, err := c.proxy(ctx, pod, "state")
	if err != nil {
		return "", err
	}
	var state launcherrpcv1.State
	if err := json.Unmarshal(answer, &state); err != nil {
		return "", fmt.Errorf("%w: pod %s/%s: state: %w", ErrCall, pod.Namespace, pod.Name, err)
	}
	return state.Phase, nil
}

// Release lets a launcher in standby start its guest. Errors are of class
// [ErrCall].
func (c *Caller) Release(ctx context.Context, pod *corev1.Pod) error {
	_, err := c.proxy(ctx, pod, "release")
	return err
}

// proxy runs one verb of the launcher's proxy and returns what it printed.
func (c *Caller) proxy(ctx context.Context, pod *corev1.Pod, verb string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req := c.client.Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: launcherpod.Container,
			Command:   []string{launcherpod.LauncherPath, "proxy", verb},
			Stdout:    true, Stderr: true,
		}, scheme.ParameterCodec)
	websocket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", req.URL().String())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCall, err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", req.URL())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCall, err)
	}
	e, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(error) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCall, err)
	}
	var out, said bounded
	if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &said}); err != nil {
		return nil, fmt.Errorf("%w: pod %s/%s: %s: %w: %s", ErrCall, pod.Namespace, pod.Name, verb, err, strings.TrimSpace(said.String()))
	}
	return out.Bytes(), nil
}

// bounded keeps the first [maxAnswer] bytes.
type bounded struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if room := maxAnswer - b.Len(); room < len(p) {
		b.Buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
