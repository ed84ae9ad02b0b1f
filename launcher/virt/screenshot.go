//go:build libvirt_dlopen && cgo

package virt

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"libvirt.org/go/libvirt"
)

// maxScreenshot bounds a picture: 4096 x 2160 pixels as PPM are 27 MB.
const maxScreenshot = 64 << 20

// Screenshot writes a picture of the first screen as libvirt gives it and
// returns its MIME type: image/png or image/x-portable-pixmap. A guest without a
// screen is [ErrNotSupported].
func (g *Guest) Screenshot(w io.Writer) (mime string, err error) {
	// libvirt has an unclassed internal error for it.
	if xml, err := g.XML(); err != nil {
		return "", err
	} else if !strings.Contains(xml, "<graphics") {
		return "", fmt.Errorf("%w: take a screenshot: the guest has no screen (spec.domain.devices.autoattachGraphicsDevice)", ErrNotSupported)
	}
	c, err := g.d.DomainGetConnect()
	if err != nil {
		return "", fmt.Errorf("take a screenshot: %w", plain(err))
	}
	defer func() {
		if _, cerr := c.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("take a screenshot: %w", plain(cerr)))
		}
	}()
	s, err := c.NewStream(0)
	if err != nil {
		return "", fmt.Errorf("take a screenshot: %w", plain(err))
	}
	defer func() {
		if ferr := s.Free(); ferr != nil {
			err = errors.Join(err, fmt.Errorf("take a screenshot: %w", plain(ferr)))
		}
	}()
	mime, err = g.d.Screenshot(s, 0, 0)
	if err != nil {
		return "", fmt.Errorf("take a screenshot: %w", plain(err))
	}
	n, err := io.Copy(w, io.LimitReader(streamReader{s}, maxScreenshot+1))
	if err == nil && n > maxScreenshot {
		err = fmt.Errorf("more than %d bytes", maxScreenshot)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("take a screenshot: %w", err), s.Abort())
	}
	if err := s.Finish(); err != nil {
		return "", fmt.Errorf("take a screenshot: %w", plain(err))
	}
	return mime, nil
}

// streamReader reads a libvirt stream to its end.
type streamReader struct{ s *libvirt.Stream }

func (r streamReader) Read(p []byte) (int, error) {
	n, err := r.s.Recv(p)
	if err != nil {
		return 0, plain(err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
