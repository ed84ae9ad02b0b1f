package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kubevfio/kubevfio/deviceplugin/agent"
)

func runCommand() *cobra.Command {
	var cfg agent.Config
	var kubeconfig, level string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the agent on a node (as the DaemonSet does)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log-level: %w", err)
			}
			handler := slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})
			cfg.Log = slog.New(handler)
			klog.SetSlogLogger(cfg.Log)
			ctrllog.SetLogger(klog.Background())
			var err error
			if cfg.REST, err = restConfig(kubeconfig); err != nil {
				return err
			}
			writer, err := writeCommand()
			if err != nil {
				return err
			}
			cfg.WriteCommand = []string{writer}
			if os.Getenv("GOGC") == "" {
				// The agent is idle nearly always, so memory is worth more than the time
				// of its rare collections; with less than this they fall into kubelet's
				// calls (docs/dev/host.md).
				debug.SetGCPercent(60)
			}
			cfg.Version = version()
			a, err := agent.New(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Node, "node-name", os.Getenv("NODE_NAME"), "name of this node (env NODE_NAME)")
	f.StringVar(&cfg.NodeIP, "node-ip", os.Getenv("NODE_IP"), "address of this node's kubelet (env NODE_IP); empty: its own list of pods is not used")
	f.StringVar(&kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "kubeconfig file; empty: the pod's service account")
	f.StringVar(&cfg.HostRoot, "host-root", "/host", "folder below which the host's sys is mounted")
	f.StringVar(&cfg.HostDev, "host-dev", "/host/dev", "where the host's /dev is mounted")
	f.StringVar(&cfg.PluginDir, "device-plugin-dir", "/var/lib/kubelet/device-plugins", "kubelet's device plugin folder")
	f.StringVar(&cfg.PodResources, "pod-resources-socket", "/var/lib/kubelet/pod-resources/kubelet.sock", "kubelet's pod-resources socket")
	f.StringVar(&cfg.SeccompDir, "seccomp-dir", "/var/lib/kubelet/seccomp", "kubelet's seccomp root")
	f.StringVar(&cfg.CDIDir, "cdi-dir", "/var/run/cdi", "folder for the CDI specification")
	f.StringVar((*string)(&cfg.DeviceFiles), "device-files", string(agent.ByCDI), "how containers get device nodes: cdi, or paths where the container runtime has no CDI")
	f.StringVar(&cfg.RunDir, "run-dir", "/run/kubevfio", "folder of the launchers' socket")
	f.StringVar(&cfg.StateDir, "state-dir", "/var/lib/kubevfio", "folder for what must outlive the agent")
	f.StringVar(&cfg.TokenFile, "token-file", "/var/run/secrets/kubernetes.io/serviceaccount/token", "token for kubelet's API")
	f.StringVar(&cfg.KubeletCA, "kubelet-ca", "", "authority of kubelet's serving certificate; empty: any certificate")
	f.IntVar(&cfg.KubeletPort, "kubelet-port", 10250, "port of kubelet's API")
	f.StringVar(&cfg.Metrics, "metrics-address", ":9180", "address of /metrics, /healthz and /readyz; \"-\" serves none")
	f.StringVar(&cfg.CertFile, "metrics-cert", "", "certificate file: serve metrics by TLS")
	f.StringVar(&cfg.KeyFile, "metrics-key", "", "key file for --metrics-cert")
	f.DurationVar(&cfg.Poll, "poll", time.Minute, "time between full looks at the host, behind device events")
	f.DurationVar(&cfg.WriteLimit, "write-limit", 20*time.Second, "time after which a write to sysfs counts as stuck")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return c
}

// writeCommand is the small program that writes to sysfs, which the image has
// beside the agent; without it the agent's own does it, and takes longer to start.
func writeCommand() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("own executable: %w", err)
	}
	small := filepath.Join(filepath.Dir(self), "kubevfio-write-attr")
	if _, err := os.Stat(small); err == nil {
		return small, nil
	}
	return self, nil
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	var conf *rest.Config
	var err error
	if kubeconfig == "" {
		conf, err = rest.InClusterConfig()
	} else {
		conf, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	conf.UserAgent = "kubevfio-agent/" + version()
	return conf, nil
}

func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "unknown"
}
