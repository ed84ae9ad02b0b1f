package scheduler

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/scenario"
)

const (
	namespace  = "vms"
	vfResource = "kubevfio.io/igb-vf"
)

// The one lab of this package; TestMain makes it, tests only read it.
var (
	lab *cluster.Cluster
	env *scenario.Env
)

func TestMain(m *testing.M) {
	cluster.Init()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	keep := os.Getenv("E2E_KEEP") != ""
	start := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("    %6.1fs %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
	var err error
	lab, err = cluster.Up(ctx, cluster.Config{Nodes: 1, Lease: !keep, Progress: say})
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		return 1
	}
	if !keep {
		defer func() {
			if err := lab.Down(context.WithoutCancel(ctx)); err != nil {
				fmt.Fprintf(os.Stderr, "lab down: %v\n", err)
			}
		}()
	}
	// An interrupt ends the tests and still takes the lab down.
	go func() {
		<-ctx.Done()
		time.Sleep(time.Second)
		if !keep {
			_ = lab.Down(context.Background())
		}
		os.Exit(130)
	}()
	if env, err = scenario.New(lab.Kubectl(), lab.Kubeconfig(), lab.Config().Checkout); err == nil {
		say("manifests")
		err = env.ApplyKustomization(ctx, "manifests/overlays/lab")
	}
	if err == nil {
		err = env.ApplyKustomization(ctx, "manifests/examples/namespace")
	}
	if err == nil {
		err = env.WaitOffered(ctx, 4*time.Minute, map[string]int64{vfResource: 2})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "set-up: %v\nlogs of all components: %s\n", err, lab.LogDir())
		return 1
	}
	say("hardware offered")
	code := m.Run()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "logs of all components: %s\n", lab.LogDir())
	}
	return code
}
