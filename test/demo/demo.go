package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/lab/leftover"
	"github.com/kubevfio/kubevfio/test/scenario"
	"github.com/kubevfio/kubevfio/test/testbed"
)

// Names of the example's objects.
const (
	namespace  = "vms"
	vfResource = "kubevfio.io/igb-vf"
	// vfID is vendor:device of a virtual function of the lab's network cards.
	vfID = "8086:10ca"
)

// result is what the demo prints at its end.
type result struct {
	OK     bool               `json:"ok"`
	Error  string             `json:"error,omitempty"`
	Accel  string             `json:"accel"`
	Phases map[string]float64 `json:"phases"`
	VMs    []*scenario.VM     `json:"vms"`
}

// demo is one run.
type demo struct {
	out    io.Writer
	keep   bool
	nodes  int
	result result
	env    *scenario.Env
	lab    *cluster.Cluster
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// phase times a step.
func (d *demo) phase(name string, step func() error) error {
	start := time.Now()
	err := step()
	s := time.Since(start).Seconds()
	d.result.Phases[name] = float64(int(s*10)) / 10
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d.say("    %s: %.1f s", name, s)
	return nil
}

// run does everything; the lab is down again when it returns, unless it is kept.
func (d *demo) run(ctx context.Context) (err error) {
	d.result.Phases = map[string]float64{}
	d.result.VMs = []*scenario.VM{}
	start := time.Now()
	defer func() { d.result.Phases["total"] = float64(int(time.Since(start).Seconds()*10)) / 10 }()

	before, err := leftover.Look("/")
	if err != nil {
		return err
	}
	d.say("==> The lab: a real Kubernetes cluster whose nodes are QEMU machines with IOMMU, SR-IOV and nested virtualisation")
	err = d.phase("lab", func() error {
		var err error
		d.lab, err = cluster.Up(ctx, cluster.Config{
			Nodes: d.nodes,
			Lease: !d.keep,
			Progress: func(format string, args ...any) {
				d.say("    "+format, args...)
			},
		})
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		if d.keep && !errors.Is(err, testbed.ErrEmulation) {
			d.say("\n==> The cluster stays up:")
			d.say("    export KUBECONFIG=%s; alias kubectl=%s", d.lab.Kubeconfig(), d.lab.Kubectl())
			d.say("    kubectl -n vms get pods -o wide; kubectl -n vms logs -f vm-a; kubectl get nodeinventories -o yaml")
			d.say("    go run ./test/lab exec node-1 -- lspci     a command on the node")
			d.say("    make lab-down                              ends it")
			return
		}
		// The run may have been interrupted: the end of the lab must not be.
		err = errors.Join(err, d.phase("down", func() error { return d.down(context.WithoutCancel(ctx), before) }))
	}()
	d.result.Accel = d.lab.Accel()
	for _, p := range d.lab.Phases() {
		d.result.Phases["lab/"+p.Name] = float64(int(p.Seconds*10)) / 10
	}
	if d.env, err = scenario.New(d.lab.Kubectl(), d.lab.Kubeconfig(), d.lab.Config().Checkout); err != nil {
		return err
	}
	// A node that dies of its emulation ends the job at once.
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() { end(testbed.Watch(ctx, d.lab, true)) }()
	if err := d.job(ctx); err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, testbed.ErrEmulation) {
			err = cause
		}
		return fmt.Errorf("%w\nlogs of all components: %s", err, d.lab.LogDir())
	}
	return nil
}

// down ends the lab and looks whether it has left anything.
func (d *demo) down(ctx context.Context, before leftover.Host) error {
	if err := leftover.Down(ctx, d.lab, before); err != nil {
		return err
	}
	d.say("    nothing is left: no process, network link, namespace or mount that was not there before")
	return nil
}

// job is what an admin and a VM owner do.
func (d *demo) job(ctx context.Context) error {
	d.say("\n==> The admin: kubectl apply -k manifests/overlays/lab")
	if err := d.phase("apply", func() error { return d.env.ApplyKustomization(ctx, "manifests/overlays/lab") }); err != nil {
		return err
	}
	if err := d.phase("agent", func() error {
		return d.env.WaitOffered(ctx, 3*time.Minute, map[string]int64{vfResource: 2, v1alpha1.ResourceKVM: 2})
	}); err != nil {
		return err
	}
	if err := d.tellInventory(ctx); err != nil {
		return err
	}

	d.say("\n==> The VM owner: kubectl apply -k manifests/examples/two-vms")
	names := []string{"vm-a", "vm-b"}
	if err := d.phase("create", func() error { return d.env.ApplyKustomization(ctx, "manifests/examples/two-vms") }); err != nil {
		return err
	}
	if err := d.phase("pods running", func() error {
		for _, n := range names {
			if _, err := d.env.WaitPhase(ctx, 2*time.Minute, namespace, n, corev1.PodRunning); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := d.phase("guests up", func() error {
		for _, n := range names {
			if _, err := d.env.Console(ctx, 4*time.Minute, namespace, n, "guest userspace", func(g *scenario.Guest) bool { return g.Ready }); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	guests := map[string]*scenario.Guest{}
	if err := d.phase("guests ping", func() error {
		for _, n := range names {
			g, err := d.env.Console(ctx, 3*time.Minute, namespace, n, "5 answers to pings over the virtual function",
				func(g *scenario.Guest) bool { return g.PingReceived >= 5 })
			if err != nil {
				return err
			}
			guests[n] = g
		}
		return nil
	}); err != nil {
		return err
	}
	d.say("\n==> What happened")
	for _, n := range names {
		if err := d.tellVM(ctx, n, guests[n]); err != nil {
			return err
		}
	}
	if !d.keep {
		return d.phase("shutdown", func() error { return d.shutDown(ctx, names) })
	}
	return nil
}

// tellInventory says what the agents found.
func (d *demo) tellInventory(ctx context.Context) error {
	var list v1alpha1.NodeInventoryList
	if err := d.env.Objects.List(ctx, &list); err != nil {
		return fmt.Errorf("inventories: %w", err)
	}
	for i := range list.Items {
		s := &list.Items[i].Spec
		d.say("    %s: %d NUMA nodes, %d units of which %d can be handed out", list.Items[i].Name, s.Summary.NUMANodes, s.Summary.Units, s.Summary.Ready)
		per := map[string][]string{}
		for _, u := range s.Units {
			if u.Resource != nil && u.NotReady == "" {
				r := s.Resources[*u.Resource]
				per[r] = append(per[r], u.ID)
			}
		}
		for _, r := range slices.Sorted(maps.Keys(per)) {
			d.say("      %-22s %s", r, strings.Join(per[r], " "))
		}
	}
	return nil
}

// tellVM checks and tells one VM's story.
func (d *demo) tellVM(ctx context.Context, name string, g *scenario.Guest) error {
	v, err := d.env.Report(ctx, d.lab, namespace, name, vfID, g)
	if v == nil {
		return err
	}
	d.result.VMs = append(d.result.VMs, v)
	d.say("  %s", name)
	d.say("    the scheduler chose %s on %s", strings.Join(v.Assigned, " "), v.Node)
	for _, w := range v.Why {
		d.say("      %s", w)
	}
	d.say("    kubelet allocated   %s", strings.Join(v.Allocated, " "))
	for i, pci := range v.GuestPCI {
		d.say("    the guest sees it   at %s on its NUMA node %d, with MAC %s", pci, v.GuestNUMA[i], v.GuestMAC[i])
	}
	for _, l := range v.GuestLSPCI {
		d.say("      lspci: %s", l)
	}
	if g.Passt != "" {
		d.say("    pod network (passt) %s", g.Passt)
	}
	d.say("    ping over the VF    %d sent, %d answered", g.PingSent, g.PingReceived)
	if err != nil {
		return err
	}
	d.say("    proof               the node's driver of the physical function holds that MAC for just that function")
	return nil
}

// shutDown deletes the VMs and checks that the guests ended in order.
func (d *demo) shutDown(ctx context.Context, names []string) error {
	if _, err := d.env.Run(ctx, append([]string{"-n", namespace, "delete", "pod", "--wait=false"}, names...)...); err != nil {
		return err
	}
	for _, n := range names {
		if err := d.env.WaitGone(ctx, 2*time.Minute, namespace, n); err != nil {
			return err
		}
	}
	return nil
}
