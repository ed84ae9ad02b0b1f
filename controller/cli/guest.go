package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launchercall"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// escape (Ctrl-]) ends a console.
const escape = 0x1d

// guest is a running guest that commands talk to.
type guest interface {
	// do carries out or asks for one thing and returns what is said.
	do(ctx context.Context, what string) ([]byte, error)
	// stream connects in and out with console or screen until either ends.
	stream(ctx context.Context, what string, in io.Reader, out io.Writer) error
	// log opens the guest's console log.
	log(ctx context.Context, follow bool, tail int64) (io.ReadCloser, error)
}

// guestCommands talk to a running guest.
func (s *session) guestCommands() []*cobra.Command {
	simple := func(name, short, done string) *cobra.Command {
		return &cobra.Command{
			Use: name + " NAME", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if _, err := s.ask(cmd.Context(), args[0], name); err != nil {
					return err
				}
				_, err := fmt.Fprintf(s.out, "%s: %s\n", args[0], done)
				return err
			},
		}
	}
	tells := func(name, short string) *cobra.Command {
		return &cobra.Command{
			Use: name + " NAME", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				b, err := s.ask(cmd.Context(), args[0], name)
				if err == nil {
					_, err = s.out.Write(b)
				}
				return err
			},
		}
	}
	var file string
	screenshot := &cobra.Command{
		Use: "screenshot NAME", Short: "Save the guest's screen as a PNG file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return s.screenshot(cmd.Context(), args[0], file) },
	}
	screenshot.Flags().StringVarP(&file, "file", "f", "", "name of the file; NAME.png when not given")
	return []*cobra.Command{
		simple(subresourcesv1alpha1.Pause, "Stop a guest's processors", "paused"),
		simple(subresourcesv1alpha1.Unpause, "Let a paused guest go on", "running"),
		simple(subresourcesv1alpha1.SoftReboot, "Ask a guest to reboot", "asked to reboot"),
		tells(subresourcesv1alpha1.State, "Print what the launcher says about its guest (JSON)"),
		tells(subresourcesv1alpha1.GuestInfo, "Print what the agent in the guest says about it (JSON)"),
		{
			Use: "console NAME", Short: "Open the guest's serial console; Ctrl-] ends it", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error { return s.console(cmd.Context(), args[0]) },
		},
		screenshot,
		s.logCommand(),
	}
}

// ask does one thing to a guest by its name.
func (s *session) ask(ctx context.Context, name, what string) ([]byte, error) {
	g, err := s.guest(ctx, name)
	if err != nil {
		return nil, err
	}
	return g.do(ctx, what)
}

// guest finds a guest by its name.
func (s *session) guest(ctx context.Context, name string) (guest, error) {
	cl, err := s.cluster()
	if err != nil {
		return nil, err
	}
	return cl.guest(ctx, name)
}

func (s *session) screenshot(ctx context.Context, name, file string) error {
	png, err := s.ask(ctx, name, subresourcesv1alpha1.Screenshot)
	if err != nil {
		return err
	}
	if file == "" {
		file = name + ".png"
	}
	if err := os.WriteFile(file, png, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s: saved as %s\n", name, file)
	return err
}

func (s *session) logCommand() *cobra.Command {
	var (
		follow bool
		tail   int64
	)
	c := &cobra.Command{
		Use: "log NAME", Short: "Print the guest's serial console so far", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := s.guest(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			log, err := g.log(cmd.Context(), follow, tail)
			if err != nil {
				return err
			}
			defer log.Close()
			_, err = io.Copy(s.out, log)
			return err
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the guest ends")
	c.Flags().Int64Var(&tail, "tail", -1, "only that many last lines")
	return c
}

// guest finds what a name means: an instance, reached by the controller's API, else
// a pod with a VM of its own, reached with the caller's own right to exec.
func (c *cluster) guest(ctx context.Context, name string) (guest, error) {
	var vmi v1alpha1.VirtualMachineInstance
	switch err := c.client.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, &vmi); {
	case err == nil:
		return byAPI{c, name}, nil
	case !apierrors.IsNotFound(err):
		return nil, err
	}
	var pod corev1.Pod
	err := c.client.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, &pod)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is neither a running VirtualMachineInstance nor a launcher pod %q in namespace %s", name, c.namespace)
	}
	if err != nil {
		return nil, err
	}
	if _, ok := pod.Annotations[v1alpha1.VMAnnotation]; !ok {
		return nil, fmt.Errorf("pod %s is not a launcher: it has no annotation %s", name, v1alpha1.VMAnnotation)
	}
	call, err := launchercall.New(c.config)
	if err != nil {
		return nil, err
	}
	return byExec{c, &pod, call}, nil
}

// linger is how long a guest's answer is waited for after the last input of a
// script.
const linger = time.Second

// byAPI reaches an instance's guest by the controller's API.
type byAPI struct {
	*cluster
	name string
}

func (g byAPI) do(ctx context.Context, what string) ([]byte, error) {
	switch what {
	case subresourcesv1alpha1.Pause, subresourcesv1alpha1.Unpause, subresourcesv1alpha1.SoftReboot:
		said, err := g.put(ctx, subresourcesv1alpha1.Instances, g.name, what, struct{}{}, false)
		return []byte(said), err
	}
	return g.get(ctx, g.name, what)
}

func (g byAPI) stream(ctx context.Context, what string, in io.Reader, out io.Writer) error {
	after := linger
	if what != subresourcesv1alpha1.Console {
		after = 0
	}
	return g.cluster.stream(ctx, g.name, what, in, out, after)
}

func (g byAPI) log(ctx context.Context, follow bool, tail int64) (io.ReadCloser, error) {
	return g.cluster.log(ctx, g.name, follow, tail)
}

// byExec reaches the guest of a pod by the launcher's proxy.
type byExec struct {
	*cluster
	pod  *corev1.Pod
	call *launchercall.Caller
}

func (g byExec) do(ctx context.Context, what string) ([]byte, error) {
	return g.call.Do(ctx, g.pod, what)
}

func (g byExec) stream(ctx context.Context, what string, in io.Reader, out io.Writer) error {
	return g.call.Stream(ctx, g.pod, in, out, what)
}

func (g byExec) log(ctx context.Context, follow bool, tail int64) (io.ReadCloser, error) {
	o := &corev1.PodLogOptions{Container: launcherpod.Container, Follow: follow}
	if tail >= 0 {
		o.TailLines = &tail
	}
	return g.kube.CoreV1().Pods(g.pod.Namespace).GetLogs(g.pod.Name, o).Stream(ctx)
}

// console is a raw terminal on the guest's serial line. The line has no size, so
// that a terminal's changes are the guest's business (stty in it).
func (s *session) console(ctx context.Context, name string) error {
	g, err := s.guest(ctx, name)
	if err != nil {
		return err
	}
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		// A script: bytes in, bytes out.
		both := &answered{in: s.in, out: s.out}
		return g.stream(ctx, subresourcesv1alpha1.Console, both, both)
	}
	fmt.Fprintf(s.err, "connected to %s; press Enter if the screen stays empty, Ctrl-] ends\r\n", name)
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return fmt.Errorf("make the terminal raw: %w", err)
	}
	defer func() {
		if err := term.Restore(int(f.Fd()), old); err != nil {
			fmt.Fprintln(s.err, "restore the terminal:", err)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := &untilEscape{r: f, stop: cancel}
	err = g.stream(ctx, subresourcesv1alpha1.Console, in, s.out)
	if in.ended.Load() {
		return nil
	}
	return err
}

// What a script's console waits for when its input has ended: the guest has said
// nothing for answerQuiet, or answerLimit is over.
const (
	answerQuiet = 2 * time.Second
	answerLimit = 30 * time.Second
)

// answered is a script's end of a console. Its input ends only when the guest has
// had time to answer: the end of the input ends the stream.
type answered struct {
	in   io.Reader
	out  io.Writer
	last atomic.Int64 // when the guest spoke last, nanoseconds
}

// Read implements io.Reader.
func (a *answered) Read(p []byte) (int, error) {
	n, err := a.in.Read(p)
	if !errors.Is(err, io.EOF) || n > 0 {
		return n, err
	}
	ended := time.Now()
	for {
		quiet := min(time.Since(ended), time.Since(time.Unix(0, a.last.Load())))
		if quiet >= answerQuiet || time.Since(ended) >= answerLimit {
			return 0, io.EOF
		}
		time.Sleep(min(answerQuiet-quiet, answerLimit-time.Since(ended)))
	}
}

// Write implements io.Writer.
func (a *answered) Write(p []byte) (int, error) {
	a.last.Store(time.Now().UnixNano())
	return a.out.Write(p)
}

// untilEscape reads until the escape key.
type untilEscape struct {
	r     io.Reader
	stop  func()
	ended atomic.Bool
}

// Read implements io.Reader.
func (u *untilEscape) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if i := bytes.IndexByte(p[:n], escape); i >= 0 {
		u.ended.Store(true)
		u.stop()
		return i, io.EOF
	}
	return n, err
}
