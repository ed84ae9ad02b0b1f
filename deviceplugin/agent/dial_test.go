package agent

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// The service's address works after a while; each attempt before is lost.
func TestDial(t *testing.T) {
	for name, c := range map[string]struct {
		works time.Duration // from then on an attempt that starts gets through
		want  time.Duration
		fails bool
	}{
		"at once":            {},
		"kube-proxy is slow": {works: 2500 * time.Millisecond, want: 3 * time.Second},
		"never":              {works: time.Hour, want: dialAttempts*dialQuick + dialLast, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				conn, err := dial(t.Context(), func(ctx context.Context) (net.Conn, error) {
					if time.Since(start) >= c.works {
						near, far := net.Pipe()
						return near, far.Close()
					}
					<-ctx.Done()
					return nil, ctx.Err()
				})
				if took := time.Since(start); took != c.want || (err != nil) != c.fails {
					t.Errorf("after %s: %v; want %s", took, err, c.want)
				}
				if conn != nil {
					_ = conn.Close()
				}
			})
		})
	}
}

func TestDialRefused(t *testing.T) {
	refused := errors.New("refused")
	calls := 0
	_, err := dial(t.Context(), func(context.Context) (net.Conn, error) { calls++; return nil, refused })
	if !errors.Is(err, refused) || calls != 1 {
		t.Errorf("%d attempts, %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dial(ctx, func(ctx context.Context) (net.Conn, error) { return nil, ctx.Err() }); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if _, err := Dial(t.Context(), "tcp", "127.0.0.1:1"); err == nil {
		t.Error("nobody listens there")
	}
}
