package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/launcher/failure"
)

// Classes of errors that handlers give and clients get.
var (
	// ErrConflict: not possible in the launcher's present phase.
	ErrConflict = errors.New("not possible now")
	// ErrNotSupported: this guest has no such thing.
	ErrNotSupported = errors.New("not supported")
)

// Handlers are what a supervisor can be asked for. All are set.
type Handlers struct {
	// State says where the launcher is.
	State func() launcherrpcv1.State
	// Command does what a POST path says. Errors of class [ErrConflict] and
	// [ErrNotSupported] are told apart for the caller.
	Command func(ctx context.Context, path string, stop launcherrpcv1.StopRequest) error
	// Stream serves an upgraded connection until it ends; prepare runs before
	// the upgrade and may refuse.
	Stream func(ctx context.Context, path string) (serve func(io.ReadWriter) error, err error)
	// Document gives a document's content and MIME type.
	Document func(path string) (mime string, body []byte, err error)
}

// maxBody bounds a request's body.
const maxBody = 4 << 10

// Serve listens on the socket, which only this user can reach, and answers
// until ctx is done.
func Serve(ctx context.Context, socket string, h Handlers, log *slog.Logger) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old RPC socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for RPC: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return errors.Join(fmt.Errorf("protect the RPC socket: %w", err), l.Close())
	}
	s := &http.Server{
		Handler:           handler(h),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() {
		if err := s.Close(); err != nil {
			log.Debug("close the RPC server", "err", err)
		}
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve RPC: %w", err)
	}
	return nil
}

func handler(h Handlers) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+launcherrpcv1.PathState, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, h.State())
	})
	for _, path := range []string{
		launcherrpcv1.PathPause, launcherrpcv1.PathUnpause, launcherrpcv1.PathStop,
		launcherrpcv1.PathSoftReboot, launcherrpcv1.PathReset, launcherrpcv1.PathRelease,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			var stop launcherrpcv1.StopRequest
			if err := readJSON(r.Body, &stop); err != nil {
				writeJSON(w, http.StatusBadRequest, launcherrpcv1.Failure{Reason: "BadRequest", Message: err.Error()})
				return
			}
			if err := h.Command(r.Context(), path, stop); err != nil {
				writeError(w, err)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	for _, path := range []string{launcherrpcv1.PathScreenshot, launcherrpcv1.PathDomainXML, launcherrpcv1.PathGuestInfo} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			mime, body, err := h.Document(path)
			if err != nil {
				writeError(w, err)
				return
			}
			w.Header().Set("Content-Type", mime)
			_, _ = w.Write(body) // the client went away: nobody to tell
		})
	}
	for path, protocol := range map[string]string{
		launcherrpcv1.PathConsole: launcherrpcv1.UpgradeConsole,
		launcherrpcv1.PathVNC:     launcherrpcv1.UpgradeVNC,
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { stream(w, r, h, path, protocol) })
	}
	return mux
}

// stream upgrades a request and hands the connection over.
func stream(w http.ResponseWriter, r *http.Request, h Handlers, path, protocol string) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), protocol) {
		w.Header().Set("Upgrade", protocol)
		writeJSON(w, http.StatusUpgradeRequired, launcherrpcv1.Failure{Reason: "UpgradeRequired", Message: "this path needs the header Upgrade: " + protocol})
		return
	}
	serve, err := h.Stream(r.Context(), path)
	if err != nil {
		writeError(w, err)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		writeError(w, err)
		return
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol); err != nil {
		return
	}
	var in io.Reader = conn
	if n := buffered.Reader.Buffered(); n > 0 {
		early, err := buffered.Peek(n)
		if err != nil {
			return
		}
		in = io.MultiReader(bytes.NewReader(early), conn)
	}
	// The stream's end is the caller's news, not ours.
	_ = serve(struct {
		io.Reader
		io.Writer
	}{in, conn})
}

func readJSON(r io.Reader, into any) error {
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	if len(b) > maxBody {
		return fmt.Errorf("the request has more than %d bytes", maxBody)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}

func writeError(w http.ResponseWriter, err error) {
	status, reason := http.StatusInternalServerError, failure.Outcome(err).Reason
	switch {
	case errors.Is(err, ErrConflict):
		status, reason = http.StatusConflict, "Conflict"
	case errors.Is(err, ErrNotSupported):
		status, reason = http.StatusNotImplemented, "NotSupported"
	}
	writeJSON(w, status, launcherrpcv1.Failure{Reason: reason, Message: err.Error()})
}
