package artifacts

import (
	"os"
	"path/filepath"
	"testing"
)

// TestBuild makes everything for real; it takes minutes and needs root, Debian and its archive.
func TestBuild(t *testing.T) {
	if os.Getenv("LAB_ARTIFACTS") == "" {
		t.Skip("set LAB_ARTIFACTS=1 to build the lab's artifacts for real")
	}
	checkout, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	set, err := Build(t.Context(), Options{Checkout: checkout, Progress: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Release()
	paths := []string{set.QEMURoot, set.NodeRootDisk, set.NodeKernel, set.NodeInitrd, set.ImagesDisk}
	for _, bin := range set.Bin {
		paths = append(paths, bin)
	}
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			t.Error(err)
			continue
		}
		t.Logf("%10d %s", info.Size(), p)
	}
}
