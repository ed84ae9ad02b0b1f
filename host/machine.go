package host

import (
	"bytes"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kubevfio/kubevfio/topology"
)

const (
	cpuDir  = "sys/devices/system/cpu"
	nodeDir = "sys/devices/system/node"
)

// readMachine fills everything of a host but its functions.
func readMachine(fsys FS, h *topology.Host) {
	m := &machine{fsys: fsys, buf: make([]byte, 8<<10)}
	h.BootID = m.text("proc/sys/kernel/random/boot_id")
	h.PhysAddrBits = m.physAddrBits()
	h.IOMMUFD = exists(fsys, "sys/class/misc/iommu") || exists(fsys, "sys/devices/virtual/misc/iommu")
	h.CPUs = m.cpus()
	h.NUMANodes = m.nodes(h.CPUs)
}

func exists(fsys FS, name string) bool {
	d, err := openDir(fsys, path.Dir(name))
	if err != nil {
		return false
	}
	defer d.close()
	found := false
	want := path.Base(name)
	err = d.each(make([]byte, 8<<10), func(n []byte) { found = found || string(n) == want })
	return err == nil && found
}

// machine reads single files with one buffer.
type machine struct {
	fsys FS
	buf  []byte
}

func (m *machine) read(name string) []byte {
	d, err := openDir(m.fsys, path.Dir(name))
	if err != nil {
		return nil
	}
	defer d.close()
	b, err := d.read(path.Base(name), m.buf)
	if err != nil {
		return nil
	}
	return b
}

func (m *machine) text(name string) string { return line(m.read(name)) }

// number is a decimal file, -1 when there is none.
func (m *machine) number(d handle, name string) int {
	b, err := d.read(name, m.buf)
	if err != nil {
		return -1
	}
	n, err := intField(b)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// physAddrBits reads the first CPU's "address sizes : 46 bits physical, …".
func (m *machine) physAddrBits() int {
	for b := m.read("proc/cpuinfo"); len(b) > 0; {
		var l []byte
		l, b = cut(b)
		key, value, ok := bytes.Cut(l, []byte{':'})
		if !ok || string(bytes.TrimSpace(key)) != "address sizes" {
			continue
		}
		first, _, _ := bytes.Cut(bytes.TrimSpace(value), []byte{' '})
		if n, err := intField(first); err == nil && n > 0 && n <= 64 {
			return n
		}
		return 0
	}
	return 0
}

// numbered lists the entries "<prefix>N" of a directory, sorted by N.
func numbered(d handle, prefix string) []int {
	var ids []int
	err := d.each(make([]byte, 16<<10), func(n []byte) {
		if s, ok := strings.CutPrefix(string(n), prefix); ok {
			if v, err := strconv.ParseUint(s, 10, 20); err == nil {
				ids = append(ids, int(v))
			}
		}
	})
	if err != nil {
		return nil
	}
	slices.Sort(ids)
	return ids
}

// idList reads a list file, else the mask file that old kernels have.
func (m *machine) idList(d handle, listFile, maskFile string) []int {
	if b, err := d.read(listFile, m.buf); err == nil {
		if ids, err := ParseList(string(b)); err == nil {
			return ids
		}
	}
	if b, err := d.read(maskFile, m.buf); err == nil {
		if ids, err := parseMask(string(b)); err == nil {
			return ids
		}
	}
	return nil
}

// cpus reads the online CPUs. Hardware threads of a core say the same, so one
// of them is read.
func (m *machine) cpus() []topology.CPU {
	d, err := openDir(m.fsys, cpuDir)
	if err != nil {
		return nil
	}
	defer d.close()
	var ids []int
	if b, err := d.read("online", m.buf); err == nil {
		ids, _ = ParseList(string(b))
	}
	if ids == nil {
		ids = numbered(d, "cpu")
	}
	at := make(map[int]int, len(ids))
	cpus := make([]topology.CPU, len(ids))
	for i, id := range ids {
		cpus[i] = topology.CPU{ID: id, Socket: -1, Core: -1, NUMA: topology.NUMAUnknown}
		at[id] = i
	}
	for i := range cpus {
		c := &cpus[i]
		if c.Siblings != nil {
			continue
		}
		t, err := openDir(m.fsys, cpuDir+"/cpu"+strconv.Itoa(c.ID)+"/topology")
		if err != nil {
			c.Siblings = []int{c.ID}
			continue
		}
		c.Socket, c.Core = m.number(t, "physical_package_id"), m.number(t, "core_id")
		sib := m.idList(t, "thread_siblings_list", "thread_siblings")
		t.close()
		if !slices.Contains(sib, c.ID) {
			sib = []int{c.ID}
		}
		sib = slices.DeleteFunc(sib, func(id int) bool { _, ok := at[id]; return !ok })
		for _, id := range sib {
			o := &cpus[at[id]]
			o.Siblings, o.Socket, o.Core = sib, c.Socket, c.Core
		}
	}
	return cpus
}

// nodes reads the NUMA nodes and gives the CPUs theirs.
func (m *machine) nodes(cpus []topology.CPU) []topology.NUMANode {
	d, err := openDir(m.fsys, nodeDir)
	if err != nil {
		return nil
	}
	defer d.close()
	var ids []int
	if b, err := d.read("online", m.buf); err == nil {
		ids, _ = ParseList(string(b))
	}
	if ids == nil {
		ids = numbered(d, "node")
	}
	at := make(map[int]int, len(cpus))
	for i := range cpus {
		at[cpus[i].ID] = i
	}
	var nodes []topology.NUMANode
	for _, id := range ids {
		name := nodeDir + "/node" + strconv.Itoa(id)
		nd, err := openDir(m.fsys, name)
		if err != nil {
			continue
		}
		n := topology.NUMANode{ID: id}
		for _, c := range m.idList(nd, "cpulist", "cpumap") {
			if i, ok := at[c]; ok {
				n.CPUs = append(n.CPUs, c)
				cpus[i].NUMA = id
			}
		}
		if b, err := nd.read("meminfo", m.buf); err == nil {
			n.MemoryBytes, n.MemFreeBytes = parseNodeMeminfo(b)
		}
		if b, err := nd.read("distance", m.buf); err == nil {
			for _, w := range strings.Fields(string(b)) {
				v, err := strconv.Atoi(w)
				if err != nil {
					n.Distances = nil
					break
				}
				n.Distances = append(n.Distances, v)
			}
		}
		nd.close()
		n.Hugepages = m.hugepages(name + "/hugepages")
		nodes = append(nodes, n)
	}
	for i := range nodes {
		// The kernel has one figure per online node; anything else cannot be
		// matched to nodes.
		if len(nodes[i].Distances) != len(nodes) {
			nodes[i].Distances = nil
		}
	}
	return nodes
}

// parseNodeMeminfo reads "Node 0 MemTotal: 1234 kB" lines, in bytes.
func parseNodeMeminfo(b []byte) (total, free uint64) {
	for len(b) > 0 {
		var l []byte
		l, b = cut(b)
		w := strings.Fields(string(l))
		for i := 0; i+1 < len(w); i++ {
			var to *uint64
			switch w[i] {
			case "MemTotal:":
				to = &total
			case "MemFree:":
				to = &free
			default:
				continue
			}
			if v, err := strconv.ParseUint(w[i+1], 10, 53); err == nil {
				*to = v << 10
			}
		}
	}
	return total, free
}

func (m *machine) hugepages(dir string) []topology.HugepagePool {
	entries, err := m.fsys.ReadDir(dir)
	if err != nil {
		return nil
	}
	var pools []topology.HugepagePool
	for _, e := range entries {
		s, ok := strings.CutPrefix(e.Name(), "hugepages-")
		if !ok {
			continue
		}
		s, ok = strings.CutSuffix(s, "kB")
		if !ok {
			continue
		}
		kb, err := strconv.ParseUint(s, 10, 53)
		if err != nil {
			continue
		}
		d, err := openDir(m.fsys, dir+"/"+e.Name())
		if err != nil {
			continue
		}
		total, free := m.number(d, "nr_hugepages"), m.number(d, "free_hugepages")
		d.close()
		pools = append(pools, topology.HugepagePool{PageBytes: kb << 10, Total: uint64(max(total, 0)), Free: uint64(max(free, 0))})
	}
	slices.SortFunc(pools, func(a, b topology.HugepagePool) int {
		switch {
		case a.PageBytes < b.PageBytes:
			return -1
		case a.PageBytes > b.PageBytes:
			return 1
		}
		return 0
	})
	return pools
}
