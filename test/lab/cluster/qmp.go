package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// qmpClient speaks QEMU's machine protocol. Events are handed to a function; commands are carried out one at a time.
type qmpClient struct {
	conn    net.Conn
	replies chan qmpMessage

	mu sync.Mutex
}

type qmpMessage struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
}

// dialQMP connects and leaves the negotiation mode. event is called with every event's whole line.
func dialQMP(ctx context.Context, socket string, event func(line []byte)) (*qmpClient, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	c := &qmpClient{conn: conn, replies: make(chan qmpMessage, 1)}
	go c.read(event)
	if _, err := c.command(ctx, json.RawMessage(`{"execute":"qmp_capabilities"}`)); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *qmpClient) read(event func(line []byte)) {
	defer close(c.replies)
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var m qmpMessage
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue
		}
		switch {
		case m.Event != "":
			event(lines.Bytes())
		case m.Return != nil || m.Error != nil:
			c.replies <- m
		}
	}
}

func (c *qmpClient) command(ctx context.Context, cmd json.RawMessage) (json.RawMessage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.conn.Write(append(cmd, '\n')); err != nil {
		return nil, fmt.Errorf("QMP: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	select {
	case <-ctx.Done():
		c.conn.Close() // a late answer must not be taken for the next command's
		return nil, fmt.Errorf("QMP: %w", ctx.Err())
	case m, ok := <-c.replies:
		switch {
		case !ok:
			return nil, errors.New("QMP: QEMU closed the connection")
		case m.Error != nil:
			return nil, fmt.Errorf("QMP: %s: %s", m.Error.Class, m.Error.Desc)
		}
		return m.Return, nil
	}
}
