// Command kubevfio-scheduler is kube-scheduler with the plugin DeviceTopology.
// It takes kube-scheduler's flags and configuration; manifests/scheduler has a
// commented one.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics at /metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // build information at /metrics
	"k8s.io/kubernetes/cmd/kube-scheduler/app"

	"github.com/kubevfio/kubevfio/plugins/devicetopology"
)

func main() {
	command := app.NewSchedulerCommand(
		app.WithPlugin(devicetopology.Name, devicetopology.NewFactory().New),
	)
	command.Use = "kubevfio-scheduler"
	os.Exit(cli.Run(command))
}
