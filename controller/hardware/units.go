package hardware

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/topology/draw"
)

// States of a unit.
const (
	Free = "Free"
	Held = "Held"
	// NotReady: nobody holds it and nobody may.
	NotReady = "NotReady"
	// NotOffered: no pool offers it.
	NotOffered = "NotOffered"
)

// Unit is one isolation unit of one node. The JSON form is that of
// `kubectl vfio devices -o json`.
type Unit struct {
	Node     string   `json:"node"`
	Address  string   `json:"address"`
	Members  []string `json:"members,omitempty"`
	Resource string   `json:"resource,omitempty"`
	State    string   `json:"state"`
	// Healthy is false when Problem says why it cannot be handed out; it may be held
	// all the same.
	Healthy bool    `json:"healthy"`
	Holder  *Holder `json:"holder,omitempty"`
	NUMA    *int32  `json:"numaNode,omitempty"`
	// Root is the root complex, Path what lies between it and the unit, from the root
	// complex down to the nearest switch.
	Root    string   `json:"root,omitempty"`
	Path    []string `json:"path,omitempty"`
	Product string   `json:"product,omitempty"`
	// Class is gpu, net, disk or other.
	Class draw.Kind `json:"class"`
	// PF and VF of a virtual function.
	PF      string `json:"pf,omitempty"`
	VF      *int32 `json:"vf,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// Units lists the units of a node in the order of its inventory.
func Units(inv *v1alpha1.NodeInventory, held Holders) []Unit {
	units := make([]Unit, 0, len(inv.Spec.Units))
	for i := range inv.Spec.Units {
		u := &inv.Spec.Units[i]
		line := Unit{
			Node: inv.Name, Address: u.ID, Members: u.Members, NUMA: u.NUMA, PF: u.PF, VF: u.VF,
			Problem: u.NotReady, Healthy: u.NotReady == "", Class: draw.Other, Path: path(inv, u.At),
		}
		if u.Resource != nil {
			line.Resource = at(inv.Spec.Resources, *u.Resource)
		}
		if k := at(inv.Spec.Kinds, u.Kind); k != (v1alpha1.DeviceKind{}) {
			line.Product = cmp.Or(k.Product, k.Vendor+":"+k.Device)
			if class, err := strconv.ParseUint(k.Class, 16, 32); err == nil {
				line.Class = draw.KindOfClass(uint32(class))
			}
		}
		if len(line.Path) > 0 {
			line.Root = line.Path[0]
		}
		h, isHeld := held[inv.Name][u.ID]
		switch {
		case isHeld:
			line.State, line.Holder = Held, &h
		case !line.Healthy:
			line.State = NotReady
		case line.Resource == "":
			line.State = NotOffered
		default:
			line.State = Free
		}
		units = append(units, line)
	}
	return units
}

// at is an element of a table, the zero value when the index is none of it.
func at[T any](table []T, i int32) T {
	var zero T
	if i < 0 || int(i) >= len(table) {
		return zero
	}
	return table[i]
}

// path are the names from the root complex down to an attachment. Parents come
// before children in the table, so the walk ends.
func path(inv *v1alpha1.NodeInventory, i int32) []string {
	var names []string
	for i >= 0 && int(i) < len(inv.Spec.Attachments) {
		a := inv.Spec.Attachments[i]
		names = append(names, a.Name)
		if a.Parent == nil || *a.Parent >= i {
			break
		}
		i = *a.Parent
	}
	slices.Reverse(names)
	return names
}
