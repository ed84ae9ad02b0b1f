package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// power are the commands that change whether a machine runs.
func (s *session) power() []*cobra.Command {
	var (
		force   bool
		grace   int64
		wait    bool
		dry     bool
		timeout time.Duration
	)
	command := func(sub, short string, done func(*v1alpha1.VirtualMachine) bool) *cobra.Command {
		c := &cobra.Command{
			Use:   sub + " NAME",
			Short: short,
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				cl, err := s.cluster()
				if err != nil {
					return err
				}
				var options any = subresourcesv1alpha1.StartOptions{}
				if sub != subresourcesv1alpha1.Start {
					// Stop and restart have the same options.
					o := subresourcesv1alpha1.StopOptions{}
					switch {
					case force && cmd.Flags().Changed("grace-period"):
						return fmt.Errorf("%w: --force is --grace-period=0: give one of them", ErrUsage)
					case force:
						o.GracePeriodSeconds = new(int64(0))
					case cmd.Flags().Changed("grace-period"):
						o.GracePeriodSeconds = &grace
					}
					options = o
				}
				said, err := cl.put(cmd.Context(), subresourcesv1alpha1.Machines, args[0], sub, options, dry)
				if err != nil {
					return err
				}
				if dry {
					said += " (dry run)"
				}
				fmt.Fprintf(s.out, "%s: %s\n", args[0], said)
				if wait && !dry {
					return s.wait(cmd.Context(), cl, client.ObjectKey{Namespace: cl.namespace, Name: args[0]}, timeout, done)
				}
				return nil
			},
		}
		c.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
		c.Flags().BoolVar(&dry, "dry-run", false, "check everything, change nothing")
		c.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
		if sub != subresourcesv1alpha1.Start {
			c.Flags().BoolVar(&force, "force", false, "switch the guest off without asking it")
			c.Flags().Int64Var(&grace, "grace-period", 0, "seconds that the guest may take to shut down; the spec's when not given")
		}
		return c
	}
	runs := func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.Ready && len(vm.Status.StateChangeRequests) == 0
	}
	stopped := func(vm *v1alpha1.VirtualMachine) bool {
		return vm.Status.PrintableStatus == v1alpha1.VMStopped && vm.Status.ObservedGeneration == vm.Generation
	}
	return []*cobra.Command{
		command(subresourcesv1alpha1.Start, "Start a virtual machine", runs),
		command(subresourcesv1alpha1.Stop, "Shut a virtual machine down", stopped),
		command(subresourcesv1alpha1.Restart, "Shut a virtual machine down and start it again", runs),
	}
}

// wait reports every change of the status until done.
func (s *session) wait(ctx context.Context, cl *cluster, key client.ObjectKey, timeout time.Duration, done func(*v1alpha1.VirtualMachine) bool) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	last := ""
	said := newProgress(s.err, time.Now)
	defer said.clear()
	for {
		var vm v1alpha1.VirtualMachine
		if err := cl.client.Get(ctx, key, &vm); err != nil {
			return err
		}
		if now := vm.Status.PrintableStatus; now != last && now != "" {
			last = now
			said.clear()
			fmt.Fprintf(s.out, "%s: %s\n", key.Name, now)
		}
		if done(&vm) {
			return nil
		}
		vmi := &v1alpha1.VirtualMachineInstance{}
		switch err := cl.client.Get(ctx, key, vmi); {
		case apierrors.IsNotFound(err):
			vmi = nil
		case err != nil && ctx.Err() == nil:
			return err
		}
		said.say(waitingFor(key.Name, vmi))
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still %s after %v: kubectl vfio explain vm %s", key.Name, last, timeout, key.Name)
		case <-time.After(time.Second):
		}
	}
}
