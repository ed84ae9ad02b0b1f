package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/lab/leftover"
	"github.com/kubevfio/kubevfio/test/scenario"
)

// ErrEnvironment is the class of errors about E2E_ variables.
var ErrEnvironment = errors.New("environment")

// ErrEmulation says that QEMU's emulation has lost a node or a guest, which no test asked for.
var ErrEmulation = errors.New("lost in the emulation")

// Names that every lab of ours has.
const (
	Namespace  = "vms"
	VFResource = v1alpha1.Group + "/igb-vf"
	// VFID is vendor:device of a virtual function of the lab's network cards.
	VFID = "8086:10ca"
)

// Options of a bed.
type Options struct {
	// Lab is how the cluster is to be.
	Lab cluster.Config
	// Keep leaves it up, Attach uses this checkout's running one.
	Keep, Attach bool
	// Offered is what the nodes must offer together before the tests begin.
	Offered map[string]int64
	// Reboots says that the tests reboot nodes: then a node that resets itself is no news.
	Reboots bool
	// Installed runs when the manifests are applied, before the hardware is waited for; nil for nothing.
	Installed func(context.Context, *Bed) error
	// Say tells of progress; nil for nobody.
	Say func(format string, args ...any)
}

// Bed is a lab with KubeVFIO in it.
type Bed struct {
	Lab *cluster.Cluster
	Env *scenario.Env

	o      Options
	before leftover.Host
}

// FromEnvironment fills in what the environment says. The error is of class [ErrEnvironment].
func (o Options) FromEnvironment(get func(string) string) (Options, error) {
	for name, into := range map[string]*bool{"E2E_KEEP": &o.Keep, "E2E_ATTACH": &o.Attach} {
		switch v := get(name); v {
		case "", "0":
		case "1":
			*into = true
		default:
			return o, fmt.Errorf("%w: %s=%q: want 1, or nothing", ErrEnvironment, name, v)
		}
	}
	if v := get("E2E_NODES"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return o, fmt.Errorf("%w: E2E_NODES=%q: want a number of nodes", ErrEnvironment, v)
		}
		o.Lab.Nodes = n
	}
	return o, nil
}

// Up brings the lab up, installs KubeVFIO and waits for its hardware. After an error nothing is left up, unless it is to be kept.
func Up(ctx context.Context, o Options) (*Bed, error) {
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	b := &Bed{o: o}
	var err error
	if b.before, err = leftover.Look("/"); err != nil {
		return nil, err
	}
	if o.Attach {
		b.Lab, err = cluster.Attach("")
	} else {
		o.Lab.Lease, o.Lab.Progress = !o.Keep, o.Say
		b.Lab, err = cluster.Up(ctx, o.Lab)
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := b.install(ctx); err != nil {
		err = fmt.Errorf("%w\nlogs of all components: %s", err, b.Lab.LogDir())
		return nil, errors.Join(err, b.Down(context.WithoutCancel(ctx)))
	}
	return b, nil
}

func (b *Bed) install(ctx context.Context) (err error) {
	if b.Env, err = scenario.New(b.Lab.Kubectl(), b.Lab.Kubeconfig(), b.Lab.Config().Checkout); err != nil {
		return err
	}
	b.o.Say("manifests")
	for _, dir := range []string{"manifests/overlays/lab", "manifests/examples/namespace"} {
		if err := b.Env.ApplyKustomization(ctx, dir); err != nil {
			return err
		}
	}
	if b.o.Installed != nil {
		if err := b.o.Installed(ctx, b); err != nil {
			return err
		}
	}
	if err := b.Env.WaitOffered(ctx, 4*time.Minute, b.o.Offered); err != nil {
		return err
	}
	b.o.Say("hardware offered")
	return nil
}

// Down ends the lab and fails when it has left anything on the host. A lab that is to be kept, or was attached to, stays.
func (b *Bed) Down(ctx context.Context) error {
	if b.o.Keep || b.o.Attach {
		return nil
	}
	return leftover.Down(ctx, b.Lab, b.before)
}

// HowToUse says how to use a lab that was kept.
func (b *Bed) HowToUse(w io.Writer) {
	if b.o.Keep {
		fmt.Fprintf(w, "the cluster stays up: KUBECONFIG=%s; end it with `make lab-down`\n", b.Lab.Kubeconfig())
	}
}
