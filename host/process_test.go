package host_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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
	if os.Getenv(writerEnv) == "" || len(os.Args) < 4 || os.Args[1] != host.WriteAttrCommand {
		return
	}
	os.Exit(host.WriteAttrMain(os.Args[2:]))
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
