package supervisor

import (
	"bytes"
	"errors"
	"image/png"
	"strings"
	"testing"
)

func TestToPNG(t *testing.T) {
	b, err := toPNG(strings.NewReader("P6\n2 1\n255\n\xff\x00\x00\x00\xff\x00"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if r, g, _, _ := img.At(1, 0).RGBA(); img.Bounds().Dx() != 2 || r != 0 || g != 0xffff {
		t.Errorf("picture %v, pixel %v", img.Bounds(), img.At(1, 0))
	}
	for _, bad := range []string{"", "P5\n1 1\n255\n.", "P6\n99999 1\n255\n", "P6\n2 2\n255\n...", "P6\n-1 1\n255\n"} {
		if _, err := toPNG(strings.NewReader(bad)); !errors.Is(err, errPPM) {
			t.Errorf("%q: error %v", bad, err)
		}
	}
}

func FuzzToPNG(f *testing.F) {
	f.Add([]byte("P6\n2 1\n255\n\xff\x00\x00\x00\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<12 {
			return
		}
		if out, err := toPNG(bytes.NewReader(b)); err == nil && len(out) == 0 {
			t.Error("an empty picture")
		}
	})
}
