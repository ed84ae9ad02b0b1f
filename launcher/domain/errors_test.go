package domain

import (
	"errors"
	"strings"
	"testing"

	"github.com/kubevfio/kubevfio/topology"
)

func TestErrors(t *testing.T) {
	const vm = "domain:\n  cpu: {cores: 2}\n  memory: {guest: 512Mi}\n  devices:\n"
	gpu := vm + "    gpus: [{name: g, deviceName: r}]\n"
	one := []string{"g=0000:62:00.0"}
	tests := map[string]struct {
		spec    string
		devices []string
		change  func(*Input)
		class   error
		want    string
	}{
		"no device given": {gpu, nil, nil, ErrDevice, `spec.domain.devices.gpus[0]: "g" was given no device of the resource "r"`},
		"too many given":  {vm, one, nil, ErrDevice, "a device was given for g, which no entry"},
		"given twice": {gpu, one, func(in *Input) { in.Devices = append(in.Devices, in.Devices[0]) },
			ErrDevice, "two devices were given"},
		"not on the host": {gpu, one, func(in *Input) { in.Devices[0].Members[0].Bus = 0x99 },
			ErrDevice, "0000:99:00.0: is not on this host"},
		"a bridge": {gpu, one, func(in *Input) { in.Devices[0].Members = []topology.Address{{Bus: 0x60}} },
			ErrDevice, "0000:60:00.0: is a bridge"},
		"two forms": {gpu, one, func(in *Input) { in.Devices[0].USB = "1:2" }, ErrDevice, "exactly one of"},
		"bad USB": {gpu, nil, func(in *Input) { in.Devices = []Device{{Name: "g", USB: "1"}} },
			ErrDevice, "is not bus:device"},
		"unknown mdev": {gpu, nil, func(in *Input) { in.Devices = []Device{{Name: "g", Mdev: testUUID}} },
			ErrDevice, "no PCI function of this host has the mediated device"},
		"one unit twice": {vm + "    gpus: [{name: g, deviceName: r}, {name: h, deviceName: r}]\n", []string{"g=0000:62:00.0", "h=0000:62:00.0"}, nil,
			ErrDevice, "0000:62:00.0: was also given to g"},
		"NVMe use of something else": {vm + "    hostDevices: [{name: g, deviceName: r, use: Disk}]\n", one, nil, ErrDevice, "lone NVMe controller"},
		"32-bit domain": {gpu, []string{"g=10000:01:00.0"}, func(in *Input) { in.Host = read(t, desktop) },
			ErrDevice, "is in PCI domain 10000, QEMU passes through domains up to ffff"},
		"too few address bits": {gpu, []string{"g=0000:13:00.0"}, func(in *Input) { in.Host = read(t, hgx); in.Host.PhysAddrBits = 39 },
			ErrHost, "39 address bits reach 512 GiB"},
		"iommufd with an old libvirt": {strings.Replace(gpu, "deviceName: r", "deviceName: r, iommufd: true", 1), one, nil, ErrHost, "needs libvirt 12.2, the image has 11.3.0"},
		"iommufd without the kernel's": {strings.Replace(gpu, "deviceName: r", "deviceName: r, iommufd: true", 1), one, func(in *Input) { in.Host.IOMMUFD = false },
			ErrHost, "the host's kernel has no iommufd"},
		"vGPU screen with an old libvirt": {strings.Replace(gpu, "deviceName: r", "deviceName: r, virtualGPUOptions: {display: {enabled: true}}", 1), one, nil,
			ErrHost, "needs libvirt 11.10"},
		"too few CPUs": {strings.Replace(vm, "cores: 2", "cores: 2, dedicatedCpuPlacement: true, isolateEmulatorThread: true", 1), nil, nil,
			ErrHost, "2 vCPUs and the emulator thread need 3 CPUs of their own, the pod's cpuset has 2"},
		"threads without pairs": {strings.Replace(vm, "cores: 2", "cores: 1, threads: 2, dedicatedCpuPlacement: true", 1), nil, nil,
			ErrHost, "spec.domain.cpu.threads: vCPUs 0 to 1 would be threads of one core"},
		"unknown CPUs": {vm, nil, func(in *Input) { in.CPUs = []int{0, 77} }, ErrHost, "cpuset 0,77"},
		"too few huge pages": {strings.Replace(vm, "512Mi", "4Gi, hugepages: {pageSize: 2Mi}", 1), nil, nil,
			ErrHost, "2048 pages of 2 MiB are needed on NUMA node 0-1, which has 1024"},
		"huge pages of another size": {strings.Replace(vm, "512Mi", "4Gi, hugepages: {pageSize: 1Gi}", 1), nil, nil,
			ErrHost, "4 pages of 1024 MiB are needed on NUMA node 0-1, which has 0"},
		"part of a huge page": {strings.Replace(vm, "512Mi", "1536Mi, hugepages: {pageSize: 1Gi}", 1), nil, nil,
			ErrSpec, "is not a whole number"},
		"no name": {vm, nil, func(in *Input) { in.Name = "" }, ErrSpec, "metadata.name"},
		"no UUID": {vm, nil, func(in *Input) { in.UUID = "" }, ErrSpec, "is not a UUID"},
		"no place for a disk": {vm + "    disks: [{name: d}]\nvolumes: [{name: d, emptyDisk: {capacity: 1Gi}}]\n", nil, func(in *Input) { in.Volumes = nil },
			ErrHost, `disks[0]: the volume "d" has no place`},
		"lun without a block device": {vm + "    disks: [{name: d, lun: {}}]\nvolumes: [{name: d, persistentVolumeClaim: {claimName: d}}]\n", nil, nil,
			ErrHost, "disks[0].lun: the volume is not a block device"},
		"no socket of virtiofsd": {vm + "    filesystems: [{name: d, virtiofs: {}}]\nvolumes: [{name: d, emptyDir: {}}]\n", nil, func(in *Input) { in.Volumes = nil },
			ErrHost, "no socket of virtiofsd"},
		"no socket of the screen": {vm + "    autoattachGraphicsDevice: true\n", nil, func(in *Input) { in.Paths.VNCSocket = "" }, ErrHost, "no socket for the screen"},
		"no socket of the agent":  {vm + "    guestAgent: {}\n", nil, func(in *Input) { in.Paths.AgentSocket = "" }, ErrHost, "no socket for the channel"},
		"many vCPUs":              {strings.Replace(vm, "cores: 2", "cores: 256", 1), nil, nil, ErrSpec, "is needed for 256 vCPUs"},
		"seven SATA disks": {vm + "    disks:" + repeat("\n    - {name: d%, cdrom: {}}", 7) + "\nvolumes:" + repeat("\n- {name: d%, emptyDisk: {capacity: 1Gi}}", 7), nil, nil,
			ErrSpec, "disks[6]: is SATA disk number 7"},
		"no spec": {vm, nil, func(in *Input) { in.Spec = nil }, ErrSpec, "spec: is empty"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			h := read(t, lab)
			if len(tc.devices) > 0 && !strings.Contains(tc.devices[0], "62:00") {
				h = nil
			}
			s := scene{machine: lab, host: h, spec: tc.spec}
			in := s.input(t, "vm")
			if tc.change != nil {
				// Some cases bring a host of their own before devices are found.
				if h == nil {
					tc.change(&in)
					in.Devices = give(t, in.Host, tc.devices...)
				} else {
					in.Devices = give(t, in.Host, tc.devices...)
					tc.change(&in)
				}
			} else {
				in.Devices = give(t, in.Host, tc.devices...)
			}
			dom, report, err := Build(in)
			if err == nil || dom != nil || report != nil {
				t.Fatalf("no error, or a domain beside it: %v", err)
			}
			if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q of class %v: want %q of class %v", err, classOf(err), tc.want, tc.class)
			}
		})
	}
}

func classOf(err error) (out []error) {
	for _, c := range []error{ErrSpec, ErrDevice, ErrHost} {
		if errors.Is(err, c) {
			out = append(out, c)
		}
	}
	return out
}

// repeat writes the text n times, with the number in place of %.
func repeat(s string, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(s, "%", itoa(i)))
	}
	return b.String()
}

func TestWindow(t *testing.T) {
	group := func(bars ...uint64) *slotGroup {
		f := &topology.Function{}
		for _, b := range bars {
			f.BARs = append(f.BARs, topology.BAR{Bytes: b, Is64: true, Prefetchable: true})
		}
		return &slotGroup{funcs: []*topology.Function{f}}
	}
	h200 := group(16<<20, 256*gib, 32<<20)
	tests := map[string]struct {
		groups []*slotGroup
		memory uint64
		bits   int
		size   uint64
		end    uint64
		ovmf   uint64
		err    bool
	}{
		"nothing":                {nil, 4 * gib, 39, 32 * gib, 64 * gib, 0, false},
		"small":                  {[]*slotGroup{group(16 << 10)}, 4 * gib, 39, 32 * gib, 64 * gib, 0, false},
		"one H200":               {[]*slotGroup{h200}, 64 * gib, 46, 1024 * gib, 3072 * gib, 0, false},
		"one H200, 40 bits":      {[]*slotGroup{h200}, 64 * gib, 40, 1024 * gib, 3072 * gib, 1 << 20, true},
		"eight H200, 46 bits":    {[]*slotGroup{h200, h200, h200, h200, h200, h200, h200, h200}, 512 * gib, 46, 8192 * gib, 16384 * gib, 0, false},
		"eight H200, 44 bits":    {[]*slotGroup{h200, h200, h200, h200, h200, h200, h200, h200}, 512 * gib, 44, 8192 * gib, 16384 * gib, 8 << 20, false},
		"eight H200, 43 bits":    {[]*slotGroup{h200, h200, h200, h200, h200, h200, h200, h200}, 512 * gib, 43, 8192 * gib, 16384 * gib, 8 << 20, true},
		"memory beyond bits":     {[]*slotGroup{group(16 << 10)}, 512 * gib, 39, 32 * gib, 576 * gib, 0, true},
		"width is not known":     {[]*slotGroup{h200}, 64 * gib, 0, 1024 * gib, 3072 * gib, 1 << 20, false},
		"moved above AMD's hole": {[]*slotGroup{group(256 * gib)}, 64 * gib, 46, 512 * gib, 2048 * gib, 0, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := mmioWindow(tc.groups, tc.memory)
			err := w.check(tc.bits, tc.memory)
			if w.size != tc.size || w.end != tc.end || w.ovmfMiB(tc.bits) != tc.ovmf || (err != nil) != tc.err {
				t.Errorf("size %d GiB, end %d GiB, OVMF %d MiB, error %v; want %d, %d, %d, %v", w.size/gib, w.end/gib, w.ovmfMiB(tc.bits), err, tc.size/gib, tc.end/gib, tc.ovmf, tc.err)
			}
		})
	}
}

func TestMemoryLock(t *testing.T) {
	tests := map[string]struct {
		vfio, nvme int
		viommu     bool
		want       uint64
	}{
		"nothing":              {0, 0, false, 0},
		"one":                  {1, 0, false, 2 * gib},
		"eight":                {8, 0, false, 2 * gib},
		"eight behind vIOMMU":  {8, 0, true, 9 * gib},
		"two NVMe disks":       {0, 2, false, 3 * gib},
		"two NVMe and devices": {3, 2, true, 6 * gib},
	}
	for name, tc := range tests {
		if got := MemoryLock(gib, tc.vfio, tc.nvme, tc.viommu); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func TestBusNumbers(t *testing.T) {
	for _, n := range []int{1, 6, 7, 12, 13, 24, 60, 95} {
		for _, ports := range []int{1, 3} {
			var list []*node
			for range n {
				e := &node{model: modelExpander}
				for range ports {
					e.children = append(e.children, &node{model: modelRootPort})
				}
				list = append(list, e)
			}
			err := number(list)
			need := n * (1 + ports)
			if (err != nil) != (need > busNumbers-lowestExpander) {
				t.Errorf("%d expanders of %d ports: %v", n, ports, err)
			}
			if err != nil {
				continue
			}
			end := lowestExpander
			for _, e := range list {
				if e.busNr < end || e.busNr+e.buses() > busNumbers {
					t.Fatalf("%d expanders of %d ports: %d overlaps or is too high", n, ports, e.busNr)
				}
				end = e.busNr + e.buses()
			}
		}
	}
}
