package host_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubevfio/kubevfio/host"
	"golang.org/x/sys/unix"
)

// writerEnv makes this test binary the writer process.
const writerEnv = "KUBEVFIO_TEST_WRITE_ATTR"

// runWriterProcess turns the test binary into the writer process when a test starts it as
// such: there is no other binary to run.
func runWriterProcess() {
	if os.Getenv(writerEnv) == "" || len(os.Args) != 2 || os.Args[1] != host.WriteAttrCommand {
		return
	}
	os.Exit(host.WriteAttrMain(os.Stdin, os.Stdout))
}

func TestProcessWriter(t *testing.T) {
	t.Setenv(writerEnv, "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w := host.NewProcessWriter(dir, []string{self}, 10*time.Second)
	ctx, a := context.Background(), addr("0000:01:00.0")
	if err := os.WriteFile(filepath.Join(dir, "attr"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteAttr(ctx, a, "attr", "vfio-pci\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "attr")); err != nil || string(b) != "vfio-pci\n" {
		t.Errorf("wrote %q, %v", b, err)
	}
	if err := w.WriteAttr(ctx, a, "absent", "x"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("absent attribute: %v", err)
	}

	// Opening a FIFO for writing blocks until somebody reads, as a write that
	// the kernel holds up does.
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	quick := host.NewProcessWriter(dir, []string{self}, 100*time.Millisecond)
	if err := quick.WriteAttr(ctx, a, "fifo", "x"); !errors.Is(err, host.ErrStuck) {
		t.Fatalf("blocked write: %v", err)
	}
	if err := quick.WriteAttr(ctx, a, "attr", "x"); !errors.Is(err, host.ErrStuck) {
		t.Errorf("a second write to the device: %v", err)
	}
	if s := quick.Stuck(); s[a] != "fifo" {
		t.Errorf("stuck: %v", s)
	}
	if b, err := os.ReadFile(fifo); err != nil || string(b) != "x" { // lets the process go
		t.Errorf("the late write: %q, %v", b, err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for len(quick.Stuck()) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("still stuck after the write returned")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// One process makes many writes; each device's error is its own.
func TestWriteAttrMain(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a:b")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	frame := func(s string) string { return fmt.Sprintf("%d:%s", len(s), s) }
	absent := filepath.Join(dir, "absent")
	for name, c := range map[string]struct {
		in, want string
		status   int
	}{
		"nothing":       {},
		"three writes":  {in: frame(file) + frame("x\n") + frame(absent) + frame("x") + frame(file) + frame(""), want: "0\n2\n0\n"},
		"half a pair":   {in: frame(file), status: int(unix.EINVAL)},
		"half a frame":  {in: "10:abc", status: int(unix.EINVAL)},
		"no length":     {in: "x:abc", status: int(unix.EINVAL)},
		"long":          {in: "99999999:abc", status: int(unix.EINVAL)},
		"negative":      {in: "-1:abc", status: int(unix.EINVAL)},
		"a write first": {in: frame(file) + frame("y") + "x", want: "0\n", status: int(unix.EINVAL)},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if status := host.WriteAttrMain(strings.NewReader(c.in), &out); status != c.status || out.String() != c.want {
				t.Errorf("status %d, answers %q; want %d, %q", status, out.String(), c.status, c.want)
			}
		})
	}
}

// A process that ends costs the write that it had, and the next gets a new one.
func TestProcessWriterRestarts(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "attr"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w := host.NewProcessWriter(dir, []string{"/bin/sh", "-c", "exit 0"}, 10*time.Second)
	for range 2 {
		if err := w.WriteAttr(context.Background(), addr("0000:01:00.0"), "attr", "x"); err == nil || errors.Is(err, host.ErrStuck) {
			t.Errorf("a writer that does nothing: %v", err)
		}
	}
}
