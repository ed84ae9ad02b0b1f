package nodeapi

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFramesRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	w := NewFrameWriter(&buf)
	big := strings.Repeat("x", maxFrame+10)
	if _, err := io.WriteString(w.Stream(StdoutFrame), big); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(ResultFrame, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	var kinds []byte
	for {
		kind, data, err := ReadFrame(&buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds, sizes = append(kinds, kind), append(sizes, len(data))
	}
	if d := cmp.Diff([]int{maxFrame, 10, 2}, sizes) + cmp.Diff([]byte{StdoutFrame, StdoutFrame, ResultFrame}, kinds); d != "" {
		t.Fatal(d)
	}
}

func TestReadFrameRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"unknown type": "\x09\x00\x00\x00\x00",
		"too long":     "\x01\xff\xff\xff\xff",
		"cut short":    "\x01\x00\x00\x00\x05abc",
	} {
		if _, _, err := ReadFrame(strings.NewReader(in)); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: got %v, want ErrFrame", name, err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02hi"))
	f.Fuzz(func(t *testing.T, in []byte) {
		kind, data, err := ReadFrame(bytes.NewReader(in))
		if err != nil {
			return
		}
		var buf bytes.Buffer
		if err := NewFrameWriter(&buf).Write(kind, data); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf.Bytes(), in[:buf.Len()]) {
			t.Fatalf("frame %x written again as %x", in, buf.Bytes())
		}
	})
}
