package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientwebsocket "k8s.io/client-go/transport/websocket"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
)

// ErrStream is the class of errors about consoles and screens that end by themselves.
var ErrStream = errors.New("the stream ended")

// errNoAPI: the API server does not know the aggregated API.
var errNoAPI = errors.New("the controller's API is not there")

// subresource is the path of one.
func (c *cluster) subresource(resource, name, sub string) []string {
	return []string{"apis", subresourcesv1alpha1.Group, subresourcesv1alpha1.Version, "namespaces", c.namespace, resource, name, sub}
}

// put calls a subresource that does something and returns what it says.
func (c *cluster) put(ctx context.Context, resource, name, sub string, options any, dry bool) (said string, err error) {
	body, err := json.Marshal(options)
	if err != nil {
		return "", err
	}
	r := c.kube.CoreV1().RESTClient().Put().AbsPath(c.subresource(resource, name, sub)...).
		SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body(body)
	if dry {
		r = r.Param(subresourcesv1alpha1.QueryDryRun, metav1.DryRunAll)
	}
	b, err := r.DoRaw(ctx)
	if err != nil {
		return "", apiError(err, b)
	}
	var status metav1.Status
	if err := json.Unmarshal(b, &status); err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	return status.Message, nil
}

// get calls a subresource that tells something once.
func (c *cluster) get(ctx context.Context, name, sub string) ([]byte, error) {
	b, err := c.kube.CoreV1().RESTClient().Get().AbsPath(c.subresource(subresourcesv1alpha1.Instances, name, sub)...).
		SetHeader("Accept", "application/json, */*").DoRaw(ctx)
	return b, apiError(err, b)
}

// apiError prefers the server's own words to what client-go makes of its status.
func apiError(err error, body []byte) error {
	if err == nil {
		return nil
	}
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Status == metav1.StatusFailure && status.Message != "" {
		err = &apierrors.StatusError{ErrStatus: status}
	}
	if typeMissing(err) {
		return fmt.Errorf("%w: KubeVFIO is not installed in this cluster, or its controller does not run: kubectl get apiservice %s.%s", errNoAPI, subresourcesv1alpha1.Version, subresourcesv1alpha1.Group)
	}
	return err
}

// stream connects in and out with a subresource. When in ends, what the other side
// still says within linger is waited for.
func (c *cluster) stream(ctx context.Context, name, sub string, in io.Reader, out io.Writer, linger time.Duration) error {
	conn, err := c.dial(ctx, name, sub)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // what matters was said in the close messages
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		deadline := time.Now().Add(2 * time.Second)
		// A server that is gone does not answer; then the deadline ends the reader.
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), deadline)
		_ = conn.SetReadDeadline(deadline)
	})
	defer stop()
	go func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := in.Read(buf)
			if n > 0 && conn.WriteMessage(websocket.BinaryMessage, buf[:n]) != nil {
				return // the reader below is told why
			}
			if err != nil {
				select {
				case <-ctx.Done():
				case <-time.After(linger):
				}
				cancel()
				return
			}
		}
	}()
	for {
		_, r, err := conn.NextReader()
		if err == nil {
			_, err = io.Copy(out, r)
		}
		switch {
		case err == nil:
		case ctx.Err() != nil, websocket.IsCloseError(err, websocket.CloseNormalClosure):
			return nil
		default:
			return fmt.Errorf("%w: %s of %s: %w", ErrStream, sub, name, closeText(err))
		}
	}
}

// closeText is what the other side said, without the library's frame.
func closeText(err error) error {
	var ended *websocket.CloseError
	if errors.As(err, &ended) && ended.Text != "" {
		return errors.New(ended.Text)
	}
	return err
}

// dial opens a WebSocket to a subresource.
func (c *cluster) dial(ctx context.Context, name, sub string) (*websocket.Conn, error) {
	rt, holder, err := clientwebsocket.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	url := c.kube.CoreV1().RESTClient().Get().AbsPath(c.subresource(subresourcesv1alpha1.Instances, name, sub)...).URL()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url.String(), nil)
	if err != nil {
		return nil, err
	}
	conn, err := clientwebsocket.Negotiate(rt, holder, req, subresourcesv1alpha1.Plain)
	if err == nil {
		return conn, nil
	}
	// client-go hides most of the answer's status; a plain request brings it out.
	if _, why := c.get(ctx, name, sub); why != nil && !apierrors.IsBadRequest(why) {
		return nil, why
	}
	return nil, err
}

// log opens the log of an instance.
func (c *cluster) log(ctx context.Context, name string, follow bool, tail int64) (io.ReadCloser, error) {
	r := c.kube.CoreV1().RESTClient().Get().AbsPath(c.subresource(subresourcesv1alpha1.Instances, name, subresourcesv1alpha1.Log)...)
	if follow {
		r = r.Param(subresourcesv1alpha1.QueryFollow, "true")
	}
	if tail >= 0 {
		r = r.Param(subresourcesv1alpha1.QueryTail, fmt.Sprint(tail))
	}
	s, err := r.Stream(ctx)
	return s, apiError(err, nil)
}
