package supervisor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
)

// maxSide bounds the sides of a screen in pixels.
const maxSide = 8192

// errPPM is the class of errors about a picture that is no binary PPM.
var errPPM = errors.New("not a PPM picture")

// toPNG turns QEMU's binary PPM (P6, one byte per sample) into PNG.
func toPNG(r io.Reader) ([]byte, error) {
	in := bufio.NewReader(r)
	var magic string
	var w, h, depth int
	if _, err := fmt.Fscanf(in, "%2s\n%d %d\n%d\n", &magic, &w, &h, &depth); err != nil {
		return nil, fmt.Errorf("%w: header: %w", errPPM, err)
	}
	if magic != "P6" || depth != 255 || w < 1 || h < 1 || w > maxSide || h > maxSide {
		return nil, fmt.Errorf("%w: %s, %d x %d, depth %d", errPPM, magic, w, h, depth)
	}
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	row := make([]byte, 3*w)
	for y := range h {
		if _, err := io.ReadFull(in, row); err != nil {
			return nil, fmt.Errorf("%w: row %d: %w", errPPM, y, err)
		}
		out := img.Pix[y*img.Stride:]
		for x := range w {
			copy(out[4*x:], row[3*x:3*x+3])
			out[4*x+3] = 0xff
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return nil, fmt.Errorf("encode the picture: %w", err)
	}
	return b.Bytes(), nil
}
