package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kubevfio/kubevfio/test/lab/supervise"
)

// start runs a process of the control plane with its log in the log folder.
func (d *daemon) start(name, binary string, args []string) error {
	path, ok := d.set.Bin[binary]
	if !ok {
		return fmt.Errorf("%w: no binary %q among the artifacts", ErrConfig, binary)
	}
	log, err := d.openLog(name)
	if err != nil {
		return err
	}
	return d.procs.Start(supervise.Spec{Name: name, Argv: append([]string{path}, args...), Dir: "/", Output: log, RestartDelay: time.Second})
}

func (d *daemon) openLog(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(d.dir.logs(), name+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
}

func (d *daemon) startControlPlane(ctx context.Context) error {
	cp := &controlPlane{cfg: d.cfg, dir: string(d.dir), pki: d.pki}
	if err := cp.write(d.dir.logs()); err != nil {
		return err
	}
	if err := d.start(Etcd, "etcd", cp.etcdArgs()); err != nil {
		return err
	}
	if err := d.start(APIServer, "kube-apiserver", cp.apiServerArgs(d.dir.logs())); err != nil {
		return err
	}
	err := poll(ctx, 200*time.Millisecond, func(ctx context.Context) error {
		for _, p := range d.procs.List() {
			if (p.Name == Etcd || p.Name == APIServer) && p.Starts > 3 {
				d.fatal <- fmt.Errorf("%s ends again and again: %s\n%s", p.Name, p.LastExit, tail(filepath.Join(d.dir.logs(), p.Name+".log"), 5))
			}
		}
		return d.api.do(ctx, "GET", "/readyz", "", nil, nil)
	})
	if err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	if err := d.start(ControllerManager, "kube-controller-manager", cp.controllerManagerArgs()); err != nil {
		return err
	}
	if err := d.start(Scheduler, schedulerBinary(d.set.Bin), cp.schedulerArgs()); err != nil {
		return err
	}
	// The API server's client certificate towards kubelets: logs, exec, attach, port-forward.
	if err := d.api.create(ctx, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
		"metadata": map[string]any{"name": "lab:kube-apiserver-kubelet-client"},
		"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin"},
		"subjects": []any{map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": userKubelet}},
	}); err != nil {
		return err
	}
	// Pods are refused until the controller manager has made their service account.
	return poll(ctx, 200*time.Millisecond, func(ctx context.Context) error {
		return d.api.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
}

// schedulerBinary is our scheduler, or Kubernetes' own while there is none.
func schedulerBinary(bin map[string]string) string {
	if _, ok := bin["kubevfio-scheduler"]; !ok {
		return "kube-scheduler"
	}
	return "kubevfio-scheduler"
}

// qemuName is the name of a node's QEMU among the daemon's processes.
func qemuName(node string) string { return "qemu-" + node }

func (d *daemon) startNode(m machine) error {
	log, err := d.openLog(m.node.Name + "-qemu")
	if err != nil {
		return err
	}
	return d.procs.Start(supervise.Spec{
		Name: qemuName(m.node.Name), Argv: append([]string{qemuBinary}, m.args()...), Chroot: d.jail, Dir: "/", Output: log,
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"},
		OnExit: func(err error) {
			e := fmt.Errorf("QEMU of %s has ended: %w\n%s", m.node.Name, orDone(err), tail(nodeLog(d.dir.logs(), m.node.Name, "qemu"), 5))
			select {
			case d.fatal <- e: // ends Up, while it is under way
			default:
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.monitors, m.node.Name)
		},
	})
}

func orDone(err error) error {
	if err == nil {
		return errors.New("switched off")
	}
	return err
}

// qmp carries out a QMP command on a node's QEMU.
func (d *daemon) qmp(ctx context.Context, node string, cmd json.RawMessage) (json.RawMessage, error) {
	c, err := d.monitor(ctx, node)
	if err != nil {
		return nil, err
	}
	out, err := c.command(ctx, cmd)
	if err != nil && strings.Contains(err.Error(), "closed") {
		d.mu.Lock()
		delete(d.monitors, node)
		d.mu.Unlock()
	}
	return out, err
}

func (d *daemon) monitor(ctx context.Context, node string) (*qmpClient, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.monitors[node]; c != nil {
		return c, nil
	}
	for _, m := range d.nodes {
		if m.node.Name != node {
			continue
		}
		log, err := d.openLog(node + "-qmp-events")
		if err != nil {
			return nil, err
		}
		c, err := dialQMP(ctx, m.qmpSocket(), func(line []byte) {
			if _, err := log.Write(append(line, '\n')); err != nil {
				d.logf("QMP events of %s: %v", node, err)
			}
			if resetsItself(line) {
				d.logf("%s has reset itself; %s has the state of its processors", node, nodeLog(d.dir.logs(), node, "cpu"))
				d.resetsMu.Lock()
				defer d.resetsMu.Unlock()
				d.resets[node]++
			}
		})
		if err != nil {
			log.Close()
			return nil, err
		}
		d.monitors[node] = c
		return c, nil
	}
	return nil, fmt.Errorf("no node %q", node)
}

// resetsItself tells whether a QMP event says that the machine was reset by its own software: by a reboot, or by a fault that
// its kernel could not handle (QEMU's qapi/run-state.json, RESET).
func resetsItself(event []byte) bool {
	var e struct {
		Event string `json:"event"`
		Data  struct {
			Guest bool `json:"guest"`
		} `json:"data"`
	}
	return json.Unmarshal(event, &e) == nil && e.Event == "RESET" && e.Data.Guest
}

type nodeObject struct {
	Spec struct {
		PodCIDR string `json:"podCIDR"`
	} `json:"spec"`
	Status struct {
		Conditions []struct{ Type, Status, Message string } `json:"conditions"`
	} `json:"status"`
}

func (d *daemon) waitForNodes(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(d.nodes))
	for i, m := range d.nodes {
		wg.Go(func() { errs[i] = d.waitForNode(ctx, m) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stallText is what a kernel says whose timer interrupts were lost. Under emulation on a busy machine that happens, rarely,
// in the first second of a boot, and such a kernel never gets on.
const stallText = "detected stalls on CPUs"

// Limits of waitForNode: how long a boot may go on after the kernel said that it is stalled, how long without, and how often
// a node is reset for that.
const (
	stalledLimit  = 20 * time.Second
	silentLimit   = 5 * time.Minute
	maxBootResets = 3
)

// waitForNode waits until a node is ready. One whose kernel hangs in its boot is reset, and the log says so.
func (d *daemon) waitForNode(ctx context.Context, m machine) error {
	path := "/api/v1/nodes/" + m.node.Name
	watch := bootWatch{console: nodeLog(d.dir.logs(), m.node.Name, "console"), started: time.Now()}
	err := poll(ctx, 500*time.Millisecond, func(ctx context.Context) error {
		if why := watch.hung(time.Now()); why != "" && watch.resets < maxBootResets {
			watch.restart(time.Now())
			d.logf("%s hangs in its boot (%s): resetting it, for the time number %d", m.node.Name, why, watch.resets)
			if _, err := d.qmp(ctx, m.node.Name, json.RawMessage(`{"execute":"system_reset"}`)); err != nil {
				return err
			}
		}
		var n nodeObject
		if err := d.api.get(ctx, path, &n); err != nil {
			return err
		}
		if n.Spec.PodCIDR == "" {
			// What routes and CNI say already; for people and tools that look here.
			if err := d.api.patch(ctx, path, map[string]any{"spec": map[string]any{"podCIDR": m.node.PodNet, "podCIDRs": []string{m.node.PodNet}}}); err != nil {
				return err
			}
		}
		for _, c := range n.Status.Conditions {
			if c.Type == "Ready" {
				if c.Status == "True" {
					return nil
				}
				return errors.New(c.Message)
			}
		}
		return errors.New("no Ready condition yet")
	})
	if err != nil {
		return fmt.Errorf("%s: %w", m.node.Name, err)
	}
	d.logf("%s is ready, %.1f s after the daemon's start", m.node.Name, time.Since(d.started).Seconds())
	// From here on its events are listened to.
	if _, err := d.monitor(ctx, m.node.Name); err != nil {
		return fmt.Errorf("%s: QMP: %w", m.node.Name, err)
	}
	return nil
}

// bootWatch tells from a node's console whether its boot hangs.
type bootWatch struct {
	console string
	started time.Time
	offset  int64
	stalled time.Time
	resets  int
}

// hung says why the boot is taken to hang, or nothing.
func (w *bootWatch) hung(now time.Time) string {
	if now.Sub(w.started) > silentLimit {
		return fmt.Sprintf("not ready after %s", silentLimit)
	}
	if w.stalled.IsZero() {
		f, err := os.Open(w.console)
		if err != nil {
			return ""
		}
		defer f.Close()
		if _, err := f.Seek(w.offset, io.SeekStart); err != nil {
			return ""
		}
		b, err := io.ReadAll(f)
		if err != nil || !bytes.Contains(b, []byte(stallText)) {
			return ""
		}
		w.stalled = now
	}
	if now.Sub(w.stalled) > stalledLimit {
		return "its kernel lost timer interrupts"
	}
	return ""
}

// restart begins to watch the next boot.
func (w *bootWatch) restart(now time.Time) {
	if fi, err := os.Stat(w.console); err == nil {
		w.offset = fi.Size()
	}
	w.started, w.stalled = now, time.Time{}
	w.resets++
}

// tail returns the last lines of a log for an error message.
func tail(file string, lines int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
