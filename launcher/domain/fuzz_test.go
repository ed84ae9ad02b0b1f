package domain

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/topology"
)

// FuzzBuild gives any decodable spec any units of the test machines: the result
// is an error of a known class or a domain that the placement checker accepts.
func FuzzBuild(f *testing.F) {
	for _, s := range scenes(f) {
		f.Add(s.spec, uint8(0), uint64(1), uint8(8))
		f.Add(s.spec, uint8(1), uint64(77), uint8(0))
	}
	machines := []machine{lab, hgx, desktop, pairs}
	f.Fuzz(func(t *testing.T, text string, which uint8, seed uint64, cpus uint8) {
		spec, err := vmspec.Decode([]byte(text))
		if err != nil {
			if !errors.Is(err, ErrSpec) {
				t.Fatalf("decode: %v is of no class", err)
			}
			return
		}
		h := read(t, machines[int(which)%len(machines)])
		in := Input{Name: "fuzz", UUID: testUUID, Host: h, Spec: spec, Paths: testPaths()}
		units := topology.Units(h)
		next := func(n int) int {
			seed = seed*6364136223846793005 + 1442695040888963407
			return int(seed>>33) % n
		}
		for _, r := range vmspec.Requests(spec) {
			in.Devices = append(in.Devices, Device{Name: r.Name, Members: units[next(len(units))].Members})
		}
		for range int(cpus) % 64 {
			in.CPUs = append(in.CPUs, h.CPUs[next(len(h.CPUs))].ID)
		}
		in.CPUs = parseSet(listString(in.CPUs))
		if in.Volumes, err = PlaceVolumes(spec, v1alpha1.LauncherRunDir, nil); err != nil {
			t.Fatal(err)
		}
		dom, report, err := Build(in)
		if err != nil {
			if len(classOf(err)) != 1 {
				t.Fatalf("%v is of classes %v", err, classOf(err))
			}
			return
		}
		xml, err := dom.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		checkPlacement(t, xml, h)
		if report == nil || report.VCPUs != int(dom.VCPU.Value) {
			t.Fatal("the report does not fit the domain")
		}
	})
}

// FuzzPlacement builds guests of any number of units on any machine shape.
func FuzzPlacement(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6}, uint8(4), false)
	f.Add([]byte{0xff, 0x10, 0x20, 0x41, 0x41, 0x41, 0x41}, uint8(2), true)
	f.Fuzz(func(t *testing.T, shape []byte, nodes uint8, mirror bool) {
		h, devices, spec := shapeOf(shape, int(nodes)%6+1)
		if mirror {
			spec.Domain.Devices.PCITopology = v1alpha1.PCITopologyMirror
		}
		dom, _, err := Build(Input{Name: "fuzz", UUID: testUUID, Host: h, Spec: spec, Devices: devices, Paths: testPaths()})
		if err != nil {
			if !errors.Is(err, ErrHost) {
				t.Fatal(err)
			}
			return
		}
		xml, err := dom.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		checkPlacement(t, xml, h)
	})
}

// shapeOf makes a machine with one unit per byte: its bits choose root complex,
// switch, number of functions and NUMA node.
func shapeOf(shape []byte, nodes int) (*topology.Host, []Device, *v1alpha1.VirtualMachineInstanceSpec) {
	h := &topology.Host{PhysAddrBits: 52}
	for n := range nodes {
		node := topology.NUMANode{ID: n}
		for c := range 4 {
			id := n*4 + c
			node.CPUs = append(node.CPUs, id)
			h.CPUs = append(h.CPUs, topology.CPU{ID: id, Socket: n, Core: c, NUMA: n, Siblings: []int{id}})
		}
		for m := range nodes {
			d := 10
			if m != n {
				d = 20 + m
			}
			node.Distances = append(node.Distances, d)
		}
		h.NUMANodes = append(h.NUMANodes, node)
	}
	spec := &v1alpha1.VirtualMachineInstanceSpec{}
	spec.Domain.CPU = &v1alpha1.CPU{Cores: uint32(nodes)}
	spec.Domain.Memory = &v1alpha1.Memory{Guest: quantity("8Gi")}
	var devices []Device
	for i, b := range shape[:min(len(shape), 240)] {
		root := int(b & 0x0f)
		d := Device{Name: fmt.Sprintf("d%d", i)}
		numa := root % nodes
		if b&0x80 != 0 && root == 3 {
			numa = topology.NUMAUnknown
		}
		for fn := range int(b>>6&1) + 1 {
			fun := topology.Function{
				Address: topology.Address{Domain: uint32(root), Bus: uint8(i + 10), Function: uint8(fn)}, Class: 0x030000,
				Root: fmt.Sprintf("pci%04x:00", root), NUMA: numa, IOMMUGroup: i, VFIndex: -1,
				BARs: []topology.BAR{{Bytes: 1 << (20 + b>>5), Is64: true, Prefetchable: true}},
			}
			if b&0x10 != 0 {
				up := topology.Address{Domain: uint32(root), Bus: 2, Device: b >> 6}
				fun.Path = []topology.Address{{Domain: uint32(root), Device: 1}, up, {Domain: uint32(root), Bus: 3, Device: uint8(i) & 31}}
			}
			h.Functions = append(h.Functions, fun)
			d.Members = append(d.Members, fun.Address)
		}
		devices = append(devices, d)
		spec.Domain.Devices.HostDevices = append(spec.Domain.Devices.HostDevices, v1alpha1.HostDevice{Name: d.Name, DeviceName: "r"})
	}
	sortFunctions(h)
	return h, devices, spec
}
