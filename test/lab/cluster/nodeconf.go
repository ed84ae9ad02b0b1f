package cluster

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/kubevfio/kubevfio/test/lab/nodeapi"
)

// Names of a node's processes, for [Cluster.RestartNodeProcess] and its siblings.
const (
	Containerd = "containerd"
	Kubelet    = "kubelet"
	KubeProxy  = "kube-proxy"
)

// PauseImage is the sandbox image that the lab's containerd uses.
const PauseImage = "localhost/kubevfio/pause:dev"

const containerdSocket = "/run/containerd/containerd.sock"

// nodeModules are what a node loads at boot. modprobe skips what a kernel has built in.
var nodeModules = [...]string{
	"overlay", "bridge", "br_netfilter", "veth", "nf_conntrack", "nf_tables", "nft_chain_nat", "nft_ct", "nft_nat", "nft_masq", "nft_reject_inet", "nft_fib_inet",
	"tun", "vhost_net", "fuse",
	"kvm_amd", "kvm_intel", "vfio-pci", "vfio_iommu_type1", "igb", "nvme",
}

// nodeArchive is the configuration disk of a node: a tar archive.
func nodeArchive(cfg Config, n nodeSpec, p *pki, token string) ([]byte, error) {
	files, err := nodeFiles(cfg, n, p)
	if err != nil {
		return nil, err
	}
	conf, err := json.MarshalIndent(nodeConfig(cfg, n, token), "", "  ")
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(name string, data []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	if err := add(nodeapi.ConfigFile, conf); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if err := add(name, files[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func nodeConfig(cfg Config, n nodeSpec, token string) nodeapi.Config {
	out := nodeapi.Config{
		Name:    n.Name,
		MAC:     n.MAC,
		Address: n.IP.String() + "/24",
		Gateway: gateway,
		Routes:  map[string]string{},
		Hosts:   map[string]string{"control-plane": gateway},
		Token:   token,
		Modules: nodeModules[:],
		Sysctls: map[string]string{
			"net/ipv4/ip_forward":                 "1",
			"net/ipv4/conf/all/rp_filter":         "0",
			"net/ipv4/conf/default/rp_filter":     "0",
			"net/bridge/bridge-nf-call-iptables":  "1",
			"net/bridge/bridge-nf-call-ip6tables": "1",
			"vm/overcommit_memory":                "1", // kubelet's protectKernelDefaults values
			"kernel/panic":                        "10",
			"kernel/panic_on_oops":                "1",
			"fs/inotify/max_user_instances":       "8192",
			"fs/inotify/max_user_watches":         "524288",
		},
	}
	for _, other := range cfg.nodes() {
		out.Hosts[other.Name] = other.IP.String()
		if other.Name != n.Name {
			out.Routes[other.PodNet] = other.IP.String()
		}
	}
	v := "--v=" + strconv.Itoa(cfg.Verbosity)
	bin := nodeapi.BinDir + "/"
	// Waking idle threads is what an idle kubelet spends most of its time on under emulation.
	env := []string{"GOMAXPROCS=2"}
	out.Processes = []nodeapi.Process{
		{Name: Containerd, Env: env, Argv: []string{bin + "containerd", "--config=/etc/containerd/config.toml"}},
		{Name: Kubelet, Env: env, WaitFor: containerdSocket, Argv: []string{bin + "kubelet",
			"--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig",
			"--hostname-override=" + n.Name, "--node-ip=" + n.IP.String(), v}},
		{Name: KubeProxy, Env: env, WaitFor: containerdSocket, Argv: []string{bin + "kube-proxy",
			"--config=/etc/kubernetes/kube-proxy.yaml", "--hostname-override=" + n.Name, v}},
	}
	return out
}

// nodeFiles are the files of a node's root file system, names without the leading slash. JSON is YAML.
func nodeFiles(cfg Config, n nodeSpec, p *pki) (map[string][]byte, error) {
	server := fmt.Sprintf("https://%s:%d", gateway, apiPort)
	kubelet, err := p.kubeconfig("system:node:"+n.Name, server)
	if err != nil {
		return nil, err
	}
	proxy, err := p.kubeconfig(userProxy, server)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{
		"etc/kubernetes/kubelet.kubeconfig":    kubelet,
		"etc/kubernetes/kube-proxy.kubeconfig": proxy,
		"etc/kubernetes/ca.crt":                p.ca.certPEM(),
		"etc/kubernetes/kubelet.crt":           p.kubelets[n.Name].cert,
		"etc/kubernetes/kubelet.key":           p.kubelets[n.Name].key,
		"etc/containerd/config.toml":           []byte(containerdConfig()),
	}
	for name, v := range map[string]any{
		"etc/kubernetes/kubelet.yaml":    kubeletConfig(cfg),
		"etc/kubernetes/kube-proxy.yaml": kubeProxyConfig(cfg),
		"etc/cni/net.d/10-lab.conflist":  cniConfig(n),
	} {
		if files[name], err = json.MarshalIndent(v, "", "  "); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return files, nil
}

// kubeletConfig is what docs/user recommends for nodes with devices, plus what a small emulated node needs.
func kubeletConfig(cfg Config) map[string]any {
	out := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true, "cacheTTL": "10s"},
			"x509":      map[string]any{"clientCAFile": "/etc/kubernetes/ca.crt"},
		},
		"authorization":            map[string]any{"mode": "Webhook", "webhook": map[string]any{"cacheAuthorizedTTL": "10s", "cacheUnauthorizedTTL": "1s"}},
		"tlsCertFile":              "/etc/kubernetes/kubelet.crt",
		"tlsPrivateKeyFile":        "/etc/kubernetes/kubelet.key",
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"cgroupDriver":             "cgroupfs", // there is no systemd
		"failSwapOn":               false,
		"readOnlyPort":             0,
		"cpuManagerPolicy":         cfg.CPUManagerPolicy,
		"topologyManagerPolicy":    cfg.TopologyManagerPolicy,
		"topologyManagerScope":     cfg.TopologyManagerScope,
		"memoryManagerPolicy":      cfg.MemoryManagerPolicy,
		"reservedSystemCPUs":       "0",
		"seccompDefault":           true,
		"containerLogMaxSize":      "10Mi",
		// The disk is small and its fill level means nothing here.
		"evictionHard": map[string]any{"memory.available": "64Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
			"imagefs.available": "0%", "imagefs.inodesFree": "0%"},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		"nodeStatusUpdateFrequency":   "1s",
		"nodeStatusReportFrequency":   "5s",
		"syncFrequency":               "20s",
		"maxPods":                     60,
		"resolvConf":                  "",
		"registerNode":                true,
	}
	if cfg.MemoryManagerPolicy == "Static" {
		// Kubelet wants exactly kube reserved + system reserved + eviction threshold here.
		out["systemReserved"] = map[string]any{"memory": "192Mi"}
		out["reservedMemory"] = []any{map[string]any{"numaNode": 0, "limits": map[string]any{"memory": "256Mi"}}}
	}
	if len(cfg.FeatureGates) > 0 {
		out["featureGates"] = cfg.FeatureGates
	}
	return out
}

func kubeProxyConfig(cfg Config) map[string]any {
	out := map[string]any{
		"apiVersion":       "kubeproxy.config.k8s.io/v1alpha1",
		"kind":             "KubeProxyConfiguration",
		"clientConnection": map[string]any{"kubeconfig": "/etc/kubernetes/kube-proxy.kubeconfig"},
		"mode":             "nftables",
		"clusterCIDR":      podNet,
		"conntrack":        map[string]any{"maxPerCore": 0},
	}
	if len(cfg.FeatureGates) > 0 {
		out["featureGates"] = cfg.FeatureGates
	}
	return out
}

// cniConfig has no portmap: nobody needs host ports, and its calls of iptables took longer than everything else of a pod's
// network under emulation. containerd brings the loopback up by itself.
func cniConfig(n nodeSpec) map[string]any {
	return map[string]any{
		"cniVersion": "1.0.0",
		"name":       "lab",
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
				"ipam": map[string]any{
					"type":   "host-local",
					"ranges": []any{[]any{map[string]any{"subnet": n.PodNet}}},
					"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
					// A reboot must free the addresses of the pods that it killed.
					"dataDir": "/run/cni/networks",
				},
			},
		},
	}
}

// containerdConfig is containerd's configuration, version 3. CDI is on by default.
func containerdConfig() string {
	return `version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "` + containerdSocket + `"

[plugins.'io.containerd.nri.v1.nri']
  disable = true

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "` + PauseImage + `"

[plugins.'io.containerd.cri.v1.runtime']
  device_ownership_from_security_context = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "/etc/cni/net.d"
    use_internal_loopback = true
`
}
