package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"time"

	"github.com/kubevfio/kubevfio/test/lab/supervise"
)

// The daemon's control socket: one JSON line asks, one JSON line answers, and after "dial" the connection is the dialled one.

const (
	opStatus  = "status"
	opDial    = "dial"    // Address: connect from inside the lab's network namespace
	opStart   = "start"   // Name: a process of the daemon
	opStop    = "stop"    // Name
	opRestart = "restart" // Name
	opKill    = "kill"    // Name
	opQMP     = "qmp"     // Name: a node; QMP: the command
	opResets  = "resets"  // how often nodes have reset themselves
	opDown    = "down"
)

type controlRequest struct {
	Op      string          `json:"op"`
	Name    string          `json:"name,omitempty"`
	Address string          `json:"address,omitempty"`
	QMP     json.RawMessage `json:"qmp,omitempty"`
}

type controlReply struct {
	Error     string             `json:"error,omitempty"`
	Processes []supervise.Status `json:"processes,omitempty"`
	QMP       json.RawMessage    `json:"qmp,omitempty"`
	Resets    map[string]int     `json:"resets,omitempty"`
}

// bufferedConn is a connection of which some bytes were read ahead.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (b *bufferedConn) Read(p []byte) (int, error) { return b.r.Read(p) }

// CloseWrite ends our direction only, where the connection can.
func (b *bufferedConn) CloseWrite() error {
	if c, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return b.Close()
}

// ask sends a request to a lab's daemon. The connection is returned open; after the reply it is of use only for opDial.
func (d stateDir) ask(ctx context.Context, req controlRequest) (*bufferedConn, *controlReply, error) {
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "unix", d.socket())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNotUp, err)
	}
	conn := &bufferedConn{Conn: raw, r: bufio.NewReader(raw)}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	b, err := json.Marshal(req)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("lab daemon: %w", err)
	}
	line, err := conn.r.ReadBytes('\n')
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, fmt.Errorf("lab daemon: %s: %w", req.Op, err)
	}
	var reply controlReply
	if err := json.Unmarshal(line, &reply); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("lab daemon: %w", err)
	}
	if reply.Error != "" {
		conn.Close()
		return nil, nil, fmt.Errorf("lab daemon: %s %s: %s", req.Op, req.Name+req.Address, reply.Error)
	}
	return conn, &reply, nil
}

func (d stateDir) command(ctx context.Context, req controlRequest) (*controlReply, error) {
	conn, reply, err := d.ask(ctx, req)
	if err != nil {
		return nil, err
	}
	conn.Close()
	return reply, nil
}

// serveControl answers on the control socket until the listener is closed.
func (d *daemon) serveControl(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			d.logf("control socket: %v", err)
			return
		}
		go d.handleControl(ctx, conn)
	}
}

func (d *daemon) handleControl(ctx context.Context, raw net.Conn) {
	conn := &bufferedConn{Conn: raw, r: bufio.NewReader(raw)}
	defer conn.Close()
	line, err := conn.r.ReadBytes('\n')
	if err != nil {
		return
	}
	var req controlRequest
	if err := json.Unmarshal(line, &req); err != nil {
		d.answer(conn, controlReply{Error: err.Error()})
		return
	}
	if req.Op == opDial {
		dialer := net.Dialer{Timeout: 15 * time.Second}
		to, err := dialer.DialContext(ctx, "tcp", req.Address)
		if err != nil {
			d.answer(conn, controlReply{Error: err.Error()})
			return
		}
		if d.answer(conn, controlReply{}) {
			splice(conn, to)
		}
		return
	}
	reply, err := d.do(ctx, req)
	if err != nil {
		reply.Error = err.Error()
	}
	d.answer(conn, reply)
	if req.Op == opDown {
		d.end(nil)
	}
}

func (d *daemon) answer(w io.Writer, reply controlReply) bool {
	b, err := json.Marshal(reply)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	if err != nil {
		d.logf("control socket: %v", err)
	}
	return err == nil
}

func (d *daemon) do(ctx context.Context, req controlRequest) (controlReply, error) {
	const grace = 10 * time.Second
	switch req.Op {
	case opStatus:
		return controlReply{Processes: d.procs.List()}, nil
	case opStart:
		return controlReply{}, d.procs.StartAgain(req.Name)
	case opStop:
		return controlReply{}, d.procs.Stop(ctx, req.Name, grace)
	case opRestart:
		return controlReply{}, d.procs.Restart(ctx, req.Name, grace)
	case opKill:
		return controlReply{}, d.procs.Stop(ctx, req.Name, 0)
	case opQMP:
		out, err := d.qmp(ctx, req.Name, req.QMP)
		return controlReply{QMP: out}, err
	case opResets:
		d.resetsMu.Lock()
		defer d.resetsMu.Unlock()
		return controlReply{Resets: maps.Clone(d.resets)}, nil
	case opDown:
		return controlReply{}, nil
	}
	return controlReply{}, errors.New("unknown operation")
}

// splice copies between two connections until both directions have ended, and closes them.
func splice(a, b net.Conn) {
	done := make(chan struct{}, 2)
	pipe := func(dst, src net.Conn) {
		// An error ends this direction; the other end learns of it by the close.
		_, _ = io.Copy(dst, src)
		if c, ok := dst.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		} else {
			dst.Close()
		}
		done <- struct{}{}
	}
	go pipe(a, b)
	go pipe(b, a)
	<-done
	<-done
	a.Close()
	b.Close()
}
