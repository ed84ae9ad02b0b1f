package host_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/topology"
	"golang.org/x/sys/unix"
)

// rig is a machine under a fake kernel with a writer on it.
type rig struct {
	t      *testing.T
	m      *hosttest.Machine
	k      *hosttest.Kernel
	w      host.Writer
	state  string
	loaded []string
	busy   map[topology.Address]string
}

func newRig(t *testing.T, m *hosttest.Machine) *rig {
	t.Helper()
	r := &rig{t: t, m: m, k: hosttest.NewKernel(m, "vfio-pci"), state: filepath.Join(t.TempDir(), "former.json"), busy: map[topology.Address]string{}}
	r.restart()
	return r
}

// restart makes a new writer on the same state file.
func (r *rig) restart() {
	st, err := host.OpenState(r.state)
	if err != nil {
		r.t.Fatal(err)
	}
	r.w = host.NewWriter(host.WriterConfig{
		FS: r.k.Tree, Attrs: r.k, State: st,
		Modprobe: func(_ context.Context, m string) error { r.loaded = append(r.loaded, m); return nil },
		Busy:     func(a topology.Address) string { return r.busy[a] },
	})
}

func (r *rig) function(a string) topology.Function {
	r.t.Helper()
	f, err := host.ReadFunction(r.k.Tree, addr(a))
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

func (r *rig) bind(a, driver string) error { return r.w.Bind(context.Background(), addr(a), driver) }

const (
	deskGPU = "0000:01:00.0" // nouveau
	deskNIC = "0000:00:1f.3" // e1000e, eno1
	deskPF  = "0000:08:00.0" // igb with one VF
	deskVMD = "10000:01:00.0"
)

func TestBindAndGiveBack(t *testing.T) {
	r := newRig(t, hosttest.Desktop())
	if err := r.bind(deskGPU, "vfio-pci"); err != nil {
		t.Fatal(err)
	}
	f := r.function(deskGPU)
	if f.Driver != "vfio-pci" || f.DriverOverride != "vfio-pci" {
		t.Errorf("driver %q override %q", f.Driver, f.DriverOverride)
	}
	if !slices.Contains(r.loaded, "vfio-pci") {
		t.Errorf("modules loaded: %v", r.loaded)
	}
	before := len(r.k.Writes())
	if err := r.bind(deskGPU, "vfio-pci"); err != nil || len(r.k.Writes()) != before {
		t.Errorf("binding again: %v, wrote %v", err, r.k.Writes()[before:])
	}
	r.restart() // the memory is on disk
	if err := r.bind(deskGPU, ""); err != nil {
		t.Fatal(err)
	}
	if f := r.function(deskGPU); f.Driver != "nouveau" || f.DriverOverride != "" {
		t.Errorf("given back: driver %q override %q", f.Driver, f.DriverOverride)
	}
	before = len(r.k.Writes())
	if err := r.bind(deskGPU, ""); err != nil || len(r.k.Writes()) != before {
		t.Errorf("giving back what is not ours: %v, wrote %v", err, r.k.Writes()[before:])
	}
}

// TestBindModuleName: a pool may spell the driver as its module.
func TestBindModuleName(t *testing.T) {
	r := newRig(t, hosttest.Desktop())
	if err := r.bind(deskGPU, "vfio_pci"); err != nil {
		t.Fatal(err)
	}
	if f := r.function(deskGPU); f.Driver != "vfio-pci" || f.DriverOverride != "vfio-pci" {
		t.Errorf("driver %q override %q", f.Driver, f.DriverOverride)
	}
}

func TestBindRollsBack(t *testing.T) {
	cases := map[string]struct {
		driver string
		fault  func(*rig)
		class  error
	}{
		"probe fails":      {"vfio-pci", func(r *rig) { r.k.Refuse("vfio-pci") }, host.ErrRefused},
		"no such driver":   {"mlx5_vfio_pci", func(*rig) {}, host.ErrUnsupported},
		"override refused": {"vfio-pci", func(r *rig) { r.k.Fail("driver_override", unix.EINVAL) }, host.ErrRefused},
		"unbind refused":   {"vfio-pci", func(r *rig) { r.k.Fail("unbind", unix.EBUSY) }, host.ErrInUse},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, hosttest.Desktop())
			c.fault(r)
			err := r.bind(deskGPU, c.driver)
			var ce *host.ChangeError
			if !errors.Is(err, c.class) || !errors.As(err, &ce) || ce.Address != addr(deskGPU) || ce.Reason == "" {
				t.Fatalf("got %v, want class %v", err, c.class)
			}
			f := r.function(deskGPU)
			if f.Driver != "nouveau" {
				t.Errorf("driver after roll back: %q (%v)", f.Driver, r.k.Writes())
			}
			if f.DriverOverride != "" && name != "unbind refused" {
				t.Errorf("override after roll back: %q", f.DriverOverride)
			}
		})
	}
}

func TestBindRefusesWhatTheHostNeeds(t *testing.T) {
	const header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
	const route = "eno1\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
	const subnet = "eno1\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
	nvmeDir := "sys/devices/pci0000:00/0000:00:07.0/pci10000:00/10000:00:00.0/10000:01:00.0/nvme/nvme0/nvme0n1"
	cases := map[string]struct {
		address string
		host    func(*rig)
		class   error
		reason  string
	}{
		"root file system": {deskVMD, func(r *rig) {
			r.k.Tree.Link("sys/dev/block/259:1", "../../"+strings.TrimPrefix(nvmeDir, "sys/")+"/nvme0n1p2")
			r.k.Tree.File("proc/1/mountinfo", "1 0 259:1 / / rw shared:1 - ext4 /dev/nvme0n1p2 rw\n")
		}, host.ErrProtected, "file system at /"},
		"root below a device mapper": {deskVMD, func(r *rig) {
			r.k.Tree.Link("sys/dev/block/253:0", "../../devices/virtual/block/dm-0")
			r.k.Tree.Link("sys/devices/virtual/block/dm-0/slaves/nvme0n1", "../../../../pci0000:00/x")
			r.k.Tree.File("proc/1/mountinfo", "1 0 253:0 / / rw - xfs /dev/mapper/root rw\n")
		}, host.ErrProtected, "file system at /"},
		"btrfs by its source": {deskVMD, func(r *rig) {
			r.k.Tree.File("proc/1/mountinfo", "1 0 0:25 / / rw - btrfs /dev/nvme0n1 rw\n")
		}, host.ErrProtected, "file system at /"},
		"mounted data disk": {deskVMD, func(r *rig) {
			r.k.Tree.File("proc/1/mountinfo", "1 0 0:25 / /srv/my\\040data rw - btrfs /dev/nvme0n1 rw\n")
		}, host.ErrInUse, "/srv/my data"},
		"swap": {deskVMD, func(r *rig) {
			r.k.Tree.File("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n1 partition 1 0 -2\n")
		}, host.ErrProtected, "swap"},
		"default route": {deskNIC, func(r *rig) { r.k.Tree.File("proc/1/net/route", header+route+subnet) }, host.ErrProtected, "default route"},
		"addresses":     {deskNIC, func(r *rig) { r.k.Tree.File("proc/1/net/route", header+subnet) }, host.ErrInUse, "addresses"},
		"IPv6 default": {deskNIC, func(r *rig) {
			r.k.Tree.File("proc/1/net/ipv6_route", strings.Repeat("0", 32)+" 00 "+strings.Repeat("0", 32)+" 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eno1\n")
		}, host.ErrProtected, "default route"},
		"bond above the NIC": {deskNIC, func(r *rig) {
			r.k.Tree.Link("sys/class/net/bond0", "../../devices/virtual/net/bond0")
			r.k.Tree.Link("sys/devices/virtual/net/bond0/lower_eno1", "../../../x")
			r.k.Tree.File("proc/1/net/route", header+strings.ReplaceAll(route, "eno1", "bond0"))
		}, host.ErrProtected, "bond0"},
		"nothing can be known": {deskGPU, func(r *rig) { r.k.Tree.Remove("proc/1") }, host.ErrProtected, "cannot tell"},
		"pod":                  {deskGPU, func(r *rig) { r.busy[addr(deskGPU)] = "pod a/b holds it" }, host.ErrInUse, "pod a/b"},
		"VFs":                  {deskPF, func(*rig) {}, host.ErrInUse, "1 virtual functions"},
		"bridge":               {"0000:00:01.0", func(*rig) {}, host.ErrProtected, "bridge"},
		"absent":               {"0000:77:00.0", func(*rig) {}, host.ErrUnsupported, "cannot be read"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, hosttest.Desktop())
			c.host(r)
			err := r.bind(c.address, "vfio-pci")
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.reason) || !strings.Contains(err.Error(), c.address) {
				t.Fatalf("got %v, want class %v with %q", err, c.class, c.reason)
			}
			if w := r.k.Writes(); len(w) != 0 {
				t.Errorf("wrote %v", w)
			}
		})
	}
}

// TestBindRefusesOpenVFIO: a function that a process holds by VFIO stays.
func TestBindRefusesOpenVFIO(t *testing.T) {
	r := newRig(t, hosttest.Lab())
	const vf = "0000:41:00.4"
	f := r.function(vf)
	r.k.Tree.Link("proc/4711/fd/9", "/dev/vfio/devices/"+f.VFIODev)
	if err := r.bind(vf, ""); !errors.Is(err, host.ErrInUse) || !strings.Contains(err.Error(), "4711") {
		t.Errorf("bind: %v", err)
	}
	if err := r.w.SetVFs(context.Background(), addr("0000:41:00.0"), 0); !errors.Is(err, host.ErrInUse) || !strings.Contains(err.Error(), vf) {
		t.Errorf("set VFs: %v", err)
	}
	if err := r.w.Reset(context.Background(), []topology.Address{addr(vf)}); !errors.Is(err, host.ErrInUse) {
		t.Errorf("reset: %v", err)
	}
	if w := r.k.Writes(); len(w) != 0 {
		t.Errorf("wrote %v", w)
	}
}

func TestBindStuck(t *testing.T) {
	r := newRig(t, hosttest.Desktop())
	release := r.k.Hang(addr(deskGPU))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := r.w.Bind(ctx, addr(deskGPU), "vfio-pci"); !errors.Is(err, host.ErrStuck) {
		t.Fatalf("got %v", err)
	}
	// Another device is not held up.
	if err := r.bind("0000:09:00.4", "vfio-pci"); err != nil {
		t.Error(err)
	}
	release()
	if err := r.bind(deskGPU, "vfio-pci"); err != nil || r.function(deskGPU).Driver != "vfio-pci" {
		t.Errorf("after the kernel let go: %v, driver %q", err, r.function(deskGPU).Driver)
	}
}

func TestSetVFs(t *testing.T) {
	ctx := context.Background()
	r := newRig(t, hosttest.Lab())
	pf := addr("0000:41:00.0")
	if err := r.w.SetVFs(ctx, pf, 3); err != nil {
		t.Fatal(err)
	}
	f := r.function(pf.String())
	if f.NumVFs != 3 || len(f.VFs) != 3 {
		t.Fatalf("%d VFs, links %v", f.NumVFs, f.VFs)
	}
	for _, v := range f.VFs {
		if d := r.function(v.String()).Driver; d != "" {
			t.Errorf("new VF %s was taken by %q", v, d)
		}
	}
	if err := r.bind(f.VFs[1].String(), "vfio-pci"); err != nil {
		t.Errorf("bind a new VF: %v", err)
	}
	for n, want := range map[int]error{8: host.ErrUnsupported, -1: host.ErrUnsupported} {
		if err := r.w.SetVFs(ctx, pf, n); !errors.Is(err, want) {
			t.Errorf("%d VFs: %v", n, err)
		}
	}
	if err := r.w.SetVFs(ctx, addr("0000:62:00.0"), 1); !errors.Is(err, host.ErrUnsupported) {
		t.Errorf("a function without SR-IOV: %v", err)
	}
	// A VF that a pod holds keeps all of them.
	r.busy[f.VFs[0]] = "pod x/y holds it"
	if err := r.w.SetVFs(ctx, pf, 5); !errors.Is(err, host.ErrInUse) || !strings.Contains(err.Error(), "pod x/y") || !strings.Contains(err.Error(), pf.String()) {
		t.Errorf("VF in use: %v", err)
	}
	if got := r.function(pf.String()).NumVFs; got != 3 {
		t.Errorf("%d VFs after the refusal", got)
	}
	delete(r.busy, f.VFs[0])
	r.k.Fail("sriov_numvfs", unix.ENOSPC)
	if err := r.w.SetVFs(ctx, pf, 5); !errors.Is(err, host.ErrRefused) {
		t.Errorf("kernel says no: %v", err)
	}
	r.k.Fail("sriov_numvfs", nil)
	if err := r.w.SetVFs(ctx, pf, 0); err != nil || r.function(pf.String()).NumVFs != 0 {
		t.Errorf("no VFs any more: %v", err)
	}
}

func TestReset(t *testing.T) {
	ctx := context.Background()
	r := newRig(t, hosttest.Lab())
	unit := []topology.Address{addr("0000:62:00.0"), addr("0000:62:00.1")}
	if err := r.w.Reset(ctx, unit); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, w := range r.k.Writes() {
		if strings.HasSuffix(w, "/reset=1") {
			n++
		}
	}
	if n != 2 {
		t.Errorf("resets written: %v", r.k.Writes())
	}
	// Without a reset of their own: by the bridge, if the kernel can.
	dir := r.m.Function("0000:62:00.0").Dir()
	r.k.Tree.Remove(dir + "/reset_method")
	if err := r.w.Reset(ctx, unit); !errors.Is(err, host.ErrUnsupported) || !strings.Contains(err.Error(), "reset_subordinate") {
		t.Errorf("kernel without bus reset: %v", err)
	}
	bridge := filepath.Dir(dir)
	r.k.Tree.File(bridge+"/reset_subordinate", "")
	if err := r.w.Reset(ctx, unit); err != nil {
		t.Errorf("bus reset: %v", err)
	}
	if err := r.w.Reset(ctx, unit[:1]); !errors.Is(err, host.ErrUnsupported) || !strings.Contains(err.Error(), "0000:62:00.1") {
		t.Errorf("bus reset with a foreign function on the bus: %v", err)
	}
	r.k.Tree.File(dir+"/config", strings.Repeat("\xff", 64))
	if err := r.w.Reset(ctx, unit); !errors.Is(err, host.ErrRefused) || !strings.Contains(err.Error(), "all ones") {
		t.Errorf("dead device: %v", err)
	}
}

func TestStateForgetsOtherModels(t *testing.T) {
	r := newRig(t, hosttest.Desktop())
	if err := r.bind(deskGPU, "vfio-pci"); err != nil {
		t.Fatal(err)
	}
	st, err := host.OpenState(r.state)
	if err != nil {
		t.Fatal(err)
	}
	h := read(t, r.k.Tree)
	if got := st.Former(h); got[addr(deskGPU)] != "nouveau" {
		t.Errorf("former drivers: %v", got)
	}
	h.Function(addr(deskGPU)).Device++ // the card was swapped
	if got := st.Former(h); len(got) != 0 {
		t.Errorf("former drivers of another card: %v", got)
	}
}

func TestVariants(t *testing.T) {
	v := host.ParseVariants([]byte(`# Aliases extracted from modules themselves.
alias pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_core
alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci
alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci
alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* nvgrace_gpu_vfio_pci
`))
	for modalias, want := range map[string]string{
		"pci:v000015B3d0000101Esv000015B3sd00000041bc02sc00i00": "mlx5_vfio_pci",
		"pci:v00008086d000010CAsv00008086sd0000A03Cbc02sc00i00": "vfio-pci",
		"usb:x": "vfio-pci",
		"":      "vfio-pci",
	} {
		if got := v.Best(modalias); got != want {
			t.Errorf("%s: %s, want %s", modalias, got, want)
		}
	}
	var none *host.Variants
	if got := none.Best("pci:v000015B3d0000101E"); got != "vfio-pci" {
		t.Errorf("without aliases: %s", got)
	}
}
