package page

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/hardware"
	"github.com/kubevfio/kubevfio/topology/draw"
)

// Objects are what the page shows; all lists may be empty.
type Objects struct {
	Nodes       []corev1.Node
	Inventories []v1alpha1.NodeInventory
	Usages      []v1alpha1.NodeUsage
	Pods        []corev1.Pod
	Machines    []v1alpha1.VirtualMachine
	Instances   []v1alpha1.VirtualMachineInstance
}

// Model is what the browser gets. Names of fields are short where there are
// thousands of them: 50 nodes of 73 units are 3,650 units.
type Model struct {
	Nodes    []Node    `json:"nodes"`
	Machines []Machine `json:"machines"`
	// Holders are those of units: [Unit].Holder indexes them.
	Holders []Holder `json:"holders"`
	// Kinds of devices: [Unit].Kind indexes them.
	Kinds []Kind `json:"kinds"`
}

// Node is one node with an inventory.
type Node struct {
	Name string `json:"name"`
	// NotReady and Cordoned are those of the Node object; a node that is gone is not
	// ready. Both are false when no nodes are known at all.
	NotReady bool   `json:"notReady,omitempty"`
	Cordoned bool   `json:"cordoned,omitempty"`
	Policy   string `json:"policy"`
	Agent    string `json:"agent,omitempty"`
	Units    []Unit `json:"units"`
	// Tree is the node as it is wired.
	Tree *Place `json:"tree"`
}

// Place is a socket, a NUMA node, a root complex, a switch or a group of virtual
// functions.
type Place struct {
	Kind  draw.Kind `json:"k"`
	Title string    `json:"t,omitempty"`
	Lines []string  `json:"l,omitempty"`
	// Units hang here: indexes into the node's.
	Units []int    `json:"u,omitempty"`
	Inner []*Place `json:"c,omitempty"`
}

// Unit is one device.
type Unit struct {
	Address string `json:"a"`
	Kind    int    `json:"k"`
	// State is f (free), h (held), n (not ready), o (not offered by a pool).
	State string `json:"s"`
	// Holder indexes the model's holders, absent when nobody holds it.
	Holder *int `json:"h,omitempty"`
	// Problem says why it cannot be handed out; it may be held all the same.
	Problem string   `json:"p,omitempty"`
	Members []string `json:"m,omitempty"`
}

// Kind is a model of a device as a resource.
type Kind struct {
	Class    draw.Kind `json:"class"`
	Product  string    `json:"product,omitempty"`
	Resource string    `json:"resource,omitempty"`
	VF       bool      `json:"vf,omitempty"`
}

// Holder is who holds units.
type Holder struct {
	Name string `json:"name"`
	Hue  int    `json:"hue"`
	// Machine is "namespace/name" of the model's machine, empty for other pods.
	Machine string `json:"machine,omitempty"`
}

// Machine is a VirtualMachine with its instance, or an instance of its own.
type Machine struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Owned is false for an instance without a VirtualMachine.
	Owned bool `json:"owned"`
	// Status is the machine's, Phase the instance's; the latter is empty when there
	// is none.
	Status string `json:"status"`
	Phase  string `json:"phase,omitempty"`
	// Level is ok, busy, bad or off: what the status means to people on call.
	Level     string `json:"level"`
	Node      string `json:"node,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Devices   string `json:"devices,omitempty"`
	Alignment string `json:"alignment,omitempty"`
	IP        string `json:"ip,omitempty"`
	Message   string `json:"message,omitempty"`
	Hue       int    `json:"hue"`
}

// Build makes the model. The same objects give the same model, in whatever order
// they are listed.
func Build(o Objects) *Model {
	m := &Model{Nodes: []Node{}, Machines: []Machine{}, Holders: []Holder{}, Kinds: []Kind{}}
	b := &builder{m: m, holders: map[string]int{}, kinds: map[Kind]int{}, held: hardware.NewHolders(o.Pods, o.Usages), nodes: map[string]*corev1.Node{}}
	for i := range o.Nodes {
		b.nodes[o.Nodes[i].Name] = &o.Nodes[i]
	}
	inventories := make([]*v1alpha1.NodeInventory, len(o.Inventories))
	for i := range o.Inventories {
		inventories[i] = &o.Inventories[i]
	}
	slices.SortFunc(inventories, func(x, y *v1alpha1.NodeInventory) int { return cmp.Compare(x.Name, y.Name) })
	for _, inv := range inventories {
		m.Nodes = append(m.Nodes, b.node(inv))
	}
	m.Machines = machines(o)
	return m
}

type builder struct {
	m       *Model
	held    hardware.Holders
	nodes   map[string]*corev1.Node
	holders map[string]int
	kinds   map[Kind]int
}

func (b *builder) node(inv *v1alpha1.NodeInventory) Node {
	units := hardware.Units(inv, b.held)
	n := Node{Name: inv.Name, Policy: cmp.Or(inv.Spec.Kubelet.TopologyManagerPolicy, "unknown"), Agent: inv.Spec.AgentVersion, Units: make([]Unit, 0, len(units))}
	n.NotReady = len(b.nodes) > 0
	if node := b.nodes[inv.Name]; node != nil {
		n.Cordoned = node.Spec.Unschedulable
		n.NotReady = !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
	}
	index := map[string]int{}
	for i := range units {
		index[units[i].Address] = i
		n.Units = append(n.Units, b.unit(&units[i]))
	}
	n.Tree = place(hardware.Boxes(inv, units, true), index)
	n.Tree.Title, n.Tree.Lines = "", nil // the node's own fields say it
	return n
}

func (b *builder) unit(u *hardware.Unit) Unit {
	out := Unit{Address: u.Address, Problem: u.Problem, Members: u.Members}
	kind := Kind{Class: u.Class, Product: u.Product, Resource: u.Resource, VF: u.PF != ""}
	i, ok := b.kinds[kind]
	if !ok {
		i = len(b.m.Kinds)
		b.kinds[kind] = i
		b.m.Kinds = append(b.m.Kinds, kind)
	}
	out.Kind = i
	switch u.State {
	case hardware.Free:
		out.State = "f"
	case hardware.Held:
		out.State = "h"
		h := b.holder(*u.Holder)
		out.Holder = &h
	case hardware.NotReady:
		out.State = "n"
	default:
		out.State = "o"
	}
	return out
}

func (b *builder) holder(h hardware.Holder) int {
	name := h.String()
	i, ok := b.holders[name]
	if !ok {
		i = len(b.m.Holders)
		b.holders[name] = i
		out := Holder{Name: name, Hue: draw.Hue(name)}
		if h.Instance != "" {
			out.Machine = h.Namespace + "/" + h.Instance
		}
		b.m.Holders = append(b.m.Holders, out)
	}
	return i
}

// place makes places of boxes; devices become indexes.
func place(b *draw.Box, index map[string]int) *Place {
	p := &Place{Kind: b.Kind, Title: b.Title, Lines: b.Lines}
	for _, c := range b.Inner {
		if c.Kind.Device() {
			p.Units = append(p.Units, index[c.Ref])
			continue
		}
		p.Inner = append(p.Inner, place(c, index))
	}
	return p
}
