package main

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"syscall"
	"time"

	"github.com/kubevfio/kubevfio/test/lab/nodeapi"
)

// serve opens the control port on the node's own address.
func (n *node) serve(ctx context.Context) error {
	host, _, err := net.ParseCIDR(n.cfg.Address)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, nodeapi.Port))
	if err != nil {
		return fmt.Errorf("control port: %w", err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				logf("control port: %v", err)
				return
			}
			go n.handle(ctx, conn)
		}
	}()
	return nil
}

func (n *node) handle(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(conn)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	var req nodeapi.Request
	out := nodeapi.NewFrameWriter(conn)
	if err := json.Unmarshal(line, &req); err != nil || subtle.ConstantTimeCompare([]byte(req.Token), []byte(n.cfg.Token)) != 1 {
		finish(out, nodeapi.Result{Error: "refused"})
		return
	}
	finish(out, n.do(ctx, req, r, out))
}

func finish(out *nodeapi.FrameWriter, res nodeapi.Result) {
	b, err := json.Marshal(res)
	if err == nil {
		err = out.Write(nodeapi.ResultFrame, b)
	}
	if err != nil {
		logf("control port: %v", err)
	}
}

func (n *node) do(ctx context.Context, req nodeapi.Request, in io.Reader, out *nodeapi.FrameWriter) nodeapi.Result {
	const grace = 5 * time.Second
	var err error
	var res nodeapi.Result
	switch req.Op {
	case nodeapi.OpExec:
		res.Code, err = n.exec(ctx, req, in, out)
	case nodeapi.OpStart:
		err = n.procs.StartAgain(req.Name)
	case nodeapi.OpStop:
		err = n.procs.Stop(ctx, req.Name, grace)
	case nodeapi.OpRestart:
		err = n.procs.Restart(ctx, req.Name, grace)
	case nodeapi.OpKill:
		err = n.procs.Signal(req.Name, syscall.SIGKILL)
	case nodeapi.OpList:
		var b []byte
		b, err = json.Marshal(n.procs.List())
		res.Output = string(b)
	case nodeapi.OpReboot:
		n.requestShutdown(syscall.LINUX_REBOOT_CMD_RESTART)
	case nodeapi.OpPoweroff:
		n.requestShutdown(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	default:
		err = fmt.Errorf("unknown operation %q", req.Op)
	}
	if err != nil {
		res.Error = err.Error()
	}
	return res
}

// exec runs a command for a client; the command's process group dies with the connection.
func (n *node) exec(ctx context.Context, req nodeapi.Request, in io.Reader, out *nodeapi.FrameWriter) (int, error) {
	if len(req.Argv) == 0 {
		return 0, errors.New("no command")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, req.Argv[0], req.Argv[1:]...)
	cmd.Env = []string{"PATH=" + path, "HOME=/root", "TERM=linux", "CONTAINERD_NAMESPACE=k8s.io",
		"CONTAINER_RUNTIME_ENDPOINT=unix:///run/containerd/containerd.sock"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	cmd.Stdout, cmd.Stderr = out.Stream(nodeapi.StdoutFrame), out.Stream(nodeapi.StderrFrame)
	stdin, feed := io.Pipe()
	defer func() { _ = stdin.Close() }()
	if req.Stdin {
		cmd.Stdin = stdin
	}
	go func() {
		defer func() { _ = feed.Close() }()
		for {
			kind, data, err := nodeapi.ReadFrame(in)
			if err != nil {
				cancel() // the client is gone
				return
			}
			if kind != nodeapi.StdinFrame {
				continue
			}
			if len(data) == 0 {
				_ = feed.Close()
				continue
			}
			if _, err := feed.Write(data); err != nil {
				continue // the command does not read; keep watching the connection
			}
		}
	}()
	err := n.procs.Run(cmd)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return exit.ExitCode(), nil
	default:
		return 0, err
	}
}
