// Command kubectl-vfio is the kubectl plugin for virtual machines with real
// hardware: `kubectl vfio`.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // the login methods of kubeconfig files

	"github.com/kubevfio/kubevfio/controller/cli"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	root := cli.New(version, os.Stdin, os.Stdout, os.Stderr)
	root.SetArgs(cli.Arguments(os.Args))
	err := root.ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
