package host_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/topology"
	"golang.org/x/sys/unix"
)

func addr(s string) topology.Address {
	a, err := topology.ParseAddress(s)
	if err != nil {
		panic(err) // a test's own literal
	}
	return a
}

func read(t *testing.T, fsys host.FS) *topology.Host {
	t.Helper()
	h, err := host.Read(context.Background(), fsys)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func machines() map[string]*hosttest.Machine {
	return map[string]*hosttest.Machine{
		"hgx": hosttest.HGX(), "lab": hosttest.Lab(), "desktop": hosttest.Desktop(), "big": hosttest.Big(100),
	}
}

func TestReadDiskAndMemoryAgree(t *testing.T) {
	for name, m := range machines() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := hosttest.Write(dir, m); err != nil {
				t.Fatal(err)
			}
			onDisk, inMemory := read(t, host.Dir(dir)), read(t, m.Tree())
			if d := cmp.Diff(inMemory, onDisk); d != "" {
				t.Errorf("disk differs from memory (-memory +disk):\n%s", d)
			}
			if len(onDisk.Functions) != len(m.Functions()) || len(onDisk.Skipped) != 0 {
				t.Errorf("%d functions of %d, skipped %v", len(onDisk.Functions), len(m.Functions()), onDisk.Skipped)
			}
		})
	}
}

// TestReadEveryField pins the meaning of all fields on one VF, one GPU and one
// function in a 32-bit domain.
func TestReadEveryField(t *testing.T) {
	h := read(t, hosttest.HGX().Tree())
	gpu := h.Function(addr("0000:13:00.0"))
	want := topology.Function{
		Address: addr("0000:13:00.0"), Vendor: 0x10de, Device: 0x2335, SubVendor: 0x10de, SubDevice: 0x18be, Class: 0x030200, Revision: 0xa1,
		Driver: "vfio-pci", Modalias: "pci:v000010DEd00002335sv000010DEsd000018BEbc03sc02i00",
		IOMMUGroup: gpu.IOMMUGroup, IOMMUGroupType: "DMA", VFIODev: gpu.VFIODev, NUMA: 0, Root: "pci0000:10",
		Path:    []topology.Address{addr("0000:10:00.0"), addr("0000:11:00.0"), addr("0000:12:00.0")},
		VFIndex: -1,
		BARs: []topology.BAR{
			{Index: 0, Bytes: 16 << 20, Is64: true, Prefetchable: true},
			{Index: 2, Bytes: 256 << 30, Is64: true, Prefetchable: true},
			{Index: 4, Bytes: 32 << 20, Is64: true, Prefetchable: true},
		},
		ResetMethods: []string{"flr", "bus"},
		Link:         topology.Link{SpeedMTs: 32000, MaxSpeedMTs: 32000, Width: 16, MaxWidth: 16},
		Enabled:      true,
	}
	if d := cmp.Diff(&want, gpu); d != "" {
		t.Errorf("GPU (-want +got):\n%s", d)
	}
	if gpu.IOMMUGroup < 0 || gpu.VFIODev == "" {
		t.Errorf("GPU without group or cdev: %d %q", gpu.IOMMUGroup, gpu.VFIODev)
	}
	pf := h.Function(addr("0000:14:00.0"))
	if pf.TotalVFs != 16 || pf.NumVFs != 8 || len(pf.VFs) != 8 || !pf.SRIOV || pf.ROMBytes != 1<<20 {
		t.Errorf("PF: total %d num %d VFs %v SRIOV %v ROM %d", pf.TotalVFs, pf.NumVFs, pf.VFs, pf.SRIOV, pf.ROMBytes)
	}
	if !slices.Equal(pf.Net, []string{"ibs0"}) || !slices.Equal(pf.RDMA, []string{"mlx5_0"}) {
		t.Errorf("PF's children: net %v rdma %v", pf.Net, pf.RDMA)
	}
	vf := h.Function(pf.VFs[3])
	if vf.PF == nil || *vf.PF != pf.Address || vf.VFIndex != 3 || vf.Link != (topology.Link{}) || vf.SRIOV {
		t.Errorf("VF 3: %+v", vf)
	}
	if h.PhysAddrBits != 52 || !h.IOMMUFD || h.BootID == "" {
		t.Errorf("machine: %d bits, iommufd %v, boot ID %q", h.PhysAddrBits, h.IOMMUFD, h.BootID)
	}
	if len(h.NUMANodes) != 4 || len(h.CPUs) != 192 {
		t.Fatalf("%d nodes, %d CPUs", len(h.NUMANodes), len(h.CPUs))
	}
	n := h.NUMANodes[1]
	if n.MemoryBytes != 512<<30 || n.MemFreeBytes != 256<<30 || !slices.Equal(n.Distances, []int{12, 10, 21, 21}) || host.FormatList(n.CPUs) != "24-47,120-143" {
		t.Errorf("node 1: %+v", n)
	}
	if d := cmp.Diff([]topology.HugepagePool{{PageBytes: 2 << 20, Total: 1024, Free: 1024}, {PageBytes: 1 << 30, Total: 256, Free: 256}}, n.Hugepages); d != "" {
		t.Errorf("huge pages (-want +got):\n%s", d)
	}
	if c := h.CPUs[100]; c.Socket != 0 || c.NUMA != 0 || !slices.Equal(c.Siblings, []int{4, 100}) {
		t.Errorf("CPU 100: %+v", c)
	}

	desk := read(t, hosttest.Desktop().Tree())
	vmd := desk.Function(addr("10000:01:00.0"))
	if vmd == nil || vmd.Root != "pci10000:00" || !slices.Equal(vmd.Path, []topology.Address{addr("10000:00:00.0")}) || vmd.NUMA != topology.NUMAUnknown {
		t.Errorf("function below the VMD: %+v", vmd)
	}
	if m := desk.Function(addr("0000:09:00.0")).Mdevs; len(m) != 2 {
		t.Errorf("mediated devices: %v", m)
	}
	if !slices.Equal(desk.Function(addr("10000:01:00.0")).Block, []string{"nvme0n1"}) {
		t.Errorf("block devices: %v", vmd.Block)
	}
}

// TestReadWithFaults: each fault costs at most the function that has it.
func TestReadWithFaults(t *testing.T) {
	const victim = "0000:13:00.0"
	dir := "sys/devices/pci0000:10/0000:10:00.0/0000:11:00.0/0000:12:00.0/" + victim
	cases := map[string]struct {
		change  func(*host.Tree)
		skipped string // part of the reason; empty when the function stays
		check   func(*topology.Function) bool
	}{
		"vanished directory":     {change: func(t *host.Tree) { t.Remove(dir) }, skipped: "vanished"},
		"unreadable directory":   {change: func(t *host.Tree) { t.Deny(dir, unix.EIO) }, skipped: "directory"},
		"vanished after listing": {change: func(t *host.Tree) { t.Deny(dir+"/uevent", unix.ENODEV) }, skipped: "vanished"},
		"group unreadable":       {change: func(t *host.Tree) { t.Deny(dir+"/iommu_group", unix.EACCES) }, skipped: "iommu_group"},
		"group not a number":     {change: func(t *host.Tree) { t.Link(dir+"/iommu_group", "../x") }, skipped: "iommu_group"},
		"no identity at all": {change: func(t *host.Tree) {
			t.Remove(dir + "/uevent")
			t.Remove(dir + "/vendor")
		}, skipped: "vendor"},
		"garbage class": {change: func(t *host.Tree) {
			t.Remove(dir + "/uevent")
			t.File(dir+"/class", "zebra\n")
		}, skipped: "class"},
		"uevent unreadable": {change: func(t *host.Tree) { t.Deny(dir+"/uevent", unix.EACCES) }, check: func(f *topology.Function) bool {
			return f.Vendor == 0x10de && f.Device == 0x2335 && f.Class == 0x030200 && f.Modalias != "" && f.SubDevice == 0x18be
		}},
		"NUMA garbage":   {change: func(t *host.Tree) { t.File(dir+"/numa_node", "x\n") }, check: func(f *topology.Function) bool { return f.NUMA == topology.NUMAUnknown }},
		"NUMA minus one": {change: func(t *host.Tree) { t.File(dir+"/numa_node", "-1\n") }, check: func(f *topology.Function) bool { return f.NUMA == topology.NUMAUnknown }},
		"resource garbage": {change: func(t *host.Tree) { t.File(dir+"/resource", "1 2 3\n") }, check: func(f *topology.Function) bool {
			return f.BARs == nil
		}},
		"VFs uncounted": {change: func(t *host.Tree) {
			t.File(dir+"/sriov_totalvfs", "8\n")
			t.Remove(dir + "/sriov_numvfs")
		}, check: func(f *topology.Function) bool { return f.SRIOV && f.TotalVFs == 8 && f.NumVFs == -1 }},
		"VFs garbage": {change: func(t *host.Tree) {
			t.File(dir+"/sriov_totalvfs", "many\n")
			t.File(dir+"/sriov_numvfs", "2\n")
		}, check: func(f *topology.Function) bool { return f.SRIOV && f.TotalVFs == -1 && f.NumVFs == 2 }},
		"no driver": {change: func(t *host.Tree) { t.Remove(dir + "/driver") }, check: func(f *topology.Function) bool { return f.Driver == "" }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tree := hosttest.HGX().Tree()
			all := len(read(t, tree).Functions)
			c.change(tree)
			h := read(t, tree)
			f := h.Function(addr(victim))
			if c.skipped == "" {
				if f == nil || len(h.Skipped) != 0 || !c.check(f) {
					t.Fatalf("function %+v, skipped %v", f, h.Skipped)
				}
				return
			}
			if f != nil || len(h.Functions) != all-1 || len(h.Skipped) != 1 || h.Skipped[0].Address != victim || !strings.Contains(h.Skipped[0].Reason, c.skipped) {
				t.Fatalf("found %v, %d functions of %d, skipped %+v", f != nil, len(h.Functions), all, h.Skipped)
			}
		})
	}
}

// TestReadCaptures: the ways in which captures differ from a live tree.
func TestReadCaptures(t *testing.T) {
	m := hosttest.Lab()
	want := read(t, m.Tree())
	cases := map[string]func(*host.Tree){
		"absolute links": func(t *host.Tree) {
			for _, f := range m.Functions() {
				t.Link("sys/bus/pci/devices/"+f.Addr.String(), "/"+f.Dir())
			}
		},
		"no bus folder":      func(t *host.Tree) { t.Remove("sys/bus") },
		"no class folder":    func(t *host.Tree) { t.Remove("sys/class"); t.Remove("sys/block") },
		"no uevent files":    func(t *host.Tree) { removeAll(t, m, "uevent") },
		"groups' lists only": func(t *host.Tree) { removeAll(t, m, "iommu_group") },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			tree := m.Tree()
			change(tree)
			got := read(t, tree)
			got.IOMMUFD = want.IOMMUFD // a class device
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-live +capture):\n%s", d)
			}
		})
	}
	t.Run("empty", func(t *testing.T) {
		if _, err := host.Read(context.Background(), host.NewTree()); !errors.Is(err, host.ErrNoHost) {
			t.Errorf("got %v", err)
		}
		tree := host.NewTree()
		tree.MkdirAll("sys")
		if h := read(t, tree); len(h.Functions) != 0 {
			t.Errorf("functions in an empty tree: %v", h.Functions)
		}
	})
	t.Run("missing directory", func(t *testing.T) {
		if _, err := host.Read(context.Background(), host.Dir(filepath.Join(t.TempDir(), "x"))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := host.Read(ctx, m.Tree()); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func removeAll(t *host.Tree, m *hosttest.Machine, file string) {
	for _, f := range m.Functions() {
		t.Remove(f.Dir() + "/" + file)
	}
}

// TestDirStaysInside: a hostile capture cannot make the reader read the machine
// that it runs on.
func TestDirStaysInside(t *testing.T) {
	dir := t.TempDir()
	m := hosttest.New(hosttest.Spec{})
	m.Root(0, 0, 0).Add(hosttest.Fn{Vendor: 0x1af4, Device: 0x1041, Class: 0x020000})
	if err := hosttest.Write(dir, m); err != nil {
		t.Fatal(err)
	}
	fsys := host.Dir(dir)
	for _, name := range []string{"../etc/passwd", "/etc/passwd", "sys/../../etc/passwd"} {
		if _, err := fs.ReadFile(fsys, name); err == nil {
			t.Errorf("%s could be read", name)
		}
	}
	if err := unix.Symlink("/etc/hostname", filepath.Join(dir, "sys/escape")); err != nil {
		t.Fatal(err)
	}
	if b, err := fs.ReadFile(fsys, "sys/escape"); err == nil {
		t.Errorf("a link led out: %q", b)
	}
	if err := unix.Symlink("../../../../../../../../../etc/hostname", filepath.Join(dir, "sys/bus/up")); err != nil {
		t.Fatal(err)
	}
	if b, err := fs.ReadFile(fsys, "sys/bus/up"); err == nil {
		t.Errorf("dots led out: %q", b)
	}
}

func TestRescan(t *testing.T) {
	m := hosttest.Lab()
	k := hosttest.NewKernel(m)
	s := host.NewScanner(k.Tree)
	if _, err := s.Rescan(addr("0000:41:00.0")); err == nil {
		t.Error("rescan before the first scan succeeded")
	}
	first, err := s.Scan(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	before := slices.Clone(first.Functions)
	vf := addr("0000:41:00.5")

	if changed, err := s.Rescan(vf); changed || err != nil {
		t.Fatalf("nothing happened, yet changed=%v err=%v", changed, err)
	}
	if s.Host() != first {
		t.Error("a rescan without a change made a new reading")
	}
	write := func(name, value string) {
		t.Helper()
		if err := k.WriteAttr(context.Background(), vf, name, value); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/bus/pci/drivers/vfio-pci/unbind", vf.String())
	if changed, err := s.Rescan(vf); !changed || err != nil {
		t.Fatalf("unbound: changed=%v err=%v", changed, err)
	}
	if f := s.Host().Function(vf); f.Driver != "" || f.VFIODev != "" || f.VFIndex != 1 {
		t.Errorf("after unbind: driver %q, cdev %q, VF %d", f.Driver, f.VFIODev, f.VFIndex)
	}
	fn := m.Function(vf.String())
	k.Unplug(vf)
	if changed, err := s.Rescan(vf); !changed || err != nil || s.Host().Function(vf) != nil {
		t.Fatalf("unplugged: changed=%v err=%v", changed, err)
	}
	k.Plug(fn)
	if changed, err := s.Rescan(vf); !changed || err != nil || s.Host().Function(vf) == nil {
		t.Fatalf("plugged: changed=%v err=%v", changed, err)
	}
	if d := cmp.Diff(before, first.Functions); d != "" {
		t.Errorf("the first reading changed under its owner:\n%s", d)
	}
	// All rescans together see what a new scan sees.
	if d := cmp.Diff(read(t, k.Tree), s.Host()); d != "" {
		t.Errorf("rescans differ from a scan (-scan +rescans):\n%s", d)
	}
	for i := range s.Host().Functions {
		a := s.Host().Functions[i].Address
		if changed, err := s.Rescan(a); changed || err != nil {
			t.Errorf("%s: changed=%v err=%v without a change", a, changed, err)
		}
	}
}
