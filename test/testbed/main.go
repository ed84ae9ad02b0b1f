package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/kubevfio/kubevfio/test/lab/cluster"
)

const (
	// attemptEnv counts the attempts of a process that started itself again.
	attemptEnv  = "KUBEVFIO_TESTBED_ATTEMPT"
	maxAttempts = 4
)

// Main is what a TestMain does: it brings the bed up, hands it to use, runs the tests and takes all down. It does not return.
func Main(m *testing.M, o Options, use func(*Bed)) {
	cluster.Init()
	os.Exit(run(m, o, use))
}

func run(m *testing.M, o Options, use func(*Bed)) (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := o.FromEnvironment(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if attempt() > 1 && !o.Attach {
		// The lab of the attempt before ends with the process that it belonged to; wait for that.
		if old, err := cluster.Attach(""); err == nil {
			if err := old.Down(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "end the lab of the attempt before:", err)
			}
		}
	}
	start := time.Now()
	o.Say = func(format string, args ...any) {
		fmt.Fprintf(os.Stdout, "    %6.1fs %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
	bed, err := Up(ctx, o)
	if err != nil {
		fmt.Fprintf(os.Stderr, "set-up: %v\n", err)
		return 1
	}
	defer func() {
		bed.HowToUse(os.Stdout)
		if err := bed.Down(context.WithoutCancel(ctx)); err != nil {
			fmt.Fprintf(os.Stderr, "lab down: %v\n", err)
			code = 1
		}
	}()
	// An interrupt ends the tests and still takes the lab down.
	go func() {
		<-ctx.Done()
		time.Sleep(time.Second)
		if err := bed.Down(context.Background()); err != nil {
			fmt.Fprintf(os.Stderr, "lab down: %v\n", err)
		}
		os.Exit(130)
	}()
	watched, unwatch := context.WithCancel(ctx)
	defer unwatch()
	if !o.Attach {
		go func() {
			if err := Watch(watched, bed.Lab, !o.Reboots); err != nil {
				again(err)
			}
		}()
	}
	use(bed)
	code = m.Run()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "logs of all components: %s\n", bed.Lab.LogDir())
	}
	return code
}

// attempt is the number of this attempt, from 1.
func attempt() int {
	n, err := strconv.Atoi(os.Getenv(attemptEnv))
	if err != nil {
		return 1
	}
	return n
}

// again starts this process over; after the last attempt it fails. Nothing of this attempt is of use: its tests run against a
// cluster that has just lost a node or a guest.
func again(why error) {
	n := attempt()
	fmt.Fprintf(os.Stdout, "\n==> %v\n==> The tests ran against a cluster that lost a node or a guest of it: attempt %d of %d is worth nothing.\n", why, n, maxAttempts)
	if n >= maxAttempts {
		os.Exit(1)
	}
	fmt.Fprintf(os.Stdout, "==> Starting over with a new lab\n\n")
	self, err := os.Executable()
	if err == nil {
		if err = os.Setenv(attemptEnv, strconv.Itoa(n+1)); err == nil {
			// The lab's lease ends here: its daemon takes everything down.
			err = syscall.Exec(self, os.Args, os.Environ())
		}
	}
	fmt.Fprintln(os.Stderr, errors.Join(errors.New("cannot start over"), err))
	os.Exit(1)
}
