package host_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jaypipes/ghw"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/topology"
)

// bigVFs is the design's largest host: eight GPUs and 4,096 VFs.
const bigVFs = 4096

// pciIDs is the database of names in the tree.
const pciIDs = "usr/share/hwdata/pci.ids"

// bigTree writes the big host once per run, in memory where the machine has
// /dev/shm: writing 100,000 small files to a disk takes longer than all
// benchmarks.
var bigTree = sync.OnceValues(func() (string, error) {
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = os.TempDir()
	}
	dir, err := os.MkdirTemp(base, "kubevfio-bench-")
	if err != nil {
		return "", err
	}
	if err := hosttest.Write(dir, hosttest.Big(bigVFs)); err != nil {
		return dir, err
	}
	// ghw wants a database of names. This one is as small as can be: parsing a
	// real one costs ghw another 35 ms.
	ids := filepath.Join(dir, pciIDs)
	if err := os.MkdirAll(filepath.Dir(ids), 0o755); err != nil {
		return dir, err
	}
	return dir, os.WriteFile(ids, []byte("10de  NVIDIA Corporation\n\t2335  GH100\nC 03  Display controller\n\t02  3D controller\n"), 0o644)
})

func TestMain(m *testing.M) {
	runWriterProcess()
	code := m.Run()
	if benchDirMade {
		if dir, err := bigTree(); err == nil {
			if err := os.RemoveAll(dir); err != nil {
				code = 1
			}
		}
	}
	os.Exit(code)
}

// benchDirMade tells TestMain to clean up.
var benchDirMade bool

func bigDir(b *testing.B) string {
	b.Helper()
	benchDirMade = true
	dir, err := bigTree()
	if err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkDiscovery reads the same generated host in three ways; compare the
// three in one run.
func BenchmarkDiscovery(b *testing.B) {
	dir := bigDir(b)
	b.Run("kubevfio", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h, err := host.Read(context.Background(), host.Dir(dir))
			if err != nil || len(h.Functions) < bigVFs || len(h.Skipped) > 0 {
				b.Fatalf("%d functions, %d skipped, %v", len(h.Functions), len(h.Skipped), err)
			}
		}
	})
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if n, err := hosttest.PlainRead(dir); err != nil || n == 0 {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("ghw", func(b *testing.B) {
		b.Setenv("PCIDB_PATH", filepath.Join(dir, pciIDs))
		b.ReportAllocs()
		for b.Loop() {
			info, err := ghw.PCI(ghw.WithChroot(dir), ghw.WithDisableWarnings(), ghw.WithDisableTopology())
			if err != nil {
				b.Skipf("ghw cannot read the tree: %v", err)
			}
			if len(info.Devices) < bigVFs {
				b.Fatalf("ghw found %d devices", len(info.Devices))
			}
		}
	})
}

// BenchmarkRescan reads one function again after a uevent that changed its
// driver's override, and takes the new reading.
func BenchmarkRescan(b *testing.B) {
	dir := bigDir(b)
	s := host.NewScanner(host.Dir(dir))
	h, err := s.Scan(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	var vf topology.Address
	for i := range h.Functions {
		if h.Functions[i].PF != nil {
			vf = h.Functions[i].Address
			break
		}
	}
	file := filepath.Join(dir, "sys/bus/pci/devices", vf.String(), "driver_override")
	before, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.WriteFile(file, before, 0o644); err != nil {
			b.Error(err)
		}
	})
	words := []string{"vfio-pci\n", "mlx5_vfio_pci\n"}
	i := 0
	event := func(b *testing.B) {
		b.StopTimer()
		i++
		if err := os.WriteFile(file, []byte(words[i%2]), 0o644); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if changed, err := s.Rescan(vf); err != nil || !changed {
			b.Fatal(changed, err)
		}
	}
	// One event and the reading that the agent goes on with.
	b.Run("reading", func(b *testing.B) {
		for b.Loop() {
			event(b)
			if got := s.Host().Function(vf).DriverOverride; got != strings.TrimSpace(words[i%2]) {
				b.Fatal(got)
			}
		}
	})
	// Each further event of a burst.
	b.Run("burst", func(b *testing.B) {
		for b.Loop() {
			event(b)
		}
	})
}
