package podsource

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A call whose time is over does not cost the connection: the next one would have to
// make another, on a machine that is slow already.
func TestConnectionSurvivesATimeout(t *testing.T) {
	var connections atomic.Int32
	slow := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/slow" {
			select {
			case <-slow:
			case <-r.Context().Done():
			}
		}
		_, _ = w.Write([]byte("said"))
	}))
	s.EnableHTTP2 = true
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(slow) })
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := NewKubelet(strings.TrimPrefix(s.URL, "https://"), token, "")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if b, err := k.Get(t.Context(), "/quick"); err != nil || string(b) != "said" {
			t.Fatalf("%q, %v", b, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := k.Get(ctx, "/slow")
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrKubelet) {
			t.Fatalf("a slow call: %v", err)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestKubeletRefuses(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no such user", http.StatusForbidden)
	}))
	t.Cleanup(s.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := NewKubelet(strings.TrimPrefix(s.URL, "https://"), token, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Pods(t.Context()); !errors.Is(err, ErrKubelet) || !strings.Contains(err.Error(), "no such user") {
		t.Errorf("error = %v", err)
	}
	if _, err := NewKubelet("x", token, filepath.Join(t.TempDir(), "absent")); !errors.Is(err, ErrKubelet) {
		t.Errorf("error = %v", err)
	}
}
