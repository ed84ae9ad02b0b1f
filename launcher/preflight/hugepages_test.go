package preflight

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
	"github.com/kubevfio/kubevfio/host"
)

func TestHugepages(t *testing.T) {
	const m2, g1 = 2 << 20, 1 << 30
	free := func(node, kib string) string {
		return "sys/devices/system/node/node" + node + "/hugepages/hugepages-" + kib + "kB/free_hugepages"
	}
	for name, tc := range map[string]struct {
		files  map[string]string
		page   uint64
		memory []HugeMemory
		// reserve is what reserving the pages gives.
		reserve error
		says    []string
	}{
		"normal pages": {memory: []HugeMemory{{Bytes: g1, Nodes: []int{0}}}},
		"enough": {
			files: map[string]string{"sys/fs/cgroup/hugetlb.2MB.max": "1073741824\n", free("0", "2048"): "256\n", free("1", "2048"): "256\n"},
			page:  m2, memory: []HugeMemory{{Bytes: g1 / 2, Nodes: []int{0}}, {Bytes: g1 / 2, Nodes: []int{1}}},
		},
		"on the other node": {
			files: map[string]string{free("0", "2048"): "255\n", free("1", "2048"): "9999\n"},
			page:  m2, memory: []HugeMemory{{Bytes: g1 / 2, Nodes: []int{1}}, {Bytes: g1 / 2, Nodes: []int{0}}},
			says: []string{"256 huge pages of 2 MiB", "NUMA node 0", "255 are free"},
		},
		"over two nodes": {
			files: map[string]string{free("0", "2048"): "100\n", free("1", "2048"): "156\n"},
			page:  m2, memory: []HugeMemory{{Bytes: g1 / 2, Nodes: []int{0, 1}}},
		},
		"not asked for": {
			files: map[string]string{"sys/fs/cgroup/hugetlb.2MB.max": "0\n"},
			page:  m2, memory: []HugeMemory{{Bytes: g1}},
			says: []string{"hugepages-2Mi: 1024Mi", "0 MiB"},
		},
		"1 GiB pages": {
			files: map[string]string{"sys/fs/cgroup/hugetlb.1GB.max": "1073741824\n"},
			page:  g1, memory: []HugeMemory{{Bytes: 2 * g1}},
			says: []string{"hugepages-1Gi: 2048Mi"},
		},
		"limit of the pod": {
			page: m2, memory: []HugeMemory{{Bytes: g1}}, reserve: unix.ENOMEM,
			says: []string{"hugepages-2Mi: 1024Mi", "cannot allocate memory"},
		},
		"no limit":    {files: map[string]string{"sys/fs/cgroup/hugetlb.2MB.max": "max\n"}, page: m2, memory: []HugeMemory{{Bytes: g1}}},
		"untold":      {page: m2, memory: []HugeMemory{{Bytes: g1, Nodes: []int{0}}}},
		"partly last": {files: map[string]string{free("0", "2048"): "1\n"}, page: m2, memory: []HugeMemory{{Bytes: m2 + 1, Nodes: []int{0}}}, says: []string{"2 huge pages"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for path, text := range tc.files {
				path = filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			check(t, Hugepages(host.Dir(dir), tc.page, tc.memory, func(uint64, uint64) error { return tc.reserve }), launcherrpcv1.ReasonHostCannotHold, tc.says)
		})
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sys/fs/cgroup"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sys/fs/cgroup/hugetlb.2MB.max"), []byte("none"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Hugepages(host.Dir(dir), m2, nil, ReserveHugepages); err == nil {
		t.Error("a file without a number is no error")
	}
}
