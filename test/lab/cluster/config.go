package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/kubevfio/kubevfio/test/lab/artifacts"
)

// ErrConfig is a configuration that cannot work.
var ErrConfig = errors.New("lab configuration")

// Ways to run the nodes' CPUs.
const (
	AccelAuto = "" // KVM where a trial boot proves it, else emulation
	AccelKVM  = "kvm"
	AccelTCG  = "tcg"
)

// Config describes a lab. The zero value is a lab of one node.
type Config struct {
	// Checkout is the root of the repository that the lab belongs to and is built from; empty: the one that holds the working
	// directory. One checkout has one lab.
	Checkout string `json:"checkout"`
	// Nodes is the number of node VMs, 1 to 8; 0 means 1.
	Nodes int `json:"nodes"`
	// Lease binds the lab to the calling process: it ends when that process ends, however that happens.
	Lease bool `json:"lease"`
	// Accel is one of the Accel constants.
	Accel string `json:"accel"`
	// CPUs per node, an even number; half of them on each NUMA node. 0 means 4.
	CPUs int `json:"cpus"`
	// MemoryMiB of a node, half of it on each NUMA node. 0 means 4608.
	MemoryMiB int `json:"memoryMiB"`
	// HugePages2M is the number of 2 MiB pages that each node sets aside at boot.
	HugePages2M int `json:"hugePages2M"`
	// Kubelet's policies; empty means none (topology manager), static (CPU manager) and None (memory manager).
	TopologyManagerPolicy string `json:"topologyManagerPolicy"`
	TopologyManagerScope  string `json:"topologyManagerScope"`
	CPUManagerPolicy      string `json:"cpuManagerPolicy"`
	MemoryManagerPolicy   string `json:"memoryManagerPolicy"`
	// Nice is the scheduling priority of the lab as a whole against everything else on the machine, -20 (first) to 19. 0 means
	// -5, three times the usual share: emulated CPUs that starve make kernels complain of lockups and tests time out. Use 1 to be polite.
	Nice int `json:"nice"`
	// FeatureGates are set in every Kubernetes component.
	FeatureGates map[string]bool `json:"featureGates,omitempty"`
	// Verbosity is the -v of the Kubernetes components; 0 means 2.
	Verbosity int `json:"verbosity"`
	// Progress receives one line per event; nil means silence.
	Progress func(format string, args ...any) `json:"-"`
	// Artifacts are what to run; nil means to build them.
	Artifacts *artifacts.Set `json:"artifacts,omitempty"`
}

// complete checks the configuration and fills in the defaults.
func (c Config) complete() (Config, error) {
	setInt := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	setInt(&c.Nodes, 1)
	setInt(&c.CPUs, 4)
	setInt(&c.MemoryMiB, 4608)
	setInt(&c.Verbosity, 2)
	setInt(&c.Nice, -5)
	set(&c.TopologyManagerPolicy, "none")
	set(&c.TopologyManagerScope, "container")
	set(&c.CPUManagerPolicy, "static")
	set(&c.MemoryManagerPolicy, "None")
	if c.Progress == nil {
		c.Progress = func(string, ...any) {}
	}
	switch {
	case c.Nodes < 1 || c.Nodes > 8:
		return c, fmt.Errorf("%w: %d nodes, want 1 to 8", ErrConfig, c.Nodes)
	case c.CPUs < 2 || c.CPUs%2 != 0:
		return c, fmt.Errorf("%w: %d CPUs per node, want an even number: half on each NUMA node", ErrConfig, c.CPUs)
	case c.MemoryMiB < 2048 || c.MemoryMiB%2 != 0:
		return c, fmt.Errorf("%w: %d MiB of memory per node, want an even number from 2048", ErrConfig, c.MemoryMiB)
	case c.Accel != AccelAuto && c.Accel != AccelKVM && c.Accel != AccelTCG:
		return c, fmt.Errorf("%w: accelerator %q, want %q or %q", ErrConfig, c.Accel, AccelKVM, AccelTCG)
	}
	if c.Checkout == "" {
		dir, err := findCheckout()
		if err != nil {
			return c, err
		}
		c.Checkout = dir
	}
	var err error
	c.Checkout, err = filepath.Abs(c.Checkout)
	return c, err
}

// findCheckout walks up from the working directory to the module's root.
func findCheckout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "test", "lab", "cluster")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("%w: the working directory is in no checkout of this repository", ErrConfig)
		}
		dir = parent
	}
}

// Addresses of a lab. They live in its own network namespace, so all labs use the same.
const (
	gateway     = "10.88.0.1"
	nodeNet     = "10.88.0.0/24"
	serviceNet  = "10.96.0.0/16"
	serviceAPI  = "10.96.0.1"
	podNet      = "10.244.0.0/16"
	apiPort     = 6443
	kubeletPort = 10250
)

// nodeSpec is what is fixed about node number i, counted from 1.
type nodeSpec struct {
	Name   string
	Index  int
	IP     net.IP
	PodNet string
	MAC    string
}

func nodeAt(i int) nodeSpec {
	return nodeSpec{
		Name:   fmt.Sprintf("node-%d", i),
		Index:  i,
		IP:     net.IPv4(10, 88, 0, byte(10+i)),
		PodNet: fmt.Sprintf("10.244.%d.0/24", i),
		MAC:    fmt.Sprintf("52:54:00:88:00:%02x", 10+i),
	}
}

func (c Config) nodes() []nodeSpec {
	var out []nodeSpec
	for i := 1; i <= c.Nodes; i++ {
		out = append(out, nodeAt(i))
	}
	return out
}

// Checkout is the root of the repository that holds the working directory.
func Checkout() (string, error) { return findCheckout() }

// LogDir is the folder of the component logs of a checkout's last lab, live or not; an empty name means the checkout that
// holds the working directory.
func LogDir(checkout string) (string, error) {
	cfg, err := Config{Checkout: checkout}.complete()
	if err != nil {
		return "", err
	}
	dir, err := stateFor(cfg.Checkout)
	return dir.logs(), err
}
