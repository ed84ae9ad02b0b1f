package agent

import (
	"context"
	"errors"
	"net"
	"time"
)

// Times of one connection to the API server.
const (
	dialQuick    = time.Second
	dialAttempts = 6 // quick ones
	dialLast     = 20 * time.Second
)

// Dial connects to the API server with a new attempt every second. After a boot
// the agent is up before kube-proxy has made the service's address work; the
// kernel's own attempts are 1, 2, 4 s apart, and until one gets through no pod
// on the node can have a device. It is for [rest.Config.Dial].
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return dial(ctx, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext(ctx, network, address)
	})
}

// dial makes attempts until one does not run out of its time.
func dial(ctx context.Context, attempt func(context.Context) (net.Conn, error)) (net.Conn, error) {
	for range dialAttempts {
		conn, err := within(ctx, dialQuick, attempt)
		var timeout net.Error
		if err == nil || ctx.Err() != nil || !errors.As(err, &timeout) || !timeout.Timeout() {
			return conn, err
		}
	}
	// A network that is slow, and not one that drops.
	return within(ctx, dialLast, attempt)
}

func within(ctx context.Context, limit time.Duration, attempt func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return attempt(ctx)
}
