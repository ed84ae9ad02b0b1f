package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubevfio/kubevfio/topology"
)

// Places in the tree.
const (
	devicesDir    = "sys/devices"
	pciDevicesDir = "sys/bus/pci/devices"
	groupsDir     = "sys/kernel/iommu_groups"
)

// ErrNoHost is the class of errors about a tree that is none of a host: it has
// no sys/.
var ErrNoHost = errors.New("no host tree")

// Read reads a whole tree once. It fails only when the tree has no sys/
// ([ErrNoHost]) or the context ends; everything else that cannot be read costs
// the function or the field that it belongs to.
func Read(ctx context.Context, fsys FS) (*topology.Host, error) {
	return NewScanner(fsys).Scan(ctx)
}

// Scanner reads a tree again and again. Its methods may be called from several
// goroutines.
type Scanner struct {
	fsys  FS
	stuck *stuckReads

	mu    sync.Mutex
	known *known
	host  *topology.Host // of known, nil after a change
}

// known is what the scanner knows between readings.
type known struct {
	base      topology.Host // all but the functions
	functions []topology.Function
	// shared says that a Host that was given away has the same functions.
	shared bool
	worker *worker
}

// NewScanner makes a scanner; nothing is read yet.
func NewScanner(fsys FS) *Scanner {
	return &Scanner{fsys: fsys, stuck: &stuckReads{since: map[topology.Address]time.Time{}}}
}

// Scan reads everything; errors are as of [Read].
func (s *Scanner) Scan(ctx context.Context) (*topology.Host, error) {
	if _, err := fs.Stat(s.fsys, "sys"); err != nil {
		return nil, fmt.Errorf("%w: want a directory or archive that holds sys/: %w", ErrNoHost, err)
	}
	var base topology.Host
	var wg sync.WaitGroup
	wg.Go(func() { readMachine(s.fsys, &base) })
	functions, skipped, err := readFunctions(ctx, s.fsys, s.stuck)
	wg.Wait()
	if err != nil {
		return nil, err
	}
	base.Skipped = skipped
	h := base
	h.Functions = functions

	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = &known{base: base, functions: functions, worker: newWorker(s.fsys, nil)}
	s.host = &h
	return &h, nil
}

// Host is the last reading with all rescans since, nil before the first Scan.
// A Host that was given away never changes: the first Rescan after this call
// that finds a change pays for a copy of the list, the others of a burst do
// not.
func (s *Scanner) Host() *topology.Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.host == nil && s.known != nil {
		h := s.known.base
		h.Functions = s.known.functions
		s.host = &h
	}
	return s.host
}

// place is a function to read: its address and directory.
type place struct {
	addr topology.Address
	name string // as the tree spells the address
	dir  string
}

// list finds the directories of all functions.
func list(fsys FS) ([]place, []topology.Skip, error) {
	var places []place
	var skipped []topology.Skip
	bus, err := openDir(fsys, pciDevicesDir)
	if err != nil {
		// A capture may hold sys/devices only; a host without PCI has neither.
		return walk(fsys, devicesDir, 0, nil), nil, nil
	}
	defer bus.close()
	var names []string
	if err := bus.each(make([]byte, 1<<16), func(n []byte) { names = append(names, string(n)) }); err != nil {
		return nil, nil, fmt.Errorf("list PCI functions: %w", err)
	}
	places = make([]place, 0, len(names))
	for _, n := range names {
		a, err := topology.ParseAddress(n)
		if err != nil {
			skipped = append(skipped, topology.Skip{Address: n, Reason: err.Error()})
			continue
		}
		p := place{addr: a, name: n, dir: pciDevicesDir + "/" + n}
		if target, err := bus.link(n); err == nil {
			p.dir = resolve(pciDevicesDir, target)
		}
		places = append(places, p)
	}
	if len(places) == 0 {
		places = walk(fsys, devicesDir, 0, nil)
	}
	return places, skipped, nil
}

// maxWalk bounds the depth of walk: deeper than any chain of bridges.
const maxWalk = 48

// walk finds functions below sys/devices by their names.
func walk(fsys FS, dir string, depth int, found []place) []place {
	entries, err := fsys.ReadDir(dir)
	if err != nil || depth > maxWalk {
		return found
	}
	for _, e := range entries {
		n := e.Name()
		if !e.IsDir() {
			continue
		}
		sub := dir + "/" + n
		if a, err := topology.ParseAddress(n); err == nil {
			found = append(found, place{addr: a, name: n, dir: sub})
			found = walk(fsys, sub, depth+1, found)
			continue
		}
		// Host bridges are at the top, under a function (VMD) or deep in the
		// firmware's or platform's tree (Hyper-V, arm64). Children of functions
		// that are no functions hold no more of them.
		if isRoot(n) || !inFunction(dir) {
			found = walk(fsys, sub, depth+1, found)
		}
	}
	return found
}

// inFunction reports whether a directory is that of a PCI function.
func inFunction(dir string) bool { return isAddress(path.Base(dir)) }

// chunk is how many functions a worker takes at a time.
const chunk = 32

// maxWorkers bounds the parallelism: the kernel serialises much of sysfs.
const maxWorkers = 4

func readFunctions(ctx context.Context, fsys FS, stuck *stuckReads) ([]topology.Function, []topology.Skip, error) {
	var kids *children
	var both sync.WaitGroup
	both.Go(func() { kids = readClasses(fsys) })
	places, skipped, err := list(fsys)
	both.Wait()
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(places, func(a, b place) int { return a.addr.Compare(b.addr) })
	sc := &scan{
		fsys: fsys, kids: kids, stuck: stuck, places: places,
		out: make([]topology.Function, len(places)), reasons: make([]error, len(places)), state: make([]atomic.Int32, len(places)),
	}
	workers := max(1, min(maxWorkers, runtime.GOMAXPROCS(0), len(places)/chunk))
	sc.run(ctx, workers)
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("read PCI functions: %w", err)
	}
	functions, reasons := sc.out, sc.reasons
	good := functions[:0]
	for i := range functions {
		if reasons[i] != nil {
			skipped = append(skipped, topology.Skip{Address: places[i].name, Reason: reasons[i].Error()})
			continue
		}
		good = append(good, functions[i])
	}
	functions = good
	groupsFromKernel(fsys, functions)
	readGroupTypes(ctx, fsys, functions, workers)
	indexVFs(functions)
	slices.SortFunc(skipped, func(a, b topology.Skip) int { return strings.Compare(a.Address, b.Address) })
	return functions, skipped, nil
}

// groupsFromKernel fills IOMMU groups from the other side, for captures that
// lack the functions' own links but have the groups' lists.
func groupsFromKernel(fsys FS, functions []topology.Function) {
	for i := range functions {
		if functions[i].IOMMUGroup >= 0 {
			return
		}
	}
	groups, err := fsys.ReadDir(groupsDir)
	if err != nil || len(groups) == 0 {
		return
	}
	at := make(map[topology.Address]int, len(functions))
	for i := range functions {
		at[functions[i].Address] = i
	}
	for _, g := range groups {
		id, err := strconv.Atoi(g.Name())
		if err != nil || id < 0 {
			continue
		}
		members, err := fsys.ReadDir(path.Join(groupsDir, g.Name(), "devices"))
		if err != nil {
			continue
		}
		for _, m := range members {
			if a, err := topology.ParseAddress(m.Name()); err == nil {
				if i, ok := at[a]; ok {
					functions[i].IOMMUGroup = id
				}
			}
		}
	}
}

// readGroupTypes reads the domain type of every group once.
func readGroupTypes(ctx context.Context, fsys FS, functions []topology.Function, workers int) {
	dir, err := openDir(fsys, groupsDir)
	if err != nil {
		return
	}
	defer dir.close()
	members := map[int][]int{}
	var ids []int
	for i := range functions {
		if g := functions[i].IOMMUGroup; g >= 0 {
			if members[g] == nil {
				ids = append(ids, g)
			}
			members[g] = append(members[g], i)
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			in := interner{}
			var buf [32]byte
			for ctx.Err() == nil {
				hi := int(next.Add(chunk))
				lo := hi - chunk
				if lo >= len(ids) {
					return
				}
				for _, id := range ids[lo:min(hi, len(ids))] {
					b, err := dir.read(strconv.Itoa(id)+"/type", buf[:])
					if err != nil {
						continue
					}
					typ := in.text(b)
					for _, i := range members[id] {
						functions[i].IOMMUGroupType = typ
					}
				}
			}
		})
	}
	wg.Wait()
}

// indexVFs gives virtual functions their numbers by their physical functions'
// lists, and physical functions without such lists (captures) theirs by the
// order of addresses.
func indexVFs(functions []topology.Function) {
	at := make(map[topology.Address]int, len(functions))
	byPF := map[topology.Address][]topology.Address{}
	for i := range functions {
		f := &functions[i]
		at[f.Address] = i
		if f.PF != nil {
			byPF[*f.PF] = append(byPF[*f.PF], f.Address)
		}
	}
	for i := range functions {
		pf := &functions[i]
		vfs := byPF[pf.Address]
		if len(pf.VFs) == 0 {
			pf.VFs = vfs // sorted, as functions are
		}
		for n, a := range pf.VFs {
			if j, ok := at[a]; ok {
				functions[j].VFIndex = n
			}
		}
	}
}
