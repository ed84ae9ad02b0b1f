// Command kubevfio-controller turns VirtualMachine objects into running guests.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/kubevfio/kubevfio/controller/app"
)

// version is set by the linker.
var version = "dev"

func main() {
	if err := command().ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "kubevfio-controller:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	o := app.DefaultOptions()
	cmd := &cobra.Command{
		Use:           "kubevfio-controller",
		Short:         "Turns VirtualMachine objects into running guests",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctrl.SetLogger(klog.Background())
			cfg, err := ctrl.GetConfig()
			if err != nil {
				return err
			}
			cfg.UserAgent = "kubevfio-controller/" + version
			c, err := app.New(cfg, o)
			if err != nil {
				return err
			}
			return c.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Pod.Image, "launcher-image", o.Pod.Image, "image of the launcher")
	f.StringVar((*string)(&o.Pod.PullPolicy), "launcher-pull-policy", string(corev1.PullIfNotPresent), "Always, IfNotPresent or Never")
	f.Int64Var(&o.Pod.CPUMillisPerVCPU, "cpu-millis-per-vcpu", 100, "CPU request for each vCPU that has no CPU of its own")
	f.StringVar(&o.MetricsAddress, "metrics-address", o.MetricsAddress, "address of Prometheus metrics; 0 switches them off")
	f.StringVar(&o.HealthAddress, "health-address", o.HealthAddress, "address of /healthz and /readyz; 0 switches them off")
	f.BoolVar(&o.LeaderElection, "leader-elect", o.LeaderElection, "let one of several replicas act")
	f.StringVar(&o.Namespace, "namespace", o.Namespace, "namespace of the leader's lease")
	f.IntVar(&o.Workers, "workers", o.Workers, "objects of a kind to work on at the same time")
	f.Float32Var(&o.QPS, "kube-api-qps", o.QPS, "requests per second to the API server")
	f.IntVar(&o.Burst, "kube-api-burst", o.Burst, "requests to the API server in a burst")
	f.IntVar(&o.WebhookPort, "webhook-port", o.WebhookPort, "port of the eviction webhook; 0 switches it off")
	f.StringVar(&o.APIAddress, "api-address", o.APIAddress, "address of the aggregated API subresources.kubevfio.io; 0 switches it off")
	f.StringSliceVar(&o.ServingNames, "serving-names", nil, "further host names of webhook and API, for a controller outside the cluster")
	f.DurationVar(&o.CertificateLife, "certificate-life", 0, "how long their certificate is valid, 90 days when 0; it is renewed when a third is left")
	f.DurationVar(&o.EvictionPatience, "eviction-patience", o.EvictionPatience, "how long evictions of a guest's pod are put off at most while the guest is moved")
	return cmd
}
