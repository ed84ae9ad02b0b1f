package cluster

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestTrimFront(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpu.log")
	if err := trimFront(path, 10); err != nil {
		t.Errorf("no file: %v", err)
	}
	line := []byte("vmrun! 0000000110854000\n")
	if err := os.WriteFile(path, bytes.Repeat(line, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	blocks := func() int64 {
		t.Helper()
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	before := blocks()
	if err := trimFront(path, 10<<20); err != nil {
		t.Fatal(err)
	}
	if now := blocks(); now != before {
		t.Errorf("a short file had %d bytes of blocks and has %d", before, now)
	}
	const keep = 100_000
	if err := trimFront(path, keep); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 100_000*len(line) {
		t.Errorf("length %d", len(got))
	}
	if !bytes.HasSuffix(bytes.Repeat(line, 100_000), got[len(got)-keep:]) || bytes.IndexByte(got[len(got)-keep:], 0) >= 0 {
		t.Error("the end is not what it was")
	}
	if now := blocks(); now > keep+2*4096 {
		t.Errorf("%d bytes of blocks are left", now)
	}
}
