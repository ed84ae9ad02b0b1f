package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/launcherpod"
)

// escape (Ctrl-]) ends a console.
const escape = 0x1d

// guest are the commands that talk to a running guest through its launcher.
func (s *session) guest() []*cobra.Command {
	simple := func(name, short, done string) *cobra.Command {
		return &cobra.Command{
			Use: name + " NAME", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := s.proxy(cmd.Context(), args[0], nil, io.Discard, name); err != nil {
					return err
				}
				_, err := fmt.Fprintf(s.out, "%s: %s\n", args[0], done)
				return err
			},
		}
	}
	var file string
	screenshot := &cobra.Command{
		Use: "screenshot NAME", Short: "Save the guest's screen as a PNG file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var png bytes.Buffer
			if err := s.proxy(cmd.Context(), args[0], nil, &png, "screenshot"); err != nil {
				return err
			}
			if file == "" {
				file = args[0] + ".png"
			}
			if err := os.WriteFile(file, png.Bytes(), 0o644); err != nil {
				return err
			}
			_, err := fmt.Fprintf(s.out, "%s: saved as %s\n", args[0], file)
			return err
		},
	}
	screenshot.Flags().StringVarP(&file, "file", "f", "", "name of the file; NAME.png when not given")
	return []*cobra.Command{
		simple("pause", "Stop a guest's processors", "paused"),
		simple("unpause", "Let a paused guest go on", "running"),
		simple("softreboot", "Ask a guest to reboot", "asked to reboot"),
		{
			Use: "state NAME", Short: "Print what the launcher says about its guest (JSON)", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.proxy(cmd.Context(), args[0], nil, s.out, "state")
			},
		},
		{
			Use: "console NAME", Short: "Open the guest's serial console; Ctrl-] ends it", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error { return s.console(cmd.Context(), args[0]) },
		},
		screenshot,
	}
}

// launcher finds the pod of a name: an instance's, else a plain pod with a VM.
func (c *cluster) launcher(ctx context.Context, name string) (*corev1.Pod, error) {
	var vmi v1alpha1.VirtualMachineInstance
	podName := name
	switch err := c.client.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, &vmi); {
	case err == nil:
		if vmi.Status.PodName == "" {
			return nil, fmt.Errorf("%s has no pod yet: kubectl vfio explain vmi %s", name, name)
		}
		podName = vmi.Status.PodName
	case !apierrors.IsNotFound(err):
		return nil, err
	}
	var pod corev1.Pod
	err := c.client.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: podName}, &pod)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is neither a running VirtualMachineInstance nor a launcher pod %q in namespace %s", name, c.namespace)
	}
	if err != nil {
		return nil, err
	}
	if _, ok := pod.Annotations[v1alpha1.VMAnnotation]; !ok {
		return nil, fmt.Errorf("pod %s is not a launcher: it has no annotation %s", podName, v1alpha1.VMAnnotation)
	}
	return &pod, nil
}

// exec starts the launcher's proxy in the pod.
func (c *cluster) exec(pod *corev1.Pod, tty bool, args ...string) (remotecommand.Executor, error) {
	req := c.kube.CoreV1().RESTClient().Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: launcherpod.Container,
			Command:   append([]string{launcherpod.LauncherPath, "proxy"}, args...),
			Stdin:     true, Stdout: true, Stderr: !tty, TTY: tty,
		}, scheme.ParameterCodec)
	websocket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", req.URL().String())
	if err != nil {
		return nil, err
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", req.URL())
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(websocket, spdy, func(error) bool { return true })
}

// proxy runs one verb of the launcher's proxy.
func (s *session) proxy(ctx context.Context, name string, in io.Reader, out io.Writer, args ...string) error {
	cl, err := s.cluster()
	if err != nil {
		return err
	}
	pod, err := cl.launcher(ctx, name)
	if err != nil {
		return err
	}
	e, err := cl.exec(pod, false, args...)
	if err != nil {
		return err
	}
	if in == nil {
		in = bytes.NewReader(nil)
	}
	var said bytes.Buffer
	if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out, Stderr: &said}); err != nil {
		return errors.Join(fmt.Errorf("launcher of %s: %s", name, bytes.TrimSpace(said.Bytes())), err)
	}
	return nil
}

// console is a raw terminal on the guest's serial line.
func (s *session) console(ctx context.Context, name string) error {
	cl, err := s.cluster()
	if err != nil {
		return err
	}
	pod, err := cl.launcher(ctx, name)
	if err != nil {
		return err
	}
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		// A script: bytes in, bytes out.
		return s.proxy(ctx, name, s.in, s.out, "console")
	}
	e, err := cl.exec(pod, true, "console")
	if err != nil {
		return err
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
	err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: s.out, Tty: true})
	if in.ended {
		return nil
	}
	return err
}

// untilEscape reads until the escape key.
type untilEscape struct {
	r     io.Reader
	stop  func()
	ended bool
}

// Read implements io.Reader.
func (u *untilEscape) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if i := bytes.IndexByte(p[:n], escape); i >= 0 {
		u.ended = true
		u.stop()
		return i, io.EOF
	}
	return n, err
}
