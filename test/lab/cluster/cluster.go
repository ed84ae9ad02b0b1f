package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/kubevfio/kubevfio/test/lab/nodeapi"
	"github.com/kubevfio/kubevfio/test/lab/supervise"
)

// Cluster is a live lab, seen from a program on the host.
type Cluster struct {
	dir  stateDir
	info *info

	// Of the process that brought the lab up only.
	lease   *os.File
	ended   chan struct{}
	release func()
}

// Attach returns the live lab of a checkout; an empty name means the one that holds the working directory. ErrNotUp says
// that there is none, or that it is not ready yet.
func Attach(checkout string) (*Cluster, error) {
	cfg, err := Config{Checkout: checkout}.complete()
	if err != nil {
		return nil, err
	}
	dir, err := stateFor(cfg.Checkout)
	if err != nil {
		return nil, err
	}
	i, err := dir.readInfo()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s: %w", cfg.Checkout, ErrNotUp)
	case err != nil:
		return nil, err
	case !i.alive():
		return nil, fmt.Errorf("%s: %w: its daemon, process %d, is gone; logs: %s", cfg.Checkout, ErrNotUp, i.PID, dir.logs())
	case !i.Ready:
		return nil, fmt.Errorf("%s: %w: it is still starting; logs: %s", cfg.Checkout, ErrNotUp, dir.logs())
	}
	return &Cluster{dir: dir, info: i}, nil
}

// Down ends a checkout's lab, waits for the end of its last process and removes its files, except the logs. It is no error
// when there is nothing to end.
func Down(ctx context.Context, checkout string) error {
	cfg, err := Config{Checkout: checkout}.complete()
	if err != nil {
		return err
	}
	dir, err := stateFor(cfg.Checkout)
	if err != nil {
		return err
	}
	return dir.down(ctx)
}

func (d stateDir) down(ctx context.Context) error {
	if _, err := os.Stat(string(d)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the lab did not end within a minute"))
	defer cancel()
	return poll(ctx, 50*time.Millisecond, func(ctx context.Context) error {
		lock, err := d.lock()
		if err == nil {
			defer lock.Close()
			return reclaim(ctx, d, false)
		}
		if !errors.Is(err, ErrUp) {
			return err
		}
		if i, readErr := d.readInfo(); readErr == nil {
			if killErr := i.kill(ctx); killErr != nil {
				return killErr
			}
		}
		return err
	})
}

// Down ends the lab, see the function [Down].
func (c *Cluster) Down(ctx context.Context) error {
	if c.lease != nil {
		c.lease.Close()
	}
	err := c.dir.down(ctx)
	if c.ended != nil && err == nil {
		<-c.ended
	}
	if c.release != nil {
		c.release()
	}
	return err
}

// Kubeconfig is the path of an administrator's kubeconfig that works from the host.
func (c *Cluster) Kubeconfig() string { return c.dir.kubeconfig() }

// Kubectl is the path of the kubectl of the lab's version.
func (c *Cluster) Kubectl() string { return c.info.Config.Artifacts.Bin["kubectl"] }

// Binary is the host path of one of the lab's programs, such as kubectl-vfio; empty when it has none of that name.
func (c *Cluster) Binary(name string) string { return c.info.Config.Artifacts.Bin[name] }

// Server is the API server's URL on the host's loopback.
func (c *Cluster) Server() string { return c.info.Server }

// LogDir is the folder of all component logs. It outlives the lab, until the next one of the same checkout.
func (c *Cluster) LogDir() string { return c.dir.logs() }

// Phases are the steps of the way up with their seconds.
func (c *Cluster) Phases() []Phase { return c.info.Phases }

// Accel is how the nodes' CPUs run: AccelKVM or AccelTCG.
func (c *Cluster) Accel() string { return c.info.Accel }

// Config is what the lab was started with, defaults filled in.
func (c *Cluster) Config() Config { return c.info.Config }

// Since is when the lab's daemon started.
func (c *Cluster) Since() time.Time { return c.info.Since }

// PID is the daemon's process on the host; killing it ends the lab.
func (c *Cluster) PID() int { return c.info.PID }

// Nodes are the names of the nodes.
func (c *Cluster) Nodes() []string {
	var out []string
	for _, n := range c.info.Config.nodes() {
		out = append(out, n.Name)
	}
	return out
}

// NodeIP is a node's address inside the lab's network namespace.
func (c *Cluster) NodeIP(node string) (net.IP, error) {
	for _, n := range c.info.Config.nodes() {
		if n.Name == node {
			return n.IP, nil
		}
	}
	return nil, fmt.Errorf("no node %q in this lab; it has %v", node, c.Nodes())
}

// Dial connects to a TCP address inside the lab: a node, a pod, the API server at 10.88.0.1:6443.
func (c *Cluster) Dial(ctx context.Context, address string) (net.Conn, error) {
	conn, _, err := c.dir.ask(ctx, controlRequest{Op: opDial, Address: address})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Processes lists the processes of the daemon: the control plane and the nodes' QEMUs.
func (c *Cluster) Processes(ctx context.Context) ([]supervise.Status, error) {
	reply, err := c.dir.command(ctx, controlRequest{Op: opStatus})
	if err != nil {
		return nil, err
	}
	return reply.Processes, nil
}

// KillProcess kills a process of the control plane (SIGKILL) and keeps it down until [Cluster.StartProcess].
func (c *Cluster) KillProcess(ctx context.Context, name string) error {
	_, err := c.dir.command(ctx, controlRequest{Op: opKill, Name: name})
	return err
}

// StopProcess ends a process of the control plane (SIGTERM) and keeps it down until [Cluster.StartProcess].
func (c *Cluster) StopProcess(ctx context.Context, name string) error {
	_, err := c.dir.command(ctx, controlRequest{Op: opStop, Name: name})
	return err
}

// StartProcess starts a process that was killed or stopped.
func (c *Cluster) StartProcess(ctx context.Context, name string) error {
	_, err := c.dir.command(ctx, controlRequest{Op: opStart, Name: name})
	return err
}

// RestartProcess stops and starts a process of the control plane.
func (c *Cluster) RestartProcess(ctx context.Context, name string) error {
	_, err := c.dir.command(ctx, controlRequest{Op: opRestart, Name: name})
	return err
}

// QMP sends a command to a node's QEMU and returns what it returned. Events are in the log node-N-qmp-events.log.
func (c *Cluster) QMP(ctx context.Context, node, command string, arguments any) (json.RawMessage, error) {
	cmd := map[string]any{"execute": command}
	if arguments != nil {
		cmd["arguments"] = arguments
	}
	b, err := json.Marshal(cmd)
	if err != nil {
		return nil, err
	}
	reply, err := c.dir.command(ctx, controlRequest{Op: opQMP, Name: node, QMP: b})
	if err != nil {
		return nil, err
	}
	return reply.QMP, nil
}

// Resets tells how often each node has reset itself since it was first ready, by a reboot from inside or by a fault; resets by
// QMP and by the plug do not count.
func (c *Cluster) Resets(ctx context.Context) (map[string]int, error) {
	reply, err := c.dir.command(ctx, controlRequest{Op: opResets})
	return reply.Resets, err
}

// PowerOffNode pulls a node's plug: what it had not written is lost. [Cluster.PowerOnNode] boots it from its disks.
func (c *Cluster) PowerOffNode(ctx context.Context, node string) error {
	return c.KillProcess(ctx, qemuName(node))
}

// PowerOnNode boots a node that was switched off.
func (c *Cluster) PowerOnNode(ctx context.Context, node string) error {
	return c.StartProcess(ctx, qemuName(node))
}

// RebootNode reboots a node in an orderly way. It returns when the node has begun; the pods and the control port go away.
func (c *Cluster) RebootNode(ctx context.Context, node string) error {
	return c.nodeOp(ctx, node, nodeapi.OpReboot, "")
}

// RestartKubelet restarts a node's kubelet.
func (c *Cluster) RestartKubelet(ctx context.Context, node string) error {
	return c.nodeOp(ctx, node, nodeapi.OpRestart, Kubelet)
}

// RestartNodeProcess stops and starts a process of a node: [Containerd], [Kubelet] or [KubeProxy].
func (c *Cluster) RestartNodeProcess(ctx context.Context, node, name string) error {
	return c.nodeOp(ctx, node, nodeapi.OpRestart, name)
}

// StopNodeProcess ends a process of a node, which stays down until [Cluster.StartNodeProcess].
func (c *Cluster) StopNodeProcess(ctx context.Context, node, name string) error {
	return c.nodeOp(ctx, node, nodeapi.OpStop, name)
}

// StartNodeProcess starts a process of a node that was stopped.
func (c *Cluster) StartNodeProcess(ctx context.Context, node, name string) error {
	return c.nodeOp(ctx, node, nodeapi.OpStart, name)
}

// KillNodeProcess kills a process of a node (SIGKILL); init starts it again after a second.
func (c *Cluster) KillNodeProcess(ctx context.Context, node, name string) error {
	return c.nodeOp(ctx, node, nodeapi.OpKill, name)
}

func (c *Cluster) nodeOp(ctx context.Context, node, op, name string) error {
	_, err := c.nodeCall(ctx, node, nodeapi.Request{Op: op, Name: name}, nil, io.Discard, io.Discard)
	return err
}

func (c *Cluster) nodeCall(ctx context.Context, node string, req nodeapi.Request, stdin io.Reader, stdout, stderr io.Writer) (nodeapi.Result, error) {
	ip, err := c.NodeIP(node)
	if err != nil {
		return nodeapi.Result{}, err
	}
	conn, err := c.Dial(ctx, fmt.Sprintf("%s:%d", ip, nodeapi.Port))
	if err != nil {
		return nodeapi.Result{}, err
	}
	req.Token = c.info.Token
	res, err := nodeapi.Call(ctx, conn, req, stdin, stdout, stderr)
	if err != nil {
		return res, fmt.Errorf("%s: %s %s: %w", node, req.Op, req.Name, err)
	}
	if res.Error != "" {
		return res, fmt.Errorf("%s: %s %s: %s", node, req.Op, req.Name, res.Error)
	}
	return res, nil
}

// NodeStream runs a command as root in a node and streams its output; stdin may be nil. It returns the exit code; an error
// means that the command could not be run.
func (c *Cluster) NodeStream(ctx context.Context, node string, stdin io.Reader, stdout, stderr io.Writer, argv ...string) (int, error) {
	res, err := c.nodeCall(ctx, node, nodeapi.Request{Op: nodeapi.OpExec, Argv: argv}, stdin, stdout, stderr)
	return res.Code, err
}

// NodeExec runs a command as root in a node and returns its output and exit code.
func (c *Cluster) NodeExec(ctx context.Context, node string, argv ...string) (stdout, stderr string, code int, err error) {
	var out, errOut bytes.Buffer
	code, err = c.NodeStream(ctx, node, nil, &out, &errOut, argv...)
	return out.String(), errOut.String(), code, err
}

// Logs lists the log files.
func (c *Cluster) Logs() ([]string, error) { return filepath.Glob(filepath.Join(c.LogDir(), "*.log")) }
