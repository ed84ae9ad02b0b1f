// Kubevfio-launcher runs one virtual machine with passed-through devices in a
// pod. See docs/user/launcher.md.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"github.com/kubevfio/kubevfio/launcher/app"
	"github.com/kubevfio/kubevfio/launcher/rendercmd"
)

func main() {
	version := "devel"
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
		version = b.Main.Version
	}
	os.Exit(app.ExitCode(app.New(version, rendercmd.NewCommand()).ExecuteContext(context.Background()), os.Stderr))
}
