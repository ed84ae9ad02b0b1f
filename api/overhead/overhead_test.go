package overhead

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubevfio/kubevfio/api/vmspec"
)

func TestItems(t *testing.T) {
	const gib = 1 << 30
	tests := map[string]struct {
		in   Input
		want map[string]uint64
	}{
		"bare": {Input{VCPUs: 1, MemoryBytes: 512 * mib}, map[string]uint64{
			"launcher": 64 * mib, "qemu": 64 * mib, "vcpus": 4 * mib, "pageTables": 2 * mib, "memorySlots": 512 * mib / 8192,
		}},
		"small pages and a device": {Input{VCPUs: 4, MemoryBytes: 64 * gib, Units: 1, Functions: 2, BARBytes: 128 * gib}, map[string]uint64{
			"launcher": 64 * mib, "qemu": 64 * mib, "vcpus": 16 * mib, "pageTables": 3 * 128 * mib, "memorySlots": 8 * mib,
			"vfio": 40 * mib, "bars": mib,
		}},
		"1Gi pages, 8 units": {Input{VCPUs: 64, MemoryBytes: 1024 * gib, HugepageBytes: gib, Units: 8, Functions: 8}, map[string]uint64{
			"launcher": 64 * mib, "qemu": 64 * mib, "vcpus": 256 * mib, "pageTables": 3 * 8192, "memorySlots": 128 * mib,
			"vfio": 64 * mib, "bars": 16 * mib,
		}},
		"virtual IOMMU": {Input{VCPUs: 1, MemoryBytes: gib, Units: 3, Functions: 3, VIOMMU: true, BARBytes: 1}, map[string]uint64{
			"launcher": 64 * mib, "qemu": 64 * mib, "vcpus": 4 * mib, "pageTables": 5 * 2 * mib, "memorySlots": mib / 8,
			"vfio": 44 * mib, "bars": 16,
		}},
		"helpers": {Input{VCPUs: 1, MemoryBytes: gib, Passt: true, Screen: true, TPM: true, EFI: true, Shares: 2, Disks: 3, Overlays: 1, IOThreads: 2}, map[string]uint64{
			"launcher": 64 * mib, "qemu": 64 * mib, "vcpus": 4 * mib, "pageTables": 4 * mib, "memorySlots": mib / 8,
			"firmware": 24 * mib, "passt": 48 * mib, "screen": 32 * mib, "tpm": 32 * mib, "shares": 128 * mib, "disks": 44 * mib, "ioThreads": 8 * mib,
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := map[string]uint64{}
			var sum uint64
			items := Items(tc.in)
			for _, i := range items {
				got[i.Name] = i.Bytes
				sum += i.Bytes
				if i.Why == "" {
					t.Errorf("%s has no reason", i.Name)
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
			if total := Total(items); total < sum || total-sum >= mib || total%mib != 0 {
				t.Errorf("total %d of %d", total, sum)
			}
		})
	}
}

func TestFromSpec(t *testing.T) {
	spec, err := vmspec.Decode([]byte(`
domain:
  cpu: {cores: 2, threads: 2}
  memory: {guest: 4Gi, hugepages: {pageSize: 2Mi}}
  ioThreadsPolicy: auto
  firmware: {bootloader: {efi: {}}}
  devices:
    gpus: [{name: g, deviceName: r}]
    interfaces: [{name: a, sriov: {deviceName: r2}}]
    disks: [{name: root}]
    iommu: {}
volumes: [{name: root, containerDisk: {image: x}}]
`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := FromSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	want := Input{VCPUs: 4, MemoryBytes: 4 << 30, HugepageBytes: 2 << 20, Units: 2, Functions: 3, VIOMMU: true, EFI: true, Disks: 1, Overlays: 1, IOThreads: 1}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
