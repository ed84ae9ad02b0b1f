package domain

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/hosttest"
	"github.com/kubevfio/kubevfio/launcher/domain/domaintest"
	"github.com/kubevfio/kubevfio/topology"
)

// machine is a host that is read once for all tests.
type machine func() *topology.Host

func once(m func() *hosttest.Machine) machine {
	return sync.OnceValue(func() *topology.Host {
		h, err := host.Read(context.Background(), m().Tree())
		if err != nil {
			panic(err)
		}
		return h
	})
}

// The test machines; read gives copies.
var (
	lab     = once(hosttest.Lab)
	hgx     = once(hosttest.HGX)
	desktop = once(hosttest.Desktop)
	pairs   = once(twoAndTwo)
	big     = once(func() *hosttest.Machine { return hosttest.Big(320) })
)

func read(t testing.TB, m machine) *topology.Host {
	t.Helper()
	h := *m()
	return &h
}

// give turns "name=leader" pairs into devices, units and all.
func give(t testing.TB, h *topology.Host, pairs ...string) []Device {
	t.Helper()
	units := map[topology.Address][]topology.Address{}
	for _, u := range topology.Units(h) {
		units[u.ID] = u.Members
	}
	var out []Device
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		if uuid, ok := strings.CutPrefix(value, "mdev:"); ok {
			out = append(out, Device{Name: name, Mdev: uuid})
			continue
		}
		if usb, ok := strings.CutPrefix(value, "usb:"); ok {
			out = append(out, Device{Name: name, USB: usb})
			continue
		}
		m := units[addr(t, value)]
		if m == nil {
			t.Fatalf("%s is no unit of the host", value)
		}
		out = append(out, Device{Name: name, Members: m})
	}
	return out
}

func testPaths() Paths {
	return Paths{
		Emulator: "/usr/bin/qemu-system-x86_64", ConsoleSocket: "/run/l/console.sock", VNCSocket: "/run/l/vnc.sock",
		AgentSocket: "/run/l/agent.sock", PasstLog: "/run/l/passt.log", NVRAM: "/run/l/nvram.fd", TPMState: "/run/l/tpm",
	}
}

// scene is one golden domain.
type scene struct {
	machine machine
	host    *topology.Host
	spec    string
	devices []string
	cpus    string
	mems    []int
	libvirt uint32
	// newer says that the domain has elements that libvirt 11.3 has and 9.0 not.
	newer bool
	more  func(t *testing.T, r *Report, xml string)
}

const kernelBoot = "  firmware: {kernelBoot: {kernelArgs: console=ttyS0, container: {kernelPath: /guest/boot/vmlinuz, initrdPath: /guest/boot/initrd}}}\n"

// hgxSpec is eight GPUs, eight NICs and the NVSwitches.
func hgxSpec(extra string) (spec string, devices []string) {
	var b strings.Builder
	b.WriteString("domain:\n  cpu: {cores: 64, dedicatedCpuPlacement: true}\n  memory: {guest: 512Gi, hugepages: {pageSize: 1Gi}}\n")
	b.WriteString("  firmware: {bootloader: {efi: {secureBoot: false}}}\n  devices:\n" + extra + "    gpus:\n")
	for i := range 8 {
		fmt.Fprintf(&b, "    - {name: gpu%d, deviceName: nvidia.com/H200}\n", i)
		devices = append(devices, fmt.Sprintf("gpu%d=0000:%02x:00.0", i, 0x13+0x18*i))
	}
	b.WriteString("    hostDevices:\n    - {name: fabric, deviceName: nvidia.com/nvswitch}\n")
	devices = append(devices, "fabric=0000:e3:00.0")
	b.WriteString("    interfaces:\n    - {name: default, passt: {}}\n")
	for i := range 8 {
		fmt.Fprintf(&b, "    - {name: nic%d, sriov: {deviceName: mellanox.com/cx7}}\n", i)
		devices = append(devices, fmt.Sprintf("nic%d=0000:%02x:00.4", i, 0x14+0x18*i))
	}
	return b.String(), devices
}

func scenes(t testing.TB) map[string]scene {
	t.Helper()
	whole, devices := hgxSpec("")
	mirror, _ := hgxSpec("    pciTopology: Mirror\n    ncclTopology: true\n")
	many, manyDevices := fortyVFs(t)
	roots, rootsSpec, rootsDevices := sixteenRoots()
	small := "domain:\n  cpu: {cores: 1}\n  memory: {guest: 256Mi}\n" + kernelBoot
	return map[string]scene{
		"none": {machine: lab, spec: small},
		"single-vf": {machine: lab, devices: []string{"fast=0000:81:00.4"}, spec: small + `
  devices:
    interfaces:
    - {name: fast, macAddress: "02:00:00:00:00:01", sriov: {deviceName: kubevfio.io/igb-vf, vlan: 5}}
`},
		"dual-function-gpu": {machine: lab, devices: []string{"gpu=0000:62:00.0"}, spec: small + `
  devices:
    gpus: [{name: gpu, deviceName: kubevfio.io/gpu, rom: {bar: false}}]
`},
		"four-function-gpu": {machine: desktop, devices: []string{"gpu=0000:01:00.0"}, spec: small + `
  devices:
    gpus: [{name: gpu, deviceName: kubevfio.io/gpu, noMmap: true, rom: {file: /roms/gpu.rom}, bootOrder: 1}]
`},
		"gpu-with-viommu": {machine: desktop, devices: []string{"gpu=0000:01:00.0"}, spec: small + `
  devices:
    iommu: {}
    gpus: [{name: gpu, deviceName: kubevfio.io/gpu}]
`},
		"two-and-two": {machine: pairs, devices: []string{"gpu0=0000:41:00.0", "gpu1=0000:42:00.0", "nic0=0000:43:00.0", "nic1=0000:44:00.0"},
			cpus: "8-11,24-27", spec: `
domain:
  cpu: {cores: 8, dedicatedCpuPlacement: true}
  memory: {guest: 16Gi, hugepages: {pageSize: 2Mi}}
` + kernelBoot + `
  devices:
    gpus: [{name: gpu0, deviceName: g}, {name: gpu1, deviceName: g}]
    hostDevices: [{name: nic0, deviceName: nic}, {name: nic1, deviceName: nic}]
`},
		"hgx":        {machine: hgx, spec: whole, devices: devices, cpus: "0-7,24-31,48-55,72-79,96-103,120-127,144-151,168-175"},
		"hgx-mirror": {machine: hgx, spec: mirror, devices: devices, cpus: "0-7,24-31,48-55,72-79,96-103,120-127,144-151,168-175"},
		"far": {machine: hgx, devices: []string{"gpu=0000:bb:00.0"}, cpus: "0-3", spec: `
domain:
  cpu: {cores: 4, dedicatedCpuPlacement: true}
  memory: {guest: 8Gi}
  devices:
    gpus: [{name: gpu, deviceName: nvidia.com/H200}]
    autoattachPodInterface: false
`},
		"mdev": {machine: desktop, devices: []string{"vgpu=mdev:C1B6A7FE-0b0d-4b55-8d25-5a1d6f0f3b42"}, spec: small + `
  devices:
    gpus: [{name: vgpu, deviceName: nvidia.com/GRID, virtualGPUOptions: {display: {enabled: true, ramFB: {}}}}]
`},
		"forty-vfs":     {machine: big, spec: many, devices: manyDevices},
		"sixteen-roots": {host: roots, spec: rootsSpec, devices: rootsDevices},
		"newer-schema": {machine: lab, newer: true, spec: small + `
  devices:
    tpm: {persistent: true}
    panicDevices: [{model: pvpanic}, {model: isa}]
    watchdog: {name: dog, itco: {}}
volumes:
- {name: persistent-state, persistentVolumeClaim: {claimName: state}}
`},
		"everything": {machine: lab, devices: []string{"drive=0000:a1:00.0", "edu=0000:a2:00.0", "stick=usb:1:4"}, spec: everything},
	}
}

// twoAndTwo is a machine with two GPUs and two NICs on one root complex.
func twoAndTwo() *hosttest.Machine {
	m := hosttest.New(hosttest.Spec{Sockets: 2, Cores: 8, Threads: 2, MemoryMiB: 64 << 10, Hugepages: map[uint64]uint64{2048: 16384}, PhysAddrBits: 46})
	m.Root(0, 0, 0)
	r := m.Root(0, 0x40, 1)
	for range 2 {
		r.Port().Add(hosttest.Fn{Vendor: 0x10de, Device: 0x20b5, Class: 0x030200, Driver: "vfio-pci", Resets: "flr",
			BARs: []topology.BAR{{Index: 0, Bytes: 16 << 20}, {Index: 1, Bytes: 128 << 30, Is64: true, Prefetchable: true}, {Index: 3, Bytes: 32 << 20, Is64: true, Prefetchable: true}}})
	}
	for range 2 {
		r.Port().Add(hosttest.Fn{Vendor: 0x15b3, Device: 0x1021, Class: 0x020000, Driver: "vfio-pci", Resets: "flr",
			BARs: []topology.BAR{{Index: 0, Bytes: 32 << 20, Is64: true, Prefetchable: true}}})
	}
	return m
}

const everything = `
domain:
  machine: {type: pc-q35-10.0}
  ioThreadsPolicy: shared
  cpu: {sockets: 1, cores: 2, threads: 1, features: [{name: pdpe1gb, policy: optional}]}
  memory: {guest: 2Gi, hugepages: {pageSize: 2Mi}}
  clock: {timezone: Europe/Berlin}
  features:
    kvm: {hidden: true}
    hyperv: {relaxed: {}, vapic: {enabled: true}, spinlocks: {spinlocks: 8191}, vpindex: {}, synic: {}, vendorid: {vendorid: kubevfio}}
  firmware:
    serial: abc-1
    bootloader: {efi: {secureBoot: true, persistent: true}}
  devices:
    autoattachGraphicsDevice: true
    guestAgent: {}
    rng: {}
    watchdog: {name: dog, i6300esb: {action: poweroff}}
    tpm: {}
    panicDevices: [{}]
    hostDevices:
    - {name: drive, deviceName: kubevfio.io/nvme, use: Disk}
    - {name: edu, deviceName: kubevfio.io/edu, qemuOptions: {x-no-kvm-intx: "true"}}
    - {name: stick, deviceName: kubevfio.io/usb}
    disks:
    - {name: root, bootOrder: 1, disk: {}, cache: none, io: native, serial: root1}
    - {name: data, disk: {bus: scsi}}
    - {name: scratch, disk: {bus: virtio}, dedicatedIOThread: true}
    - {name: init, cdrom: {}}
    - {name: raw, lun: {}}
    filesystems:
    - {name: share, virtiofs: {}}
    interfaces:
    - {name: default, passt: {}, ports: [{port: 22}, {port: 80, protocol: TCP}, {port: 53, protocol: UDP}], acpiIndex: 101, bootOrder: 2}
networks:
- {name: default, pod: {}}
volumes:
- {name: root, containerDisk: {image: registry/fedora}}
- {name: data, persistentVolumeClaim: {claimName: data}}
- {name: scratch, emptyDisk: {capacity: 2Gi}}
- {name: init, cloudInitNoCloud: {userData: "#cloud-config\n"}}
- {name: raw, persistentVolumeClaim: {claimName: raw}}
- {name: share, configMap: {name: conf}}
- {name: persistent-state, persistentVolumeClaim: {claimName: state}}
`

func (s *scene) input(t testing.TB, name string) Input {
	t.Helper()
	h := s.host
	if h == nil {
		h = read(t, s.machine)
	}
	in := Input{Name: name, UUID: testUUID, Host: h, Spec: decode(t, s.spec), MemNodes: s.mems, Paths: testPaths(), Libvirt: Capabilities{LibvirtVersion: s.libvirt}}
	in.Devices = give(t, h, s.devices...)
	in.CPUs = parseSet(s.cpus)
	v, err := PlaceVolumes(in.Spec, v1alpha1.LauncherRunDir, blockRaw{})
	if err != nil {
		t.Fatal(err)
	}
	in.Volumes = v
	return in
}

// blockRaw is a container where the volume "raw" is a block device.
type blockRaw struct{}

func (blockRaw) IsBlock(p string) bool               { return p == BlockDir+"/raw" }
func (blockRaw) OnlyFile(dir string) (string, error) { return dir + "/image.qcow2", nil }
func (blockRaw) Format(p string) (string, error) {
	if strings.HasSuffix(p, ".qcow2") {
		return "qcow2", nil
	}
	return "raw", nil
}

func TestGolden(t *testing.T) {
	for name, s := range scenes(t) {
		t.Run(name, func(t *testing.T) {
			in := s.input(t, name)
			dom, report, err := Build(in)
			if err != nil {
				t.Fatal(err)
			}
			xml, err := dom.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if !s.newer || domaintest.SchemaMajor() >= 11 {
				schemaCheck(t, xml)
			}
			checkPlacement(t, xml, in.Host)
			golden(t, name+".xml", xml+"\n")
			again, _, err := Build(s.input(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if x, _ := again.Marshal(); x != xml {
				t.Error("two builds of the same input differ")
			}
			if s.more != nil {
				s.more(t, report, xml)
			}
			if len(in.Devices) > 0 && in.Devices[0].Mdev == "" && len(report.Devices) != countPCI(in) {
				t.Errorf("%d devices in the report, %d functions given", len(report.Devices), countPCI(in))
			}
		})
	}
}

// countPCI is how many functions become PCI devices of the guest.
func countPCI(in Input) int {
	n := 0
	disk := map[string]bool{}
	for _, h := range in.Spec.Domain.Devices.HostDevices {
		disk[h.Name] = h.Use == v1alpha1.UseDisk
	}
	for _, d := range in.Devices {
		if !disk[d.Name] {
			n += len(d.Members)
		}
	}
	return n
}

// fortyVFs asks for more units on one root complex than a bus has slots, and for
// one in each of seven further PCI domains.
func fortyVFs(t testing.TB) (spec string, devices []string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("domain:\n  cpu: {cores: 4}\n  memory: {guest: 2Gi}\n  devices:\n    autoattachPodInterface: false\n    hostDevices:\n")
	perDomain := map[uint32]int{}
	h := read(t, big)
	for i := range h.Functions {
		f := &h.Functions[i]
		if f.PF == nil || (f.Address.Domain > 0 && perDomain[f.Address.Domain] == 1) {
			continue
		}
		perDomain[f.Address.Domain]++
		fmt.Fprintf(&b, "    - {name: vf%d, deviceName: vf}\n", i)
		devices = append(devices, fmt.Sprintf("vf%d=%s", i, f.Address))
	}
	if perDomain[0] < 33 || len(perDomain) != 8 {
		t.Fatalf("the machine has VFs per domain: %v", perDomain)
	}
	return b.String(), devices
}

// sixteenRoots is a unit on each of sixteen root complexes, one of a NUMA node
// that is not known: more expanders than their slots on pcie.0.
func sixteenRoots() (h *topology.Host, spec string, devices []string) {
	shape := []byte{0, 1, 2, 0x83, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	h, given, _ := shapeOf(shape, 2)
	spec = "domain:\n  cpu: {cores: 2}\n  memory: {guest: 1Gi}\n  devices:\n    hostDevices:\n"
	for _, d := range given {
		spec += "    - {name: " + d.Name + ", deviceName: r}\n"
		devices = append(devices, d.Name+"="+d.Members[0].String())
	}
	return h, spec, devices
}
