package agent

import (
	"log/slog"
	"time"

	"k8s.io/client-go/rest"
)

// Config of an agent. Paths are as the agent's process sees them; New fills in
// the defaults of the DaemonSet where they are empty.
type Config struct {
	// Node and NodeIP come from the downward API.
	Node, NodeIP string
	Version      string
	// REST reaches the API server.
	REST *rest.Config

	// HostRoot is the folder below which the host's sys is mounted, HostDev the
	// host's /dev, Proc the host's processes.
	HostRoot, HostDev, Proc string
	// PluginDir is kubelet's device plugin folder, PodResources the socket of
	// its pod-resources API, SeccompDir its seccomp root.
	PluginDir, PodResources, SeccompDir string
	CDIDir, RunDir, StateDir            string
	// DeviceInfoDir is where Multus and KubeVirt look for device-info files.
	DeviceInfoDir string
	// DeviceFiles is how containers get device nodes; default ByCDI.
	DeviceFiles DeviceFiles
	// TokenFile and KubeletCA are for kubelet's API at NodeIP:KubeletPort.
	TokenFile, KubeletCA string
	KubeletPort          int
	// WriteCommand is the program that makes writes to sysfs (host.WriteAttrMain).
	WriteCommand []string
	// Metrics is the address of metrics and probes; with CertFile and KeyFile by
	// TLS.
	Metrics, CertFile, KeyFile string
	// Poll is the slow look at everything; default 60 s.
	Poll time.Duration
	// WriteLimit is how long a write to sysfs may take before its device counts
	// as stuck; default 20 s.
	WriteLimit time.Duration
	Log        *slog.Logger
}

func (c *Config) defaults() {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	set(&c.HostRoot, "/host")
	set(&c.HostDev, "/host/dev")
	set(&c.Proc, "/proc")
	set(&c.PluginDir, "/var/lib/kubelet/device-plugins")
	set(&c.PodResources, "/var/lib/kubelet/pod-resources/kubelet.sock")
	set(&c.SeccompDir, "/var/lib/kubelet/seccomp")
	set(&c.CDIDir, "/var/run/cdi")
	set(&c.RunDir, "/run/kubevfio")
	set(&c.StateDir, "/var/lib/kubevfio")
	set(&c.DeviceInfoDir, "/var/run/k8s.cni.cncf.io/devinfo/dp")
	set(&c.TokenFile, "/var/run/secrets/kubernetes.io/serviceaccount/token")
	set(&c.Metrics, ":9180")
	if c.DeviceFiles == "" {
		c.DeviceFiles = ByCDI
	}
	if c.KubeletPort == 0 {
		c.KubeletPort = 10250
	}
	if c.Poll == 0 {
		c.Poll = time.Minute
	}
	if c.WriteLimit == 0 {
		c.WriteLimit = 20 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
}
