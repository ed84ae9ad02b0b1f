package subresources

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launchercall"
)

// maxMessage bounds a message of a client's, in bytes: nobody types or pastes more
// at once, and a stream has no need for large ones.
const maxMessage = 1 << 20

// stream is console and vnc.
func (h *Handler) stream(w http.ResponseWriter, r *http.Request, t target) error {
	if !websocket.IsWebSocketUpgrade(r) {
		return apierrors.NewBadRequest("want a WebSocket upgrade (protocol " + subresourcesv1alpha1.Plain + "): use kubectl vfio " + t.subresource + " " + t.name)
	}
	if !slices.Contains(websocket.Subprotocols(r), subresourcesv1alpha1.Plain) {
		return apierrors.NewBadRequest("Sec-WebSocket-Protocol: want " + subresourcesv1alpha1.Plain)
	}
	vmi, pod, err := h.running(r.Context(), t)
	if err != nil {
		return err
	}
	if t.subresource == subresourcesv1alpha1.VNC && noScreen(vmi) {
		return classed(t, fmt.Errorf("%w: it has no screen (spec.domain.devices.autoattachGraphicsDevice)", launchercall.ErrNotSupported))
	}
	u := websocket.Upgrader{Subprotocols: []string{subresourcesv1alpha1.Plain}, HandshakeTimeout: 10 * time.Second}
	// It answers by itself when it fails.
	conn, err := u.Upgrade(w, r, nil)
	if err != nil {
		klog.FromContext(r.Context()).V(2).Info("upgrade refused", "path", r.URL.Path, "err", err)
		return nil
	}
	defer conn.Close() //nolint:errcheck // the client is told by the close message
	// The request's context knows nothing of a connection that was taken over.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &session{conn: conn}
	conn.SetReadLimit(maxMessage)
	go s.touch(ctx)
	in, gone := s.input()
	err = h.Launcher.Stream(ctx, pod, in, s, t.subresource, "--after-input=false")
	select {
	case <-gone:
		return nil // the client ended it
	default:
	}
	s.end(err)
	return nil
}

// session is the server's side of a WebSocket.
type session struct {
	conn *websocket.Conn
	mu   sync.Mutex
}

// Write sends a message; it is for one caller at a time, beside touch.
func (s *session) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(3 * keepAlive)); err != nil {
		return 0, err
	}
	if err := s.conn.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// touch pings until the context ends; a client that does not answer is let go by
// input's deadline.
func (s *session) touch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(keepAlive):
		}
		if err := s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(keepAlive)); err != nil {
			return
		}
	}
}

// input gives what the client sends, to the end of its stream; gone is closed then.
func (s *session) input() (in io.Reader, gone <-chan struct{}) {
	r, w := io.Pipe()
	ended := make(chan struct{})
	alive := func(string) error { return s.conn.SetReadDeadline(time.Now().Add(3 * keepAlive)) }
	s.conn.SetPongHandler(alive)
	go func() {
		defer close(ended)
		defer w.Close() //nolint:errcheck // a pipe in memory
		if alive("") != nil {
			return
		}
		for {
			kind, m, err := s.conn.NextReader()
			if err != nil {
				return
			}
			if kind != websocket.BinaryMessage && kind != websocket.TextMessage {
				continue
			}
			if _, err := io.Copy(w, m); err != nil || alive("") != nil {
				return
			}
		}
	}()
	return r, ended
}

// end tells the client why the stream is over.
func (s *session) end(err error) {
	code, text := websocket.CloseNormalClosure, "the guest's side ended"
	if err != nil {
		code, text = websocket.CloseInternalServerErr, err.Error()
		if errors.Is(err, launchercall.ErrConflict) || errors.Is(err, launchercall.ErrNotSupported) || errors.Is(err, launchercall.ErrUnavailable) {
			code = websocket.ClosePolicyViolation
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, short(text)), time.Now().Add(5*time.Second)) // gone or not
}

// short fits a text into a close message, its end before its beginning: causes are
// last.
func short(text string) string {
	const most = 120
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= most {
		return text
	}
	text = text[len(text)-most+len("…"):]
	for !utf8.RuneStart(text[0]) {
		text = text[1:]
	}
	return "…" + text
}
