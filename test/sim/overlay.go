package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/plugins/devicetopology/engine"
	"github.com/kubevfio/kubevfio/topology"
)

const (
	gpu = "sim/gpu"
	vf  = "sim/vf"
)

// overlay is what a trace does not say: server shapes and wishes.
type overlay struct {
	// Fractional is what happens to pods with a part of a GPU: round (up to a
	// whole one) or drop. Default round.
	Fractional string `json:"fractional,omitempty"`
	// Shapes are tried in order; the first that matches a node gives its form.
	Shapes []shape `json:"shapes,omitempty"`
	// Wishes are tried in order for every pod with GPUs; each takes its share of
	// the pods that match it.
	Wishes []wish `json:"wishes,omitempty"`
}

// shape is a server model.
type shape struct {
	Name string `json:"name,omitempty"`
	// GPUs and Models that it is for; 0 and empty match all.
	GPUs   int      `json:"gpus,omitempty"`
	Models []string `json:"models,omitempty"`
	// NUMA nodes, sockets and switches; GPUs are dealt to switches in order,
	// switches to NUMA nodes in order. Without switches every GPU hangs on a
	// root complex of its NUMA node.
	NUMA     int `json:"numa,omitempty"`
	Sockets  int `json:"sockets,omitempty"`
	Switches int `json:"switches,omitempty"`
	// VFsPerSwitch are network functions per switch (or NUMA node, without).
	VFsPerSwitch int `json:"vfsPerSwitch,omitempty"`
	// Partitions are the sizes of fabric partitions: aligned blocks of GPUs.
	Partitions []int `json:"partitions,omitempty"`
}

// wish gives pods network functions and an alignment.
type wish struct {
	MinGPUs int `json:"minGPUs,omitempty"`
	MaxGPUs int `json:"maxGPUs,omitempty"`
	// Share of the matching pods, 0 to 1.
	Share float64 `json:"share"`
	// VFsPerGPU network functions.
	VFsPerGPU int `json:"vfsPerGPU,omitempty"`
	// Alignment as in the annotation kubevfio.io/alignment.
	Alignment string `json:"alignment,omitempty"`
}

// defaultOverlay fits common GPU servers.
func defaultOverlay() *overlay {
	return &overlay{
		Fractional: "round",
		Shapes: []shape{
			{Name: "8 GPUs, 4 switches", GPUs: 8, NUMA: 2, Sockets: 2, Switches: 4, VFsPerSwitch: 16},
			{Name: "4 GPUs, 2 switches", GPUs: 4, NUMA: 2, Sockets: 2, Switches: 2, VFsPerSwitch: 16},
			{Name: "2 GPUs, 2 NUMA nodes", GPUs: 2, NUMA: 2, Sockets: 2, VFsPerSwitch: 16},
			{Name: "1 GPU", GPUs: 1, NUMA: 1, Sockets: 1, VFsPerSwitch: 16},
		},
		Wishes: []wish{
			{MinGPUs: 1, MaxGPUs: 1, Share: 0.25, VFsPerGPU: 1, Alignment: "required:switch"},
			{MinGPUs: 2, MaxGPUs: 2, Share: 0.5, VFsPerGPU: 1, Alignment: "required:numa"},
			{MinGPUs: 2, MaxGPUs: 2, Share: 0.25, Alignment: "preferred:switch"},
			{MinGPUs: 4, MaxGPUs: 4, Share: 0.5, VFsPerGPU: 1, Alignment: "required:numa"},
			{MinGPUs: 5, Share: 0.5, VFsPerGPU: 1},
		},
	}
}

func readOverlay(path string) (*overlay, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	o := &overlay{}
	if err := yaml.UnmarshalStrict(b, o); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errTrace, path, err)
	}
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errTrace, path, err)
	}
	return o, nil
}

// Bounds of an overlay's numbers.
const (
	maxNUMANodes = 64
	maxVFs       = 1024
)

func (o *overlay) validate() error {
	if o.Fractional != "" && o.Fractional != "round" && o.Fractional != "drop" {
		return fmt.Errorf("fractional %q is neither round nor drop", o.Fractional)
	}
	within := func(field string, n, most int) error {
		if n < 0 || n > most {
			return fmt.Errorf("%s: %d is not from 0 to %d", field, n, most)
		}
		return nil
	}
	for i, s := range o.Shapes {
		at := fmt.Sprintf("shapes[%d].", i)
		if err := errors.Join(
			within(at+"gpus", s.GPUs, maxGPUs), within(at+"numa", s.NUMA, maxNUMANodes), within(at+"sockets", s.Sockets, maxNUMANodes),
			within(at+"switches", s.Switches, maxGPUs), within(at+"vfsPerSwitch", s.VFsPerSwitch, maxVFs),
		); err != nil {
			return err
		}
		if s.Sockets > max(1, s.NUMA) {
			return fmt.Errorf("%ssockets: %d sockets have only %d NUMA nodes", at, s.Sockets, max(1, s.NUMA))
		}
		for j, p := range s.Partitions {
			if p < 1 || p > maxGPUs {
				return fmt.Errorf("%spartitions[%d]: %d is not from 1 to %d", at, j, p, maxGPUs)
			}
		}
	}
	for i, w := range o.Wishes {
		at := fmt.Sprintf("wishes[%d].", i)
		if err := errors.Join(
			within(at+"minGPUs", w.MinGPUs, maxGPUs), within(at+"maxGPUs", w.MaxGPUs, maxGPUs), within(at+"vfsPerGPU", w.VFsPerGPU, maxVFs),
		); err != nil {
			return err
		}
		if !(w.Share >= 0 && w.Share <= 1) {
			return fmt.Errorf("%sshare: %v is not from 0 to 1", at, w.Share)
		}
		if w.Alignment == "" {
			continue
		}
		if _, err := v1alpha1.ParseAlignment(w.Alignment); err != nil {
			return fmt.Errorf("%salignment: %w", at, err)
		}
	}
	return nil
}

// shapeFor is the shape of a node.
func (o *overlay) shapeFor(n *nodeRow) shape {
	for _, s := range o.Shapes {
		if (s.GPUs == 0 || s.GPUs == n.gpus) && (len(s.Models) == 0 || slices.Contains(s.Models, n.model)) {
			return s
		}
	}
	return shape{NUMA: 1, Sockets: 1, Switches: max(1, n.gpus/2), VFsPerSwitch: 16}
}

// spec builds the node's hardware.
func (s shape) spec(gpus int) *engine.Spec {
	numa := max(1, s.NUMA)
	sockets := max(1, s.Sockets)
	sp := &engine.Spec{Resources: []string{gpu, vf}}
	for n := range numa {
		sp.NUMA = append(sp.NUMA, engine.NUMASpec{ID: n, Socket: n * sockets / numa})
	}
	places := s.Switches
	groups := places
	if places == 0 {
		groups = numa
	}
	at := make([]int, groups)
	numaOf := make([]int, groups)
	for g := range groups {
		numaOf[g] = g * numa / groups
		sp.Places = append(sp.Places, engine.PlaceSpec{Name: fmt.Sprintf("pci%04d", g), Parent: -1})
		at[g] = len(sp.Places) - 1
		if s.Switches > 0 {
			sp.Places = append(sp.Places, engine.PlaceSpec{Name: fmt.Sprintf("switch%d", g), Parent: at[g]})
			at[g] = len(sp.Places) - 1
		}
	}
	var ids []string
	for i := range gpus {
		g := i * groups / gpus
		place := at[g]
		if s.Switches == 0 {
			sp.Places = append(sp.Places, engine.PlaceSpec{Name: fmt.Sprintf("root-gpu%d", i), Parent: -1})
			place = len(sp.Places) - 1
		}
		id := fmt.Sprintf("0000:%02x:00.0", i)
		ids = append(ids, id)
		sp.Units = append(sp.Units, engine.UnitSpec{ID: id, Place: place, NUMA: numaOf[g], Ready: true})
	}
	for g := range groups {
		for v := range s.VFsPerSwitch {
			sp.Units = append(sp.Units, engine.UnitSpec{
				ID: fmt.Sprintf("0001:%02x:%02x.%d", g, v/8, v%8), Place: at[g], Resource: 1, NUMA: numaOf[g], PF: fmt.Sprint(g, v/8), Ready: true,
			})
		}
	}
	for _, size := range s.Partitions {
		for first := 0; size > 0 && first+size <= gpus; first += size {
			sp.Fabric = append(sp.Fabric, ids[first:first+size])
		}
	}
	return sp
}

// podFor turns a row into a pod, with its wish drawn.
func (o *overlay) podFor(r *rand.Rand, row *podRow) (*pod, error) {
	p := &pod{row: row, gpus: row.gpus}
	if p.gpus == 1 && row.gpuMilli < 1000 && o.Fractional == "drop" {
		return nil, nil
	}
	p.need = engine.Resources{MilliCPU: row.milliCPU, Memory: row.memoryMiB << 20}
	if p.gpus == 0 {
		return p, nil
	}
	p.level = topology.Other
	for _, w := range o.Wishes {
		if p.gpus < w.MinGPUs || (w.MaxGPUs > 0 && p.gpus > w.MaxGPUs) || r.Float64() >= w.Share {
			continue
		}
		p.vfs = w.VFsPerGPU * p.gpus
		if w.Alignment != "" {
			a, err := v1alpha1.ParseAlignment(w.Alignment)
			if err != nil {
				return nil, err
			}
			p.level, p.required = a.Level, a.Required
		}
		break
	}
	return p, nil
}
