package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/lab/leftover"
	"github.com/kubevfio/kubevfio/test/scenario"
)

// ErrEnvironment is the class of errors about E2E_ variables.
var ErrEnvironment = errors.New("environment")

// ErrNodeReset says that a node has reset itself, which no test asked for.
var ErrNodeReset = errors.New("an emulated node has reset itself")

// crash is how the kernel begins to tell of its end.
var crash = regexp.MustCompile(`BUG:|Oops:|general protection|double fault|invalid opcode|unable to handle|stack segment|machine check`)

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

// Watch returns an error of class [ErrNodeReset] as soon as a node has reset itself, and nil when the context ends.
func Watch(ctx context.Context, lab *cluster.Cluster) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
		// A lab that does not answer is the tests' own affair.
		resets, err := lab.Resets(ctx)
		if err != nil {
			continue
		}
		for node, n := range resets {
			if n > 0 {
				return fmt.Errorf("%w: %s (logs: %s)\n%s", ErrNodeReset, node, lab.LogDir(), died(lab.LogDir(), node))
			}
		}
	}
}

// lastWords is the end of a console: from the last report of a crash on, if there is one.
func lastWords(console string) string {
	lines := strings.Split(strings.TrimSpace(console), "\n")
	from := max(0, len(lines)-15)
	for i := max(0, len(lines)-150); i < from; i++ {
		if crash.MatchString(lines[i]) {
			from = i
		}
	}
	return strings.Join(lines[from:min(len(lines), from+60)], "\n")
}

// died says what is known about the end of a node: the state of the processor that QEMU gave up with a triple fault, without
// the floating-point registers, or else, when the node's kernel restarted it, the end of the node's console.
func died(logs, node string) string {
	b, err := lastBytes(filepath.Join(logs, node+"-cpu.log"), 16<<20)
	if err != nil {
		return err.Error()
	}
	const words = "Triple fault"
	i := strings.LastIndex(string(b), words)
	if i < 0 {
		console, err := os.ReadFile(filepath.Join(logs, node+"-console.log"))
		if err != nil {
			return err.Error()
		}
		return "no triple fault: its kernel restarted it; the end of its console:\n" + lastWords(string(console))
	}
	var out []string
	for line := range strings.Lines(string(b[i:])) {
		if strings.HasPrefix(line, "FCW=") || len(out) > 40 {
			break
		}
		out = append(out, strings.TrimRight(line, "\n"))
	}
	return strings.Join(out, "\n")
}

// lastBytes reads the end of a file that may be very long.
func lastBytes(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it is only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(max(0, info.Size()-n), io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}
