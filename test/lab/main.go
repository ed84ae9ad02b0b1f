// Command lab runs KubeVFIO's lab by hand: a real Kubernetes cluster on one machine, with nodes that are QEMU machines with
// an IOMMU, SR-IOV network cards and nested virtualisation. `go run ./test/lab help` lists its commands; docs/dev/lab.md
// explains it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubevfio/kubevfio/test/lab/artifacts"
	"github.com/kubevfio/kubevfio/test/lab/cluster"
)

func main() {
	cluster.Init()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	var exit *exitError
	if errors.As(err, &exit) {
		os.Exit(exit.code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// exitError passes on the exit code of a command that ran as it was asked to.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use: "lab", Short: "A real cluster with emulated VFIO hardware on this machine, one per checkout",
		SilenceUsage: true, SilenceErrors: true,
	}
	cmd.AddCommand(buildCommand(), upCommand(), downCommand(), statusCommand(), logsCommand(), execCommand(), kubectlCommand(), processCommand(), rebootCommand())
	return cmd
}

func buildCommand() *cobra.Command {
	return &cobra.Command{
		Use: "build", Short: "Build binaries, images and disks into the cache, start nothing", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := cluster.Checkout()
			if err != nil {
				return err
			}
			set, err := artifacts.Build(cmd.Context(), artifacts.Options{Checkout: dir, Progress: say})
			if err != nil {
				return err
			}
			set.Release()
			return nil
		},
	}
}

func upCommand() *cobra.Command {
	cfg := cluster.Config{Progress: say}
	var prebuilt string
	cmd := &cobra.Command{
		Use: "up", Short: "Boot the lab and leave it running", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			start := time.Now()
			if prebuilt != "" {
				b, err := os.ReadFile(prebuilt)
				if err != nil {
					return err
				}
				if err := json.Unmarshal(b, &cfg.Artifacts); err != nil {
					return fmt.Errorf("%s: %w", prebuilt, err)
				}
			}
			c, err := cluster.Up(cmd.Context(), cfg)
			if errors.Is(err, cluster.ErrUp) {
				return fmt.Errorf("%w (`lab status` tells more, `lab down` ends it)", err)
			}
			if err != nil {
				return err
			}
			say("lab: up in %.1f s: %s\n", time.Since(start).Seconds(), strings.Join(c.Nodes(), ", "))
			say("  export KUBECONFIG=%s\n  kubectl get nodes          (or: go run ./test/lab kubectl get nodes)", c.Kubeconfig())
			say("  go run ./test/lab exec node-1 -- lspci -nn\n  go run ./test/lab logs kubelet\n  go run ./test/lab down\n  logs: %s", c.LogDir())
			if !cfg.Lease {
				return nil
			}
			say("\nlab: it ends with this process (--lease); Ctrl-C to end it")
			<-cmd.Context().Done()
			return c.Down(context.WithoutCancel(cmd.Context()))
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Nodes, "nodes", 1, "number of node VMs")
	f.IntVar(&cfg.CPUs, "cpus", 4, "CPUs per node, half of them on each NUMA node")
	f.IntVar(&cfg.MemoryMiB, "memory", 4608, "memory per node in MiB, half of it on each NUMA node")
	f.IntVar(&cfg.HugePages2M, "hugepages", 0, "2 MiB pages that each node sets aside at boot")
	f.StringVar(&cfg.Accel, "accel", "", "kvm or tcg; by default kvm where a trial boot proves it")
	f.StringVar(&cfg.TopologyManagerPolicy, "topology-manager-policy", "none", "kubelet's topology manager policy")
	f.StringVar(&cfg.TopologyManagerScope, "topology-manager-scope", "container", "kubelet's topology manager scope")
	f.StringVar(&cfg.MemoryManagerPolicy, "memory-manager-policy", "None", "kubelet's memory manager policy")
	f.IntVar(&cfg.Nice, "nice", -5, "priority of the lab against everything else on the machine, -20 to 19")
	f.IntVar(&cfg.Verbosity, "verbosity", 2, "-v of the Kubernetes components")
	f.StringVar(&prebuilt, "artifacts", "", "JSON file of artifacts.Set: run these instead of building")
	f.BoolVar(&cfg.Lease, "lease", false, "end the lab with this process")
	return cmd
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End the lab; nothing but its logs is left", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cluster.Down(cmd.Context(), "") },
	}
}

func statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Tell whether the lab is up, and what runs in it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := cluster.Attach("")
			if err != nil {
				return err
			}
			procs, err := c.Processes(cmd.Context())
			if err != nil {
				return err
			}
			say("up since %s with %s, daemon process %d\nserver      %s\nkubeconfig  %s\nlogs        %s\n",
				c.Since().Format(time.RFC3339), c.Accel(), c.PID(), c.Server(), c.Kubeconfig(), c.LogDir())
			for _, p := range procs {
				state := "running"
				if !p.Running {
					state = "down: " + p.LastExit
				}
				say("%-26s %s, started %d time(s)", p.Name, state, p.Starts)
			}
			return nil
		},
	}
}

func logsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logs [NAME…]", Short: "Print component logs whose names contain NAME; without NAME list them",
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := cluster.LogDir("")
			if err != nil {
				return err
			}
			files, err := filepath.Glob(filepath.Join(dir, "*.log"))
			if err != nil {
				return err
			}
			found := false
			for _, f := range files {
				name := strings.TrimSuffix(filepath.Base(f), ".log")
				if len(args) == 0 {
					found = true
					say("%s", name)
					continue
				}
				for _, a := range args {
					if !strings.Contains(name, a) {
						continue
					}
					found = true
					if err := printFile(name, f); err != nil {
						return err
					}
				}
			}
			if !found {
				return fmt.Errorf("no such log in %s", dir)
			}
			return nil
		},
	}
}

func printFile(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	say("==> %s <==", name)
	_, err = io.Copy(os.Stdout, f)
	return err
}

func execCommand() *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use: "exec NODE -- COMMAND…", Short: "Run a command as root in a node", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Attach("")
			if err != nil {
				return err
			}
			if args[1] == "--" {
				args = append(args[:1], args[2:]...)
			}
			if len(args) < 2 {
				return errors.New("no command: lab exec NODE -- COMMAND")
			}
			var in io.Reader
			if stdin {
				in = os.Stdin
			}
			code, err := c.NodeStream(cmd.Context(), args[0], in, os.Stdout, os.Stderr, args[1:]...)
			if err == nil && code != 0 {
				err = &exitError{code}
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&stdin, "stdin", "i", false, "pass standard input on")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func kubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use: "kubectl …", Short: "Run the lab's kubectl against the lab", DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Attach("")
			if err != nil {
				return err
			}
			k := exec.CommandContext(cmd.Context(), c.Kubectl(), args...)
			k.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
			k.Stdin, k.Stdout, k.Stderr = os.Stdin, os.Stdout, os.Stderr
			// Ctrl-C reaches kubectl through the terminal; it must have the time to act on it.
			k.Cancel = func() error { return k.Process.Signal(os.Interrupt) }
			k.WaitDelay = 5 * time.Second
			err = k.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return &exitError{exit.ExitCode()}
			}
			return err
		},
	}
}

func processCommand() *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use: "process start|stop|restart|kill NAME", Short: "Start or end one component, of the control plane or (with --node) of a node",
		Long: "Components of the control plane are those that `lab status` lists; a node's are containerd, kubelet and kube-proxy.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Attach("")
			if err != nil {
				return err
			}
			ctx, name := cmd.Context(), args[1]
			verbs := map[string]func() error{
				"start":   func() error { return c.StartProcess(ctx, name) },
				"stop":    func() error { return c.StopProcess(ctx, name) },
				"restart": func() error { return c.RestartProcess(ctx, name) },
				"kill":    func() error { return c.KillProcess(ctx, name) },
			}
			if node != "" {
				verbs = map[string]func() error{
					"start":   func() error { return c.StartNodeProcess(ctx, node, name) },
					"stop":    func() error { return c.StopNodeProcess(ctx, node, name) },
					"restart": func() error { return c.RestartNodeProcess(ctx, node, name) },
					"kill":    func() error { return c.KillNodeProcess(ctx, node, name) },
				}
			}
			f, ok := verbs[args[0]]
			if !ok {
				return fmt.Errorf("unknown verb %q: want start, stop, restart or kill", args[0])
			}
			return f()
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "the node whose component it is")
	return cmd
}

func rebootCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reboot NODE", Short: "Reboot a node in an orderly way", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Attach("")
			if err != nil {
				return err
			}
			return c.RebootNode(cmd.Context(), args[0])
		},
	}
}
