package cluster

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/test/lab/nodeapi"
)

func testConfig(t *testing.T, nodes int) Config {
	t.Helper()
	cfg, err := Config{Checkout: t.TempDir(), Nodes: nodes}.complete()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestConfigRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"too many nodes":      {Nodes: 9},
		"negative nodes":      {Nodes: -1},
		"odd CPUs":            {CPUs: 3},
		"too little memory":   {MemoryMiB: 512},
		"unknown accelerator": {Accel: "magic"},
	} {
		cfg.Checkout = "/somewhere"
		if _, err := cfg.complete(); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: got %v, want ErrConfig", name, err)
		}
	}
}

func TestUpWithoutInit(t *testing.T) {
	if _, err := Up(t.Context(), Config{}); !errors.Is(err, ErrConfig) {
		t.Fatalf("got %v, want ErrConfig: this test binary never called Init", err)
	}
}

func TestAttachWhereNothingIsUp(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	if _, err := Attach(dir); !errors.Is(err, ErrNotUp) {
		t.Fatalf("got %v, want ErrNotUp", err)
	}
	for range 2 {
		if err := Down(t.Context(), dir); err != nil {
			t.Fatalf("down of nothing: %v", err)
		}
	}
}

func TestAddressesAreInTheirNetworks(t *testing.T) {
	contains := func(network string, ip net.IP) bool {
		_, n, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		return n.Contains(ip)
	}
	if !contains(nodeNet, net.ParseIP(gateway)) || !contains(serviceNet, net.ParseIP(serviceAPI)) {
		t.Error("gateway or service address outside its network")
	}
	seen := map[string]bool{}
	for _, n := range (Config{Nodes: 8}).nodes() {
		ip, _, err := net.ParseCIDR(n.PodNet)
		if err != nil {
			t.Fatal(err)
		}
		if !contains(nodeNet, n.IP) || !contains(podNet, ip) {
			t.Errorf("%+v is outside its network", n)
		}
		for _, key := range []string{n.Name, n.IP.String(), n.PodNet, n.MAC} {
			if seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
		}
	}
}

// options returns the values of a QEMU option.
func options(args []string, name string) []string {
	var out []string
	for i, a := range args {
		if a == name {
			out = append(out, args[i+1])
		}
	}
	return out
}

func testMachine(t *testing.T, accel string) machine {
	cfg := testConfig(t, 2)
	return machine{cfg: cfg, node: nodeAt(2), accel: accel, dir: "/lab/nodes/node-2", logs: "/lab/logs", kernel: "/k", initrd: "/i", bin: "/bin.ext4", console: "/lab/logs/c.log"}
}

func TestMachineHasTheHardware(t *testing.T) {
	args := testMachine(t, AccelTCG).args()
	devices := options(args, "-device")
	if devices[0] != "intel-iommu,intremap=on,caching-mode=on" {
		t.Error("QEMU wants the IOMMU before the devices behind it")
	}
	count := map[string]int{}
	numa := map[string]string{} // pxb -> NUMA node
	above := map[string]string{}
	for _, d := range devices {
		f := strings.Split(d, ",")
		props := map[string]string{}
		for _, p := range f[1:] {
			k, v, _ := strings.Cut(p, "=")
			props[k] = v
		}
		count[f[0]]++
		above[props["id"]] = props["bus"]
		switch {
		case f[0] == "pxb-pcie":
			numa[props["id"]] = props["numa_node"]
		case strings.HasPrefix(f[0], "virtio-"):
			if props["bus"] != "pcie.0" || props["disable-legacy"] != "on" {
				t.Errorf("a device of the node's own is not pinned to the built-in bus: %s", d)
			}
		case props["bus"] == "pcie.0":
			t.Errorf("a device for the tests is on the node's own bus: %s", d)
		}
	}
	want := map[string]int{"pxb-pcie": 4, "igb": PFsPerNode, "nvme": 1, "bochs-display": 1, "ich9-intel-hda": 1, "edu": 1, "pcie-root-port": 6}
	for kind, n := range want {
		if count[kind] != n {
			t.Errorf("%d devices of kind %s, want %d", count[kind], kind, n)
		}
	}
	root := func(id string) string { return above[above[id]] }
	if root("igb0") == root("igb1") || numa[root("igb0")] != numa[root("igb1")] {
		t.Error("PF0 and PF1 belong under two root complexes of one NUMA node")
	}
	if numa[root("igb0")] == numa[root("igb2")] {
		t.Error("PF2 belongs on the other NUMA node")
	}
	if above["gpu0"] != above["gpu0audio"] {
		t.Error("the GPU's functions belong into one slot")
	}
}

func TestMachineAccelerators(t *testing.T) {
	for accel, want := range map[string][]string{
		AccelTCG: {"tcg,thread=multi", "EPYC,+svm,+npt"},
		AccelKVM: {"kvm", "host"},
	} {
		args := testMachine(t, accel).args()
		if d := cmp.Diff(want, append(options(args, "-accel"), options(args, "-cpu")...)); d != "" {
			t.Errorf("%s: %s", accel, d)
		}
	}
	m := testMachine(t, AccelTCG)
	m.cfg.HugePages2M = 64
	if !strings.Contains(m.cmdline(), "hugepages=64") {
		t.Error("no huge pages on the command line")
	}
}

func TestNodeArchive(t *testing.T) {
	cfg := testConfig(t, 2)
	cfg.TopologyManagerPolicy = "single-numa-node"
	b, err := nodeArchive(cfg, nodeAt(1), testPKI(t, 2), "secret")
	if err != nil {
		t.Fatal(err)
	}
	if len(b)%512 != 0 {
		t.Errorf("%d bytes are no whole number of disk sectors", len(b))
	}
	files := map[string][]byte{}
	var first string
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = h.Name
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	if first != nodeapi.ConfigFile {
		t.Errorf("the archive starts with %q", first)
	}
	var nc nodeapi.Config
	if err := json.Unmarshal(files[nodeapi.ConfigFile], &nc); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"10.244.2.0/24": "10.88.0.12"}, nc.Routes); d != "" {
		t.Errorf("routes: %s", d)
	}
	var kubelet struct {
		TopologyManagerPolicy string
		CPUManagerPolicy      string
		Authentication        struct{ Anonymous struct{ Enabled bool } }
		Authorization         struct{ Mode string }
		CgroupDriver          string
	}
	if err := yaml.Unmarshal(files["etc/kubernetes/kubelet.yaml"], &kubelet); err != nil {
		t.Fatal(err)
	}
	if kubelet.TopologyManagerPolicy != "single-numa-node" || kubelet.CPUManagerPolicy != "static" || kubelet.Authentication.Anonymous.Enabled ||
		kubelet.Authorization.Mode != "Webhook" || kubelet.CgroupDriver != "cgroupfs" {
		t.Errorf("kubelet's configuration: %+v", kubelet)
	}
	for _, p := range nc.Processes {
		for _, a := range p.Argv {
			_, file, _ := strings.Cut(a, "=")
			if strings.HasPrefix(file, "/etc/") && files[file[1:]] == nil {
				t.Errorf("%s is started with %s, which is not in the archive", p.Name, file)
			}
		}
	}
}

// Every file that a command line names must have been written.
func TestControlPlaneFilesAreThere(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(t, 1)
	if err := os.MkdirAll(filepath.Join(cfg.Checkout, "manifests", "scheduler"), 0o755); err != nil {
		t.Fatal(err)
	}
	shipped := "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nleaderElection: {leaderElect: true}\nprofiles: [{schedulerName: kubevfio-scheduler}]\n"
	if err := os.WriteFile(filepath.Join(cfg.Checkout, "manifests", "scheduler", "config.yaml"), []byte(shipped), 0o600); err != nil {
		t.Fatal(err)
	}
	cp := &controlPlane{cfg: cfg, dir: dir, pki: testPKI(t, 1)}
	logs := filepath.Join(dir, "logs")
	if err := cp.write(logs); err != nil {
		t.Fatal(err)
	}
	args := slices.Concat(cp.apiServerArgs(logs), cp.controllerManagerArgs(), cp.schedulerArgs())
	for _, a := range args {
		_, file, _ := strings.Cut(a, "=")
		if !strings.HasPrefix(file, dir) || strings.HasPrefix(file, logs) {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	b, err := os.ReadFile(cp.conf("scheduler.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ClientConnection struct{ Kubeconfig string }
		LeaderElection   struct{ LeaderElect bool }
		Profiles         []struct{ SchedulerName string }
	}
	if err := yaml.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.LeaderElection.LeaderElect || got.ClientConnection.Kubeconfig == "" || len(got.Profiles) != 1 {
		t.Errorf("scheduler's configuration: %s", b)
	}
}

func TestFeatureGatesReachEveryComponent(t *testing.T) {
	cfg := testConfig(t, 1)
	cfg.FeatureGates = map[string]bool{"B": false, "A": true}
	cp := &controlPlane{cfg: cfg}
	for name, args := range map[string][]string{"API server": cp.apiServerArgs(""), "controller manager": cp.controllerManagerArgs(), "scheduler": cp.schedulerArgs()} {
		if !slices.Contains(args, "--feature-gates=A=true,B=false") {
			t.Errorf("%s: %v", name, args)
		}
	}
	for name, c := range map[string]map[string]any{"kubelet": kubeletConfig(cfg), "kube-proxy": kubeProxyConfig(cfg)} {
		if d := cmp.Diff(any(cfg.FeatureGates), c["featureGates"]); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
