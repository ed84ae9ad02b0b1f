package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/launcher/rpc"
)

// verbs of proxy that are commands, with their paths.
func commandVerbs() map[string]string {
	return map[string]string{
		"pause": launcherrpcv1.PathPause, "unpause": launcherrpcv1.PathUnpause, "stop": launcherrpcv1.PathStop,
		"softreboot": launcherrpcv1.PathSoftReboot, "reset": launcherrpcv1.PathReset, "release": launcherrpcv1.PathRelease,
	}
}

// proxyCommand bridges stdin and stdout to a running launcher, for pods/exec.
func proxyCommand() *cobra.Command {
	var (
		runDir string
		grace  int64
		after  bool
	)
	c := &cobra.Command{
		Use:   "proxy console|vnc|state|screenshot|domain|guestinfo|pause|unpause|stop|softreboot|reset|release",
		Short: "Talk to the launcher of this pod over stdin and stdout (for pods/exec)",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client := rpc.NewClient(filepath.Join(runDir, launcherrpcv1.SocketName))
			var stop launcherrpcv1.StopRequest
			if c.Flags().Changed("grace") {
				stop.GracePeriodSeconds = &grace
			}
			return proxyError(proxy(c.Context(), client, args[0], stop, after, c.InOrStdin(), c.OutOrStdout()))
		},
	}
	c.Flags().StringVar(&runDir, "run-dir", v1alpha1.LauncherRunDir, "the launcher's run folder")
	c.Flags().BoolVar(&after, "after-input", true, "for console and vnc: go on when stdin has ended; false ends with it")
	c.Flags().Int64Var(&grace, "grace", 0, "for stop: seconds that the guest may take; the VM spec's when not given, 0 ends it at once")
	return c
}

// proxyError gives an error of a known class the exit code that tells it to callers
// by pods/exec; the text goes to stderr here.
func proxyError(err error) error {
	var code int
	switch {
	case errors.Is(err, rpc.ErrNotSupported):
		code = launcherrpcv1.ProxyNotSupported
	case errors.Is(err, rpc.ErrConflict):
		code = launcherrpcv1.ProxyConflict
	case errors.Is(err, rpc.ErrUnavailable):
		code = launcherrpcv1.ProxyUnavailable
	default:
		return err
	}
	fmt.Fprintln(os.Stderr, "kubevfio-launcher:", err)
	return ExitError{code}
}

func proxy(ctx context.Context, client *rpc.Client, verb string, stop launcherrpcv1.StopRequest, after bool, in io.Reader, out io.Writer) error {
	if path, ok := commandVerbs()[verb]; ok {
		return client.Command(ctx, path, stop)
	}
	switch verb {
	case "state":
		st, err := client.State(ctx)
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(st, "", "  ")
		if err != nil {
			return fmt.Errorf("print the state: %w", err)
		}
		_, err = fmt.Fprintf(out, "%s\n", b)
		return err
	case "screenshot", "domain", "guestinfo":
		path := map[string]string{
			"screenshot": launcherrpcv1.PathScreenshot, "domain": launcherrpcv1.PathDomainXML, "guestinfo": launcherrpcv1.PathGuestInfo,
		}[verb]
		_, body, err := client.Document(ctx, path)
		if err != nil {
			return err
		}
		_, err = out.Write(body)
		return err
	case "console":
		return bridge(ctx, client, launcherrpcv1.PathConsole, after, in, out)
	case "vnc":
		return bridge(ctx, client, launcherrpcv1.PathVNC, after, in, out)
	default:
		verbs := []string{"console", "vnc", "state", "screenshot", "domain", "guestinfo"}
		for v := range commandVerbs() {
			verbs = append(verbs, v)
		}
		slices.Sort(verbs)
		return fmt.Errorf("proxy %q: want one of %s", verb, strings.Join(verbs, ", "))
	}
}

// bridge copies both ways until the launcher ends the stream. The end of stdin
// is passed on and, when after is true, is not the end of the bridge. A caller that
// may vanish sets it to false: nobody else ends a process of pods/exec whose caller
// is gone.
func bridge(ctx context.Context, client *rpc.Client, path string, after bool, in io.Reader, out io.Writer) error {
	conn, err := client.Stream(ctx, path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		// exec with a tty: keys go to the guest as they are.
		old, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		defer term.Restore(int(f.Fd()), old) //nolint:errcheck // the exec session ends with this process
	}
	var ended atomic.Bool
	go func() {
		_, err := io.Copy(conn, in)
		if !after {
			ended.Store(true)
			_ = conn.Close() // ends the copy below
			return
		}
		if w, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			_ = w.CloseWrite() // the other side may be gone already
		}
	}()
	if _, err := io.Copy(out, conn); err != nil && !ended.Load() {
		return fmt.Errorf("copy from the launcher: %w", err)
	}
	return nil
}

// probeCommand answers liveness and readiness probes, by exit code.
func probeCommand() *cobra.Command {
	var (
		runDir  string
		timeout time.Duration
	)
	c := &cobra.Command{
		Use:   "probe live|ready",
		Short: "Say by the exit code whether the launcher answers (live) and its guest runs (ready)",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			return probe(ctx, rpc.NewClient(filepath.Join(runDir, launcherrpcv1.SocketName)), args[0])
		},
	}
	c.Flags().StringVar(&runDir, "run-dir", v1alpha1.LauncherRunDir, "the launcher's run folder")
	c.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for the answer")
	return c
}

func probe(ctx context.Context, client *rpc.Client, what string) error {
	st, err := client.State(ctx)
	switch {
	case what != "live" && what != "ready":
		return fmt.Errorf("probe %q: want live or ready", what)
	case err != nil:
		return err
	case what == "live" || st.Phase == launcherrpcv1.PhaseRunning:
		return nil
	default:
		return fmt.Errorf("not ready: phase %s since %s", st.Phase, st.Since.Format(time.RFC3339))
	}
}
