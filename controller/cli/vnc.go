package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"sync"

	"github.com/spf13/cobra"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
)

// viewer is a program that shows a VNC screen.
type viewer struct {
	program string
	args    func(address string) []string
}

// viewers are those that are looked for, in this order.
func viewers() []viewer {
	uri := func(address string) []string { return []string{"vnc://" + address} }
	list := []viewer{
		{"remote-viewer", uri},
		// Two colons: a port, not a display.
		{"vncviewer", func(address string) []string {
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return []string{address}
			}
			return []string{host + "::" + port}
		}},
		{"vinagre", uri},
	}
	if runtime.GOOS == "darwin" {
		list = append(list, viewer{"open", func(address string) []string { return []string{"-W", "vnc://" + address} }})
	}
	return list
}

func (s *session) vnc() *cobra.Command {
	var (
		port  uint16
		proxy bool
		file  string
	)
	c := &cobra.Command{
		Use:   "vnc NAME",
		Short: "Show the guest's screen",
		Long: "Open a port of this machine's loopback address for the guest's screen and start a viewer on it, if there is one (remote-viewer,\n" +
			"vncviewer or vinagre). With --screenshot a picture is saved instead.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				return s.screenshot(cmd.Context(), args[0], file)
			}
			g, err := s.guest(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			l, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return fmt.Errorf("open a port: %w", err)
			}
			fmt.Fprintf(s.out, "%s\n", l.Addr())
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			shown := make(chan error, 1)
			if !proxy {
				if err := s.view(ctx, l.Addr().String(), shown); err != nil {
					fmt.Fprintf(s.err, "%v: connect a VNC viewer to %s; Ctrl-C ends it\n", err, l.Addr())
				}
			}
			return s.forward(ctx, l, g, shown)
		},
	}
	c.Flags().Uint16Var(&port, "port", 0, "port to open; any free one when 0")
	c.Flags().BoolVar(&proxy, "proxy-only", false, "open the port only, start no viewer")
	c.Flags().StringVar(&file, "screenshot", "", "save the screen as a PNG file of that name, and end")
	return c
}

// errNoViewer: none of the known programs is there.
var errNoViewer = errors.New("no VNC viewer was found")

// view starts the first viewer that there is; its end is told to shown.
func (s *session) view(ctx context.Context, address string, shown chan<- error) error {
	for _, v := range viewers() {
		path, err := exec.LookPath(v.program)
		if err != nil {
			continue
		}
		cmd := exec.CommandContext(ctx, path, v.args(address)...)
		cmd.Stdout, cmd.Stderr = s.err, s.err
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start %s: %w", v.program, err)
		}
		go func() { shown <- cmd.Wait() }()
		return nil
	}
	return errNoViewer
}

// forward connects everybody who comes to the port with the screen, until the viewer
// ends, a first connection fails, or the context ends.
func (s *session) forward(ctx context.Context, l net.Listener, g guest, shown <-chan error) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	var open sync.WaitGroup
	defer open.Wait()
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close()
				// The viewer's end is the end of its input.
				if err := g.stream(ctx, subresourcesv1alpha1.VNC, conn, conn); err != nil && ctx.Err() == nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
	}()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	case err := <-shown:
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("the viewer: %w", err)
		}
		return nil
	}
}
