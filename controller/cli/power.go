package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// power are the commands that change whether a machine runs.
func (s *session) power() []*cobra.Command {
	var (
		force   bool
		grace   int64
		wait    bool
		timeout time.Duration
	)
	make := func(name, short string, act func(context.Context, *cluster, *v1alpha1.VirtualMachine, *int64) (string, error), done func(*v1alpha1.VirtualMachine) bool) *cobra.Command {
		c := &cobra.Command{
			Use:   name + " NAME",
			Short: short,
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				cl, err := s.cluster()
				if err != nil {
					return err
				}
				key := client.ObjectKey{Namespace: cl.namespace, Name: args[0]}
				var period *int64
				switch {
				case force:
					period = new(int64(0))
				case cmd.Flags().Changed("grace-period"):
					period = &grace
				}
				var said string
				// Another writer may come between; the wish stays the same.
				for attempt := 0; ; attempt++ {
					var vm v1alpha1.VirtualMachine
					if err := cl.client.Get(cmd.Context(), key, &vm); err != nil {
						return err
					}
					said, err = act(cmd.Context(), cl, &vm, period)
					if err == nil {
						break
					}
					if !apierrors.IsConflict(err) || attempt == 5 {
						return err
					}
				}
				fmt.Fprintf(s.out, "%s: %s\n", args[0], said)
				if wait {
					return s.wait(cmd.Context(), cl, key, timeout, done)
				}
				return nil
			},
		}
		c.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
		c.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
		if name != "start" {
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
		make("start", "Start a virtual machine", start, runs),
		make("stop", "Shut a virtual machine down", stop, stopped),
		make("restart", "Shut a virtual machine down and start it again", restart, runs),
	}
}

// start writes Always into a machine that is Halted, as KubeVirt does; the others
// get a request.
func start(ctx context.Context, cl *cluster, vm *v1alpha1.VirtualMachine, _ *int64) (string, error) {
	switch vm.Spec.RunStrategy {
	case v1alpha1.RunHalted:
		before := vm.DeepCopy()
		vm.Spec.RunStrategy = v1alpha1.RunAlways
		return "starting (runStrategy is now Always)", cl.client.Patch(ctx, vm, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	case v1alpha1.RunAlways:
		return "", fmt.Errorf("%s runs always: kubectl vfio explain vm %s says why it does not", vm.Name, vm.Name)
	}
	return "starting", ask(ctx, cl, vm, v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStart})
}

func stop(ctx context.Context, cl *cluster, vm *v1alpha1.VirtualMachine, grace *int64) (string, error) {
	strategy := vm.Spec.RunStrategy
	if grace != nil || strategy == v1alpha1.RunManual || strategy == v1alpha1.RunOnce {
		vmi, err := running(ctx, cl, vm)
		if err != nil {
			return "", err
		}
		if err := ask(ctx, cl, vm, v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStop, UID: vmi.UID, GracePeriodSeconds: grace}); err != nil {
			return "", err
		}
	}
	if strategy == v1alpha1.RunManual || strategy == v1alpha1.RunOnce {
		return "shutting down", nil
	}
	if strategy == v1alpha1.RunHalted {
		return "", fmt.Errorf("%s is switched off already (runStrategy Halted)", vm.Name)
	}
	before := vm.DeepCopy()
	vm.Spec.RunStrategy = v1alpha1.RunHalted
	return "shutting down (runStrategy is now Halted)", cl.client.Patch(ctx, vm, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

func restart(ctx context.Context, cl *cluster, vm *v1alpha1.VirtualMachine, grace *int64) (string, error) {
	if vm.Spec.RunStrategy == v1alpha1.RunHalted {
		return "", fmt.Errorf("%s is switched off: kubectl vfio start %s", vm.Name, vm.Name)
	}
	vmi, err := running(ctx, cl, vm)
	if err != nil {
		return "", err
	}
	return "restarting", ask(ctx, cl, vm,
		v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStop, UID: vmi.UID, GracePeriodSeconds: grace},
		v1alpha1.StateChangeRequest{Action: v1alpha1.ActionStart})
}

func running(ctx context.Context, cl *cluster, vm *v1alpha1.VirtualMachine) (*v1alpha1.VirtualMachineInstance, error) {
	var vmi v1alpha1.VirtualMachineInstance
	err := cl.client.Get(ctx, client.ObjectKeyFromObject(vm), &vmi)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%s does not run", vm.Name)
	}
	return &vmi, err
}

// ask leaves wishes for the controller.
func ask(ctx context.Context, cl *cluster, vm *v1alpha1.VirtualMachine, requests ...v1alpha1.StateChangeRequest) error {
	before := vm.DeepCopy()
	vm.Status.StateChangeRequests = requests
	return cl.client.Status().Patch(ctx, vm, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
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
