package domain

import (
	"cmp"
	"slices"

	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/topology"
)

// cell is one NUMA cell of the guest.
type cell struct {
	// host is the host's NUMA node, NUMAUnknown for the one cell of a guest that
	// is not bound to any.
	host  int
	vcpus []int
	bytes uint64
	// memNodes are the host nodes that the memory comes from, nil: any.
	memNodes []int
}

// cpuPlan is how vCPUs and memory lie on the host.
type cpuPlan struct {
	sockets, cores, threads int
	cells                   []cell
	// pins maps each vCPU to the host CPUs it may run on; nil: no pinning.
	pins [][]int
	// emulator are the CPUs of QEMU's own threads, nil: no pinning.
	emulator []int
	// strict memory binding, else preferred.
	strict bool
	notes  []string
}

// cellOf is the guest cell of a host node, -1 when there is none.
func (p *cpuPlan) cellOf(host int) int {
	if host == topology.NUMAUnknown {
		return -1
	}
	return slices.IndexFunc(p.cells, func(c cell) bool { return c.host == host })
}

// planCPUs places vCPUs and memory. deviceNodes are the known NUMA nodes of the
// units, sorted.
func planCPUs(in *Input, deviceNodes []int) (*cpuPlan, error) {
	n, err := vmspec.VCPUs(in.Spec)
	if err != nil {
		return nil, err
	}
	bytes, err := vmspec.MemoryBytes(in.Spec)
	if err != nil {
		return nil, err
	}
	page, err := vmspec.HugepageBytes(in.Spec)
	if err != nil {
		return nil, err
	}
	if page > 0 && bytes%page != 0 {
		return nil, vmspec.Errorf("spec.domain.memory.guest", "%d MiB is not a whole number of %d MiB huge pages", bytes>>20, page>>20)
	}
	p := &cpuPlan{}
	allowed, err := allowedCPUs(in)
	if err != nil {
		return nil, err
	}
	c := in.Spec.Domain.CPU
	if c != nil && c.DedicatedCPUPlacement {
		if err := p.dedicated(in, allowed, n); err != nil {
			return nil, err
		}
	} else {
		p.shared(allowed, n, deviceNodes)
	}
	p.farCells(in, deviceNodes)
	if err := p.memory(in, bytes, page); err != nil {
		return nil, err
	}
	return p, p.topology(in, n)
}

// allowedCPUs are the host CPUs of the pod's cpuset in the order in which vCPUs
// are put on them: NUMA node, socket, core, thread.
func allowedCPUs(in *Input) ([]topology.CPU, error) {
	var out []topology.CPU
	for _, c := range in.Host.CPUs {
		if len(in.CPUs) == 0 || slices.Contains(in.CPUs, c.ID) {
			out = append(out, c)
		}
	}
	if len(in.Host.CPUs) == 0 {
		// The host does not tell its CPUs: the cpuset alone says what there is.
		for _, id := range in.CPUs {
			out = append(out, topology.CPU{ID: id, Socket: -1, Core: -1, NUMA: topology.NUMAUnknown})
		}
	}
	if len(in.CPUs) > 0 && len(in.Host.CPUs) > 0 && len(out) < len(in.CPUs) {
		return nil, hostErrorf("spec.domain.cpu", "the cpuset %s has CPUs that the host's topology does not show", listString(in.CPUs))
	}
	slices.SortFunc(out, func(a, b topology.CPU) int {
		return cmp.Or(cmp.Compare(a.NUMA, b.NUMA), cmp.Compare(a.Socket, b.Socket), cmp.Compare(coreKey(a), coreKey(b)), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// coreKey tells cores of one socket apart: sysfs' core IDs, or the first sibling
// where there are none.
func coreKey(c topology.CPU) int {
	if c.Core >= 0 {
		return c.Core
	}
	if len(c.Siblings) > 0 {
		return c.Siblings[0]
	}
	return c.ID
}

func sameCore(a, b topology.CPU) bool {
	return a.NUMA == b.NUMA && a.Socket == b.Socket && coreKey(a) == coreKey(b)
}

// dedicated pins each vCPU to a CPU of its own.
func (p *cpuPlan) dedicated(in *Input, allowed []topology.CPU, n int) error {
	cpu := in.Spec.Domain.CPU
	need := n
	if cpu.IsolateEmulatorThread {
		need++
	}
	if len(allowed) < need {
		return hostErrorf("spec.domain.cpu.dedicatedCpuPlacement", "%d vCPUs%s need %d CPUs of their own, the pod's cpuset has %d; is kubelet's CPU manager policy static and the pod Guaranteed?",
			n, emulatorWords(cpu.IsolateEmulatorThread), need, len(allowed))
	}
	used, rest := spare(allowed, len(allowed)-n)
	p.strict = true
	for i, c := range used {
		p.pins = append(p.pins, []int{c.ID})
		k := slices.IndexFunc(p.cells, func(x cell) bool { return x.host == c.NUMA })
		if k < 0 {
			k = len(p.cells)
			p.cells = append(p.cells, cell{host: c.NUMA})
		}
		p.cells[k].vcpus = append(p.cells[k].vcpus, i)
	}
	for _, c := range rest {
		p.emulator = append(p.emulator, c.ID)
	}
	if len(p.emulator) == 0 {
		for _, c := range used {
			p.emulator = append(p.emulator, c.ID)
		}
	}
	slices.Sort(p.emulator)
	return nil
}

func emulatorWords(isolated bool) string {
	if isolated {
		return " and the emulator thread"
	}
	return ""
}

// spare takes drop CPUs away that run no vCPU: each from the NUMA node that has
// most left, and there from the core with fewest threads left, so that whole
// cores remain for vCPUs.
func spare(cpus []topology.CPU, drop int) (used, rest []topology.CPU) {
	used = slices.Clone(cpus)
	for range drop {
		perNode := map[int]int{}
		for _, c := range used {
			perNode[c.NUMA]++
		}
		threads := func(x topology.CPU) (t int) {
			for _, c := range used {
				if sameCore(c, x) {
					t++
				}
			}
			return t
		}
		best := len(used) - 1
		for i := len(used) - 1; i >= 0; i-- {
			a, b := used[i], used[best]
			if perNode[a.NUMA] > perNode[b.NUMA] || (perNode[a.NUMA] == perNode[b.NUMA] && threads(a) < threads(b)) {
				best = i
			}
		}
		rest = append(rest, used[best])
		used = slices.Delete(used, best, best+1)
	}
	return used, rest
}

// shared lays out vCPUs that float over the pod's CPUs. A guest whose devices
// are on several nodes gets a cell for each, with vCPUs that float within the
// node; otherwise there is one cell, and its vCPUs float over the whole cpuset.
func (p *cpuPlan) shared(allowed []topology.CPU, n int, deviceNodes []int) {
	byNode := map[int][]int{}
	for _, c := range allowed {
		byNode[c.NUMA] = append(byNode[c.NUMA], c.ID)
	}
	var nodes []int
	for _, d := range deviceNodes {
		if len(byNode[d]) > 0 && len(nodes) < n {
			nodes = append(nodes, d)
		}
	}
	if len(nodes) == 0 {
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		host := topology.NUMAUnknown
		if len(byNode) == 1 && len(allowed) > 0 {
			host = allowed[0].NUMA
		}
		p.cells = []cell{{host: host, vcpus: all}}
		return
	}
	next := 0
	for i, d := range nodes {
		// Earlier cells take the remainder.
		k := n / len(nodes)
		if i < n%len(nodes) {
			k++
		}
		c := cell{host: d}
		for range k {
			c.vcpus = append(c.vcpus, next)
			if len(nodes) > 1 {
				cpus := slices.Clone(byNode[d])
				slices.Sort(cpus)
				p.pins = append(p.pins, cpus)
			}
			next++
		}
		p.cells = append(p.cells, c)
	}
}

// farMemory is what a cell without CPUs gets: Linux knows a node only by its CPUs
// or memory, and forgets one with less than a few MiB.
const farMemory = 64 * vmspec.MiB

// farCells adds a cell without CPUs for each node that has devices and no vCPUs,
// so that the guest sees how far they are.
func (p *cpuPlan) farCells(in *Input, deviceNodes []int) {
	if p.cells[0].host == topology.NUMAUnknown {
		// One unbound cell: nothing is known to be far or near. Only hosts whose
		// CPUs are not known come here with devices.
		return
	}
	for _, d := range deviceNodes {
		if p.cellOf(d) < 0 && in.Host.NUMANode(d) != nil {
			p.cells = append(p.cells, cell{host: d})
			p.notes = append(p.notes, "guest cell "+itoa(len(p.cells)-1)+" has no CPUs: devices are on host node "+itoa(d)+", the pod's CPUs are not")
		}
	}
}

// nearest is the cell with CPUs that the host says is nearest to cell i.
func (p *cpuPlan) nearest(h *topology.Host, i int) *cell {
	var best *cell
	for j := range p.cells {
		c := &p.cells[j]
		if len(c.vcpus) == 0 {
			continue
		}
		if best == nil || distanceOr(h, p.cells[i].host, c.host) < distanceOr(h, p.cells[i].host, best.host) {
			best = c
		}
	}
	return best
}

// distanceOr is the distance of two host nodes, 255 where it is not told.
func distanceOr(h *topology.Host, a, b int) int {
	if d := hostDistance(h, a, b); d > 0 {
		return d
	}
	return 255
}

// memory spreads the guest's memory over the cells by their vCPUs.
func (p *cpuPlan) memory(in *Input, bytes, page uint64) error {
	grain := max(page, 2*vmspec.MiB)
	total := 0
	for _, c := range p.cells {
		total += len(c.vcpus)
	}
	// Far cells first: they take a little from the others.
	far := alignUp(farMemory, grain)
	for i := range p.cells {
		if len(p.cells[i].vcpus) == 0 {
			if bytes < 2*far {
				return vmspec.Errorf("spec.domain.memory.guest", "%d MiB is too little: a NUMA cell of %d MiB is needed for devices that are far from all CPUs", bytes>>20, far>>20)
			}
			p.cells[i].bytes = far
			bytes -= far
		}
	}
	left, last := bytes, -1
	for i := range p.cells {
		c := &p.cells[i]
		if len(c.vcpus) == 0 {
			continue
		}
		c.bytes = bytes / uint64(total) * uint64(len(c.vcpus)) / grain * grain
		left -= c.bytes
		if last < 0 {
			last = i
		}
		if c.host == topology.NUMAUnknown {
			continue
		}
		c.memNodes = []int{c.host}
		if len(in.MemNodes) > 0 && !slices.Contains(in.MemNodes, c.host) {
			if !p.strict {
				c.memNodes = nil
				continue
			}
			c.memNodes = slices.Clone(in.MemNodes)
			slices.Sort(c.memNodes)
			p.notes = append(p.notes, "memory of guest cell "+itoa(i)+" is not on its CPUs' node "+itoa(c.host)+": kubelet gave memory nodes "+listString(in.MemNodes))
		}
	}
	p.cells[last].bytes += left
	for i := range p.cells {
		if c := &p.cells[i]; len(c.vcpus) == 0 {
			c.memNodes = p.nearest(in.Host, i).memNodes
		}
	}
	for i := range p.cells {
		c := &p.cells[i]
		if len(c.vcpus) > 0 && c.bytes == 0 {
			return vmspec.Errorf("spec.domain.memory.guest", "%d MiB is too little for %d NUMA cells in pages of %d MiB", bytes>>20, len(p.cells), grain>>20)
		}
	}
	return p.pages(in, bytes, page)
}

// pages checks the pools of huge pages: for bound memory those of each set of
// nodes, else those of all, because preferred binding falls back.
func (p *cpuPlan) pages(in *Input, bytes, page uint64) error {
	if !p.strict {
		var all []int
		for _, n := range in.Host.NUMANodes {
			if len(in.MemNodes) == 0 || slices.Contains(in.MemNodes, n.ID) {
				all = append(all, n.ID)
			}
		}
		return enoughPages(in.Host, all, bytes, page)
	}
	for i, c := range p.cells {
		need := c.bytes
		for _, other := range p.cells[:i] {
			if slices.Equal(other.memNodes, c.memNodes) {
				need += other.bytes
			}
		}
		if err := enoughPages(in.Host, c.memNodes, need, page); err != nil {
			return err
		}
	}
	return nil
}

// enoughPages refuses memory that the nodes' pools of huge pages could never
// hold; whether the pages are free now is the preflight's question.
func enoughPages(h *topology.Host, nodes []int, bytes, page uint64) error {
	if page == 0 || len(nodes) == 0 {
		return nil
	}
	var have uint64
	for _, id := range nodes {
		node := h.NUMANode(id)
		if node == nil || len(node.Hugepages) == 0 {
			return nil // not told
		}
		for _, pool := range node.Hugepages {
			if pool.PageBytes == page {
				have += pool.Total
			}
		}
	}
	if need := bytes / page; have < need {
		return hostErrorf("spec.domain.memory.hugepages", "%d pages of %d MiB are needed on NUMA node %s, which has %d in all", need, page>>20, listString(nodes), have)
	}
	return nil
}

// topology settles sockets, cores and threads.
func (p *cpuPlan) topology(in *Input, n int) error {
	c := in.Spec.Domain.CPU
	p.sockets, p.cores, p.threads = 1, n, 1
	if c != nil && (c.Cores != 0 || c.Sockets != 0 || c.Threads != 0) {
		p.sockets, p.cores, p.threads = int(max(c.Sockets, 1)), int(max(c.Cores, 1)), int(max(c.Threads, 1))
	}
	if c == nil || !c.DedicatedCPUPlacement {
		return nil
	}
	if p.threads > 1 && !coresKnown(in.Host) {
		p.notes = append(p.notes, "the host's cores are not known here: whether threads of a guest core share a host core is not checked")
	} else if p.threads > 1 {
		if i := p.unpaired(in.Host, p.threads); i >= 0 {
			return hostErrorf("spec.domain.cpu.threads", "vCPUs %d to %d would be threads of one core, but the cpuset has no %d free threads of one host core for them; set kubelet's full-pcpus-only or threads: 1", i, i+p.threads-1, p.threads)
		}
	}
	if c.Threads == 0 && p.cores%2 == 0 && p.unpaired(in.Host, 2) < 0 {
		p.cores, p.threads = p.cores/2, 2
		p.notes = append(p.notes, "the cpuset has whole cores: guest cores have 2 threads")
	}
	// A socket over several cells contradicts the host's caches in the guest's
	// eyes; split it where the spec leaves the choice.
	k := 0
	even := true
	for _, x := range p.cells {
		if len(x.vcpus) > 0 {
			k++
			even = even && len(x.vcpus) == len(p.cells[0].vcpus)
		}
	}
	if c.Sockets == 0 && k > 1 && even && p.cores%k == 0 {
		p.sockets, p.cores = k, p.cores/k
	}
	return nil
}

// coresKnown reports whether the host tells which CPUs share a core. A
// NodeInventory does not.
func coresKnown(h *topology.Host) bool {
	return slices.ContainsFunc(h.CPUs, func(c topology.CPU) bool { return len(c.Siblings) > 0 })
}

// unpaired is the first vCPU at which a run of t vCPUs is not t threads of one
// host core, -1 when all are.
func (p *cpuPlan) unpaired(h *topology.Host, t int) int {
	byID := make(map[int]topology.CPU, len(h.CPUs))
	for _, c := range h.CPUs {
		byID[c.ID] = c
	}
	if len(p.pins)%t != 0 {
		return len(p.pins) / t * t
	}
	for i := 0; i < len(p.pins); i += t {
		for j := 1; j < t; j++ {
			a, b := byID[p.pins[i][0]], byID[p.pins[i+j][0]]
			if !sameCore(a, b) || len(a.Siblings) < t {
				return i
			}
		}
	}
	return -1
}
