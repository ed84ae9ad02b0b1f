// Command kubevfio-agent is KubeVFIO's node agent: see `kubevfio-agent --help`
// and docs/user/agent.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hostcmd"
)

func main() {
	// The writer process of host.ProcessWriter: as little as possible runs in it,
	// for it may hang in the kernel for ever.
	if len(os.Args) > 1 && os.Args[1] == host.WriteAttrCommand {
		os.Exit(host.WriteAttrMain(os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "kubevfio-agent:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "kubevfio-agent",
		Short:         "The node agent of KubeVFIO: inventory, driver binding, device plugins",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(runCommand())
	c.AddCommand(hostcmd.Commands()...)
	return c
}
