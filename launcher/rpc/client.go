package rpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// ErrUnavailable means that no supervisor answers. It may be starting, or just
// being restarted.
var ErrUnavailable = errors.New("the launcher does not answer")

// maxDocument bounds what a client reads of an answer.
const maxDocument = 64 << 20

// Client calls a supervisor; each call makes its own connection.
type Client struct {
	socket string
}

// NewClient gives a client of the socket at this path. It opens nothing.
func NewClient(socket string) *Client { return &Client{socket: socket} }

// State asks where the launcher is.
func (c *Client) State(ctx context.Context) (launcherrpcv1.State, error) {
	var s launcherrpcv1.State
	_, b, err := c.do(ctx, http.MethodGet, launcherrpcv1.PathState, nil)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read the launcher's state: %w", err)
	}
	return s, nil
}

// Command posts to one of the command paths.
func (c *Client) Command(ctx context.Context, path string, stop launcherrpcv1.StopRequest) error {
	var body []byte
	if path == launcherrpcv1.PathStop {
		var err error
		if body, err = json.Marshal(stop); err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
	}
	_, _, err := c.do(ctx, http.MethodPost, path, body)
	return err
}

// Document fetches a screenshot, the domain's XML or what the guest's agent says.
func (c *Client) Document(ctx context.Context, path string) (mime string, body []byte, err error) {
	return c.do(ctx, http.MethodGet, path, nil)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) (mime string, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://launcher"+path, bytes.NewReader(body))
	if err != nil {
		return "", nil, fmt.Errorf("make the request: %w", err)
	}
	t := &http.Transport{DialContext: c.dial, DisableKeepAlives: true}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if resp.StatusCode/100 != 2 {
		return "", nil, refusal(resp.StatusCode, answer)
	}
	return resp.Header.Get("Content-Type"), answer, nil
}

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
}

func refusal(status int, answer []byte) error {
	var f launcherrpcv1.Failure
	if err := json.Unmarshal(answer, &f); err != nil || f.Message == "" {
		f.Message = fmt.Sprintf("HTTP status %d", status)
	}
	switch status {
	case http.StatusConflict:
		return fmt.Errorf("%w: %s", ErrConflict, f.Message)
	case http.StatusNotImplemented:
		return fmt.Errorf("%w: %s", ErrNotSupported, f.Message)
	default:
		return errors.New(f.Message)
	}
}

// Stream opens the console or VNC path. What was read ahead is part of the
// returned connection.
func (c *Client) Stream(ctx context.Context, path string) (net.Conn, error) {
	protocol := launcherrpcv1.UpgradeConsole
	if path == launcherrpcv1.PathVNC {
		protocol = launcherrpcv1.UpgradeVNC
	}
	conn, err := c.dial(ctx, "", "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: launcher\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", path, protocol); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnavailable, err), conn.Close())
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnavailable, err), conn.Close())
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		return nil, errors.Join(refusal(resp.StatusCode, answer), err, conn.Close())
	}
	return &upgraded{Conn: conn, r: r}, nil
}

// upgraded reads what HTTP had buffered before the connection itself.
type upgraded struct {
	net.Conn
	r *bufio.Reader
}

func (u *upgraded) Read(p []byte) (int, error) { return u.r.Read(p) }

// CloseWrite tells the other side that no more input comes.
func (u *upgraded) CloseWrite() error {
	if c, ok := u.Conn.(*net.UnixConn); ok {
		return c.CloseWrite()
	}
	return nil
}
