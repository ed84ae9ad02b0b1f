package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/jaypipes/ghw"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/topology"
)

// pciIDs is as small as a database of names can be: parsing a real one would
// cost ghw another 35 ms.
const pciIDs = "10de  NVIDIA Corporation\n\t2335  GH100\nC 03  Display controller\n\t02  3D controller\n"

// discovery reads the host in three ways, in turns.
func discovery(ctx context.Context, root string, vfs, rounds int, res *results) error {
	names := filepath.Join(filepath.Dir(root), "pci.ids")
	if err := os.WriteFile(names, []byte(pciIDs), 0o644); err != nil {
		return err
	}
	if err := os.Setenv("PCIDB_PATH", names); err != nil {
		return err
	}
	ways := []struct {
		name string
		read func() error
	}{
		{"kubevfio", func() error {
			h, err := host.Read(ctx, host.Dir(root))
			if err == nil && (len(h.Functions) < vfs || len(h.Skipped) > 0) {
				err = fmt.Errorf("read %d functions and skipped %d", len(h.Functions), len(h.Skipped))
			}
			return err
		}},
		{"plain", func() error { _, err := hosttest.PlainRead(root); return err }},
		{"ghw", func() error {
			info, err := ghw.PCI(ghw.WithChroot(root), ghw.WithDisableWarnings(), ghw.WithDisableTopology())
			if err == nil && len(info.Devices) < vfs {
				err = fmt.Errorf("ghw found %d devices", len(info.Devices))
			}
			return err
		}},
	}
	times := map[string][]time.Duration{}
	for round := range rounds + 1 {
		for _, w := range ways {
			runtime.GC()
			start := time.Now()
			if err := w.read(); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			if round > 0 { // the first one warms the caches
				times[w.name] = append(times[w.name], time.Since(start))
			}
		}
	}
	res.DiscoveryMS = map[string]float64{}
	for name, d := range times {
		res.DiscoveryMS[name] = quantile(d, 0.5) / 1e3
	}
	res.DiscoveryVsLimit = res.DiscoveryMS["kubevfio"] / res.DiscoveryMS["plain"]
	res.DiscoveryVsGHW = res.DiscoveryMS["kubevfio"] / res.DiscoveryMS["ghw"]
	return nil
}

// rescans changes one function again and again and reads it after each change.
func rescans(ctx context.Context, root string, res *results) error {
	s := host.NewScanner(host.Dir(root))
	h, err := s.Scan(ctx)
	if err != nil {
		return err
	}
	var vf *topology.Address
	for i := range h.Functions {
		if h.Functions[i].PF != nil {
			vf = &h.Functions[i].Address
		}
	}
	if vf == nil {
		return fmt.Errorf("%w: no virtual function", host.ErrNoHost)
	}
	file := filepath.Join(root, "sys/bus/pci/devices", vf.String(), "driver_override")
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var times []time.Duration
	words := []string{"vfio-pci\n", "mlx5_vfio_pci\n"}
	for i := range 500 {
		if err := os.WriteFile(file, []byte(words[i%2]), 0o644); err != nil {
			return err
		}
		start := time.Now()
		changed, err := s.Rescan(*vf)
		now := s.Host()
		times = append(times, time.Since(start))
		if got := now.Function(*vf).DriverOverride; err != nil || !changed || got != strings.TrimSpace(words[i%2]) {
			return fmt.Errorf("rescan of %s: changed %v, override %q, %w", vf, changed, got, err)
		}
	}
	res.RescanUS, res.RescanP99US = quantile(times, 0.5), quantile(times, 0.99)
	return os.WriteFile(file, before, 0o644)
}
