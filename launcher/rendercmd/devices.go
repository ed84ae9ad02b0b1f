package rendercmd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/api/vmspec"
	"github.com/kubevfio/kubevfio/launcher/domain"
	"github.com/kubevfio/kubevfio/topology"
)

// devices reads NAME=VALUE[,VALUE…][,NAME=…]: NAME is the name of an entry of
// the spec, or a resource whose values go to its entries in their order. A value
// is the address of a unit's leader, mdev:UUID or usb:BUS:DEVICE.
func devices(args []string, spec *v1alpha1.VirtualMachineInstanceSpec, l *loaded) ([]domain.Device, error) {
	values := map[string][]string{}
	var names []string
	name := ""
	for _, token := range strings.FieldsFunc(strings.Join(args, ","), func(r rune) bool { return r == ',' }) {
		if n, v, ok := strings.Cut(token, "="); ok {
			name, token = strings.TrimSpace(n), v
			if _, had := values[name]; !had {
				names = append(names, name)
			}
		}
		if name == "" {
			return nil, fmt.Errorf("--devices: %q: want NAME=ADDRESS", token)
		}
		values[name] = append(values[name], strings.TrimSpace(token))
	}
	requests := vmspec.Requests(spec)
	var out []domain.Device
	for _, n := range names {
		var entries []string
		for _, r := range requests {
			if r.Name == n {
				entries = []string{n}
				break
			}
			if r.Resource == n {
				entries = append(entries, r.Name)
			}
		}
		if len(entries) == 0 {
			return nil, fmt.Errorf("--devices: %q is neither the name of an entry nor a resource in the spec", n)
		}
		if len(entries) != len(values[n]) {
			return nil, fmt.Errorf("--devices: %q has %d values for %d entries of the spec", n, len(values[n]), len(entries))
		}
		for i, v := range values[n] {
			d, err := device(entries[i], v, l)
			if err != nil {
				return nil, fmt.Errorf("--devices: %s: %w", n, err)
			}
			out = append(out, d)
		}
	}
	return out, nil
}

func device(entry, value string, l *loaded) (domain.Device, error) {
	d := domain.Device{Name: entry}
	if uuid, ok := strings.CutPrefix(value, "mdev:"); ok {
		d.Mdev = uuid
		return d, nil
	}
	if usb, ok := strings.CutPrefix(value, "usb:"); ok {
		d.USB = usb
		return d, nil
	}
	a, err := topology.ParseAddress(value)
	if err != nil {
		return d, err
	}
	if members, ok := l.units[a]; ok {
		d.Members = members
		return d, nil
	}
	for leader, members := range l.units {
		if slices.Contains(members, a) {
			return d, fmt.Errorf("%s is part of the isolation unit %s: name that", a, leader)
		}
	}
	// Let Build say that the host does not have it.
	d.Members = []topology.Address{a}
	return d, nil
}
