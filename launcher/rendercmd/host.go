package rendercmd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"

	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/topology"
)

// loaded is what a file told about a host.
type loaded struct {
	host *topology.Host
	// units by leader; partial says that the host came from a NodeInventory,
	// which has neither BARs nor cores.
	units   map[topology.Address][]topology.Address
	partial bool
	// blocked says of leaders why the host cannot hand out their units now.
	blocked map[topology.Address]string
}

// load reads a host from a tree or archive with sys/, from the JSON of
// "kubevfio-agent inventory", or from a NodeInventory object.
func load(ctx context.Context, name string) (*loaded, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if isText(text) {
			l, err := parse(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			return l, nil
		}
	}
	fsys, err := host.Open(name)
	if err != nil {
		return nil, err
	}
	h, err := host.Read(ctx, fsys)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return fromHost(h), nil
}

// isText tells JSON and YAML from archives, which have zero bytes.
func isText(b []byte) bool {
	return len(b) > 0 && !slices.Contains(b[:min(len(b), 4096)], 0) && b[0] != 0x1f
}

func newLoaded(h *topology.Host) *loaded {
	return &loaded{host: h, units: map[topology.Address][]topology.Address{}, blocked: map[topology.Address]string{}}
}

func fromHost(h *topology.Host) *loaded {
	l := newLoaded(h)
	for _, u := range topology.Units(h) {
		l.units[u.ID] = u.Members
		if u.Blocked != "" {
			l.blocked[u.ID] = u.Blocked
		}
	}
	return l
}

// parse reads JSON or YAML text: the agent's report, a NodeInventory, a list of
// one, or the bare spec of one.
func parse(text []byte) (*loaded, error) {
	js, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	var head struct {
		Kind        string            `json:"kind"`
		Items       []json.RawMessage `json:"items"`
		Host        json.RawMessage   `json:"host"`
		Functions   []json.RawMessage `json:"functions"`
		Attachments []json.RawMessage `json:"attachments"`
	}
	if err := json.Unmarshal(js, &head); err != nil {
		return nil, err
	}
	switch {
	case head.Kind == "NodeInventory":
		var inv v1alpha1.NodeInventory
		if err := json.Unmarshal(js, &inv); err != nil {
			return nil, err
		}
		return fromInventory(&inv.Spec)
	case head.Kind == "List" || head.Kind == "NodeInventoryList":
		if len(head.Items) != 1 {
			return nil, fmt.Errorf("a list of %d objects: want one NodeInventory", len(head.Items))
		}
		return parse(head.Items[0])
	case head.Kind != "":
		return nil, fmt.Errorf("kind %q: %s", head.Kind, wantHost)
	case len(head.Host) > 0 && head.Host[0] == '{':
		return parse(head.Host)
	case len(head.Functions) > 0:
		h, err := hostOfReport(js)
		if err != nil {
			return nil, err
		}
		return fromHost(h), nil
	case len(head.Attachments) > 0:
		var spec v1alpha1.NodeInventorySpec
		if err := json.Unmarshal(js, &spec); err != nil {
			return nil, err
		}
		return fromInventory(&spec)
	}
	return nil, fmt.Errorf("no PCI functions: %s", wantHost)
}

// wantHost says what an inventory can be.
const wantHost = "want the JSON of 'kubevfio-agent inventory -o json', a NodeInventory, or a tree or archive with sys/"

// fromInventory makes a host of what a NodeInventory tells.
func fromInventory(s *v1alpha1.NodeInventorySpec) (*loaded, error) {
	h := &topology.Host{BootID: s.BootID, PhysAddrBits: int(s.Launcher.PhysAddrBits), IOMMUFD: s.Launcher.IOMMUFD}
	for i := range s.NUMANodes {
		n := &s.NUMANodes[i]
		cpus, err := host.ParseList(n.CPUs)
		if err != nil {
			return nil, fmt.Errorf("numaNodes[%d].cpus: %w", i, err)
		}
		x := topology.NUMANode{ID: int(n.ID), CPUs: cpus, MemoryBytes: uint64(n.MemoryMiB) << 20}
		for _, d := range n.Distances {
			x.Distances = append(x.Distances, int(d))
		}
		for size, page := range map[string]uint64{"2Mi": 2 << 20, "1Gi": 1 << 30} {
			if k, ok := n.Hugepages[size]; ok {
				x.Hugepages = append(x.Hugepages, topology.HugepagePool{PageBytes: page, Total: uint64(k), Free: uint64(k)})
			}
		}
		slices.SortFunc(x.Hugepages, func(a, b topology.HugepagePool) int { return int(a.PageBytes>>20) - int(b.PageBytes>>20) })
		h.NUMANodes = append(h.NUMANodes, x)
		socket := -1
		if n.Socket != nil {
			socket = int(*n.Socket)
		}
		for _, c := range cpus {
			h.CPUs = append(h.CPUs, topology.CPU{ID: c, Socket: socket, Core: -1, NUMA: int(n.ID)})
		}
	}
	slices.SortFunc(h.CPUs, func(a, b topology.CPU) int { return a.ID - b.ID })
	l := newLoaded(h)
	l.partial = true
	for i := range s.Units {
		if err := l.inventoryUnit(s, i); err != nil {
			return nil, fmt.Errorf("units[%d]: %w", i, err)
		}
	}
	slices.SortFunc(h.Functions, func(a, b topology.Function) int { return a.Address.Compare(b.Address) })
	return l, nil
}

func (l *loaded) inventoryUnit(s *v1alpha1.NodeInventorySpec, i int) error {
	u := &s.Units[i]
	f := topology.Function{NUMA: topology.NUMAUnknown, IOMMUGroup: i, VFIndex: -1}
	if u.NUMA != nil {
		f.NUMA = int(*u.NUMA)
	}
	if k := int(u.Kind); k >= 0 && k < len(s.Kinds) {
		class, err := strconv.ParseUint(s.Kinds[k].Class, 16, 24)
		if err != nil {
			return fmt.Errorf("class: %w", err)
		}
		f.Class = uint32(class)
	}
	var switches []topology.Address
	for at, n := int(u.At), 0; at >= 0 && at < len(s.Attachments) && n <= len(s.Attachments); n++ {
		a := &s.Attachments[at]
		if a.Parent == nil {
			f.Root = a.Name
			break
		}
		up, err := topology.ParseAddress(a.Name)
		if err != nil {
			return err
		}
		switches = append([]topology.Address{up}, switches...)
		at = int(*a.Parent)
	}
	// A root port, then pairs of upstream and downstream ports; the inventory
	// keeps only the upstream ones, which are all that is used.
	for _, up := range switches {
		if len(f.Path) == 0 {
			f.Path = append(f.Path, up)
		}
		f.Path = append(f.Path, up, up)
	}
	if u.PF != "" {
		pf, err := topology.ParseAddress(u.PF)
		if err != nil {
			return err
		}
		f.PF = &pf
	}
	var members []topology.Address
	for _, text := range append([]string{u.ID}, u.Members...) {
		a, err := topology.ParseAddress(text)
		if err != nil {
			return err
		}
		if slices.Contains(members, a) {
			continue
		}
		g := f
		g.Address = a
		members = append(members, a)
		l.host.Functions = append(l.host.Functions, g)
	}
	l.units[members[0]] = members
	if u.NotReady != "" {
		l.blocked[members[0]] = u.NotReady
	}
	return nil
}
