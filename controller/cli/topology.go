package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/hardware"
	"github.com/kubevfio/kubevfio/topology/draw"
)

func (s *session) topology() *cobra.Command {
	var svg string
	c := &cobra.Command{
		Use:   "topology node|vmi NAME",
		Short: "Draw a node's sockets, NUMA nodes, root complexes and devices, or those of an instance",
		Example: `  kubectl vfio topology node gpu-01
  kubectl vfio topology node gpu-01 --svg gpu-01.svg
  kubectl vfio topology vmi trainer`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := s.cluster()
			if err != nil {
				return err
			}
			box, err := s.boxes(cmd.Context(), cl, args[0], args[1])
			if err != nil {
				return err
			}
			switch {
			case svg == "-":
				return draw.SVG(s.out, box)
			case svg != "":
				if err := writeFile(svg, func(w io.Writer) error { return draw.SVG(w, box) }); err != nil {
					return err
				}
				_, err := fmt.Fprintf(s.out, "%s %s: drawn to %s\n", args[0], args[1], svg)
				return err
			case s.output == "json":
				return s.json(box)
			}
			return draw.Text(s.out, box)
		},
	}
	c.Flags().StringVar(&svg, "svg", "", `write a picture to this file; "-" is standard output`)
	return c
}

// boxes draws a node, or the part of it that an instance has.
func (s *session) boxes(ctx context.Context, cl *cluster, kind, name string) (*draw.Box, error) {
	switch kind {
	case "node", "nodes", "no":
		inv, err := cl.inventory(ctx, name)
		if err != nil {
			return nil, err
		}
		held, partial, err := cl.holders(ctx)
		if err != nil {
			return nil, err
		}
		s.note(partial)
		return hardware.Boxes(inv, hardware.Units(inv, held), true), nil
	case "vmi", "kvmi", "vm", "kvm":
	default:
		return nil, fmt.Errorf("%w: %q: want node or vmi", ErrUsage, kind)
	}
	var vmi v1alpha1.VirtualMachineInstance
	if err := cl.client.Get(ctx, client.ObjectKey{Namespace: cl.namespace, Name: name}, &vmi); err != nil {
		return nil, err
	}
	if vmi.Status.NodeName == "" {
		return nil, fmt.Errorf("%s is on no node yet: kubectl vfio explain vmi %s", name, name)
	}
	inv, err := cl.inventory(ctx, vmi.Status.NodeName)
	if err != nil {
		return nil, err
	}
	return instanceBoxes(&vmi, inv), nil
}

// instanceBoxes draws what an instance's own status says that it has: no right to see
// pods is needed.
func instanceBoxes(vmi *v1alpha1.VirtualMachineInstance, inv *v1alpha1.NodeInventory) *draw.Box {
	held := hardware.Holders{inv.Name: {}}
	names := map[string]string{}
	for _, d := range vmi.Status.Devices {
		if d.Address != "" {
			held[inv.Name][d.Address] = hardware.Holder{Namespace: vmi.Namespace, Pod: vmi.Status.PodName, Instance: vmi.Name, UID: string(vmi.Status.PodUID)}
			names[d.Address] = d.Name
		}
	}
	var own []hardware.Unit
	for _, u := range hardware.Units(inv, held) {
		if u.Holder != nil {
			own = append(own, u)
		}
	}
	box := hardware.Boxes(inv, own, false)
	box.Title = fmt.Sprintf("vmi %s/%s on node %s", vmi.Namespace, vmi.Name, inv.Name)
	box.Lines = []string{"no devices"}
	if sum := vmi.Status.DeviceSummary; sum != nil {
		box.Lines = []string{fmt.Sprintf("devices %s, alignment reached: %s", sum.Devices, cmp.Or(sum.Alignment, "one device"))}
	}
	box.Walk(func(b *draw.Box) {
		// By the name that the owner gave, for the picture has few devices.
		if n := names[b.Ref]; n != "" {
			b.Lines = append([]string{n}, b.Lines...)
		}
	})
	return box
}

// writeFile leaves no half-written file behind.
func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	err = write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}
