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
			"launcher": 56 * mib, "qemu": 48 * mib, "vcpus": 2 * mib, "pageTables": 2 * mib, "memorySlots": 512 * mib / 8192,
		}},
		"small pages and a device": {Input{VCPUs: 4, MemoryBytes: 64 * gib, Units: 1, Functions: 2, BARBytes: 128 * gib}, map[string]uint64{
			"launcher": 56 * mib, "qemu": 48 * mib, "vcpus": 8 * mib, "pageTables": 3 * 128 * mib, "memorySlots": 8 * mib,
			"vfio": 12 * mib, "bars": mib,
		}},
		"1Gi pages, 8 units": {Input{VCPUs: 64, MemoryBytes: 1024 * gib, HugepageBytes: gib, Units: 8, Functions: 8, VFs: 3}, map[string]uint64{
			"launcher": 56 * mib, "qemu": 48 * mib, "vcpus": 128 * mib, "pageTables": 3 * 8192, "memorySlots": 128 * mib,
			"vfio": 24 * mib, "bars": 10 * mib,
		}},
		"virtual IOMMU": {Input{VCPUs: 1, MemoryBytes: gib, Units: 3, Functions: 3, VIOMMU: true, BARBytes: 1}, map[string]uint64{
			"launcher": 56 * mib, "qemu": 48 * mib, "vcpus": 2 * mib, "pageTables": 5 * 2 * mib, "memorySlots": mib / 8,
			"vfio": 14 * mib, "bars": 16,
		}},
		"helpers": {Input{VCPUs: 1, MemoryBytes: gib, Passt: true, Screen: true, TPM: true, EFI: true, Shares: 2, Disks: 3, Overlays: 1, IOThreads: 2}, map[string]uint64{
			"launcher": 56 * mib, "qemu": 48 * mib, "vcpus": 2 * mib, "pageTables": 4 * mib, "memorySlots": mib / 8,
			"firmware": 24 * mib, "passt": 32 * mib, "screen": 32 * mib, "tpm": 16 * mib, "shares": 64 * mib, "disks": 28 * mib, "ioThreads": 4 * mib,
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
	want := Input{VCPUs: 4, MemoryBytes: 4 << 30, HugepageBytes: 2 << 20, Units: 2, Functions: 3, VFs: 1, VIOMMU: true, EFI: true, Disks: 1, Overlays: 1, IOThreads: 1}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
