package launchercall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// ErrCall is the class of errors about a launcher that cannot be reached or that
// refuses what it is asked.
var ErrCall = errors.New("call the launcher")

// Classes of what a launcher answers.
var (
	// ErrNotSupported: the guest has no such thing.
	ErrNotSupported = errors.New("not supported by this guest")
	// ErrConflict: not possible in the launcher's present phase.
	ErrConflict = errors.New("not possible now")
	// ErrUnavailable: the launcher is starting.
	ErrUnavailable = errors.New("the launcher does not answer yet")
)

const (
	// limit bounds one call.
	limit = 15 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes: it comes from a pod. A
	// screenshot is the largest.
	maxAnswer = 32 << 20
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
	answer, err := c.Do(ctx, pod, "state")
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
	_, err := c.Do(ctx, pod, "release")
	return err
}

// Do runs one verb of the launcher's proxy that ends by itself and returns what it
// printed. Errors are of class [ErrCall] and, where the launcher says so, of
// [ErrNotSupported], [ErrConflict] or [ErrUnavailable].
func (c *Caller) Do(ctx context.Context, pod *corev1.Pod, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out bounded
	if err := c.Stream(ctx, pod, nil, &out, args...); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Stream runs one verb of the launcher's proxy with the caller's streams until it
// ends; in may be nil. The caller ends it by the end of in. Errors are as those of
// [Caller.Do].
func (c *Caller) Stream(ctx context.Context, pod *corev1.Pod, in io.Reader, out io.Writer, args ...string) error {
	req := c.client.Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: launcherpod.Container,
			Command:   append([]string{launcherpod.LauncherPath, "proxy"}, args...),
			Stdin:     in != nil, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec)
	websocket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", req.URL().String())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCall, err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", req.URL())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCall, err)
	}
	// Only where WebSockets are not served: a verb is never run twice.
	e, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCall, err)
	}
	var said bounded
	if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out, Stderr: &said}); err != nil {
		return failed(pod, args[0], err, said.String())
	}
	return nil
}

// failed classes an error of a call.
func failed(pod *corev1.Pod, verb string, err error, said string) error {
	text := strings.TrimPrefix(strings.TrimSpace(said), "kubevfio-launcher: ")
	var exit exec.CodeExitError
	if errors.As(err, &exit) && text != "" {
		switch exit.Code {
		case launcherrpcv1.ProxyNotSupported:
			err = ErrNotSupported
		case launcherrpcv1.ProxyConflict:
			err = ErrConflict
		case launcherrpcv1.ProxyUnavailable:
			err = ErrUnavailable
		}
	}
	return fmt.Errorf("%w: pod %s/%s: %s: %w: %s", ErrCall, pod.Namespace, pod.Name, verb, err, text)
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
