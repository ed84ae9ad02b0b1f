package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/launcher/console"
	"github.com/kubevfio/kubevfio/launcher/rpc"
	"github.com/kubevfio/kubevfio/launcher/virt"
)

// handlers are what RPC may ask.
func (s *Supervisor) handlers() rpc.Handlers {
	return rpc.Handlers{State: s.snapshot, Command: s.command, Stream: s.stream, Document: s.document}
}

func (s *Supervisor) snapshot() launcherrpcv1.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	st.Devices = append([]launcherrpcv1.Device(nil), st.Devices...)
	st.Timings = append([]launcherrpcv1.Timing(nil), st.Timings...)
	return st
}

func (s *Supervisor) command(_ context.Context, path string, stop launcherrpcv1.StopRequest) error {
	switch path {
	case launcherrpcv1.PathStop:
		s.requestStop(stop)
		return nil
	case launcherrpcv1.PathRelease:
		if p := s.snapshot().Phase; p != launcherrpcv1.PhaseStandby {
			return fmt.Errorf("%w: the launcher is in phase %s, not in %s", rpc.ErrConflict, p, launcherrpcv1.PhaseStandby)
		}
		select {
		case s.release <- struct{}{}:
		default:
		}
		return nil
	}
	g, err := s.running()
	if err != nil {
		return err
	}
	switch path {
	case launcherrpcv1.PathPause:
		if err := s.setHeld(true); err != nil {
			return err
		}
		return g.Do(virt.Pause)
	case launcherrpcv1.PathUnpause:
		if err := s.setHeld(false); err != nil {
			return err
		}
		return g.Do(virt.Resume)
	case launcherrpcv1.PathSoftReboot:
		return g.Do(virt.Reboot)
	case launcherrpcv1.PathReset:
		return g.Do(virt.Reset)
	default:
		return fmt.Errorf("%w: %s", rpc.ErrNotSupported, path)
	}
}

// stream connects somebody who attached on purpose: raw bytes both ways.
func (s *Supervisor) stream(ctx context.Context, path string) (func(io.ReadWriter) error, error) {
	if path == launcherrpcv1.PathConsole {
		return s.consoleStream, nil
	}
	if _, err := s.running(); err != nil {
		return nil, err
	}
	screen, err := (&net.Dialer{}).DialContext(ctx, "unix", s.vncSocket())
	if err != nil {
		return nil, fmt.Errorf("%w: the guest has no screen (spec.domain.devices.autoattachGraphicsDevice): %w", rpc.ErrNotSupported, err)
	}
	return func(rw io.ReadWriter) error {
		defer screen.Close()
		return both(rw, screen)
	}, nil
}

func (s *Supervisor) consoleStream(rw io.ReadWriter) error {
	out := s.hub.Subscribe(4 << 10)
	defer out.Close()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(rw, out)
		done <- err
	}()
	go func() {
		// A guest that does not read loses input; the line stays up.
		buf := make([]byte, 1<<10)
		for {
			n, err := rw.Read(buf)
			if n > 0 {
				if _, werr := s.hub.Write(buf[:n]); werr != nil && !errors.Is(werr, console.ErrNoGuest) {
					s.Log.Debug("console input lost", "err", werr)
				}
			}
			if err != nil {
				if errors.Is(err, io.EOF) {
					// No more input; let what the guest answers come through.
					time.Sleep(time.Second)
				}
				out.Close()
				return
			}
		}
	}()
	return <-done
}

// both copies both ways until either ends.
func both(a, b io.ReadWriter) error {
	done := make(chan error, 2)
	for _, pair := range [][2]io.ReadWriter{{a, b}, {b, a}} {
		go func() {
			_, err := io.Copy(pair[0], pair[1])
			done <- err
		}()
	}
	return <-done
}

func (s *Supervisor) document(path string) (mime string, body []byte, err error) {
	g, err := s.running()
	if err != nil {
		return "", nil, err
	}
	if path == launcherrpcv1.PathDomainXML {
		xml, err := g.XML()
		return "application/xml", []byte(xml), err
	}
	if path == launcherrpcv1.PathGuestInfo {
		return guestInfo(g)
	}
	var b bytes.Buffer
	mime, err = g.Screenshot(&b)
	if errors.Is(err, virt.ErrNotSupported) {
		return "", nil, fmt.Errorf("%w: %w", rpc.ErrNotSupported, err)
	}
	if err != nil {
		return "", nil, err
	}
	if mime == "image/png" {
		return mime, b.Bytes(), nil
	}
	png, err := toPNG(&b)
	return "image/png", png, err
}

// guestInfo asks the guest's agent.
func guestInfo(g Guest) (mime string, body []byte, err error) {
	info, err := g.Info()
	switch {
	case errors.Is(err, virt.ErrNotSupported):
		return "", nil, fmt.Errorf("%w: the guest has no channel for an agent (spec.domain.devices.guestAgent): %w", rpc.ErrNotSupported, err)
	case errors.Is(err, virt.ErrAgent):
		return "", nil, fmt.Errorf("%w: %w", rpc.ErrConflict, err)
	case err != nil:
		return "", nil, err
	}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return "", nil, fmt.Errorf("encode what the agent says: %w", err)
	}
	return "application/json", append(b, '\n'), nil
}
