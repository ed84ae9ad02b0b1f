package artifacts

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// bzImage makes a kernel image around a payload, as arch/x86/boot/tools/build does.
func bzImage(t testing.TB, kernel []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	payload := binary.LittleEndian.AppendUint32(enc.EncodeAll(kernel, nil), uint32(len(kernel)))
	image := make([]byte, 3*512+16)
	image[bootSetupSects] = 2
	copy(image[bootMagic:], "HdrS")
	binary.LittleEndian.PutUint32(image[bootPayloadOffset:], 16)
	binary.LittleEndian.PutUint32(image[bootPayloadLength:], uint32(len(payload)))
	return append(append(image, payload...), make([]byte, 100)...)
}

func TestUnpackKernel(t *testing.T) {
	want := []byte("\x7fELF kernel")
	got, err := unpackKernel(bzImage(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, change := range map[string]func([]byte) []byte{
		"cut off":       func(b []byte) []byte { return b[:0x210] },
		"no header":     func(b []byte) []byte { b[bootMagic] = 'x'; return b },
		"outside":       func(b []byte) []byte { b[bootPayloadLength+2] = 0xff; return b },
		"other packing": func(b []byte) []byte { b[3*512+16] = 0; return b },
		"no ELF":        func([]byte) []byte { return bzImage(t, []byte("text")) },
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := unpackKernel(change(bzImage(t, want))); !errors.Is(err, errKernelFormat) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func FuzzUnpackKernel(f *testing.F) {
	f.Add(bzImage(f, []byte("\x7fELF")))
	f.Fuzz(func(t *testing.T, image []byte) {
		if kernel, err := unpackKernel(image); err == nil && string(kernel[:4]) != "\x7fELF" {
			t.Error("no ELF file, no error")
		}
	})
}
