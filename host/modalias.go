package host

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Variants knows the VFIO variant drivers of the running kernel, by the lines
// "alias vfio_pci:v… module" of its modules.alias.
type Variants struct {
	aliases []alias
}

// alias is a pattern of device IDs and the module that drives them.
type alias struct {
	pattern, module string
	wild            int
}

// genericVFIO is the driver for functions without a variant driver. Its module
// is spelled with an underscore.
const genericVFIO = "vfio-pci"

// vfioAlias is the prefix of aliases that only driver_override may use
// (PCI_DRIVER_OVERRIDE_DEVICE_VFIO in the kernel).
const vfioAlias = "vfio_pci:"

// ReadVariants reads the kernel's aliases: the release from proc/ and
// lib/modules/RELEASE/modules.alias from the tree of the host's root.
func ReadVariants(proc, root FS) (*Variants, error) {
	b, err := fs.ReadFile(proc, "proc/sys/kernel/osrelease")
	if err != nil {
		return nil, fmt.Errorf("read kernel release: %w", err)
	}
	name := path.Join("lib/modules", line(b), "modules.alias")
	if b, err = fs.ReadFile(root, name); err != nil {
		return nil, fmt.Errorf("read module aliases: %w", err)
	}
	return ParseVariants(b), nil
}

// ParseVariants reads the text of a modules.alias file; other lines are left
// out.
func ParseVariants(b []byte) *Variants {
	v := &Variants{}
	for len(b) > 0 {
		var l []byte
		l, b = cut(b)
		if !bytes.Contains(l, []byte(vfioAlias)) {
			continue
		}
		w := strings.Fields(string(l))
		if len(w) != 3 || w[0] != "alias" || !strings.HasPrefix(w[1], vfioAlias) {
			continue
		}
		v.aliases = append(v.aliases, alias{pattern: w[1], module: w[2], wild: strings.Count(w[1], "*")})
	}
	// The fewest wildcards first: the most specific alias wins.
	slices.SortStableFunc(v.aliases, func(a, b alias) int {
		if a.wild != b.wild {
			return a.wild - b.wild
		}
		return strings.Compare(a.module, b.module)
	})
	return v
}

// Best is the module that fits a function's modalias best: a variant driver's,
// else "vfio-pci".
func (v *Variants) Best(modalias string) string {
	id, ok := strings.CutPrefix(modalias, "pci:")
	if ok && v != nil {
		for _, a := range v.aliases {
			if hit, err := path.Match(a.pattern, vfioAlias+id); err == nil && hit {
				if sameDriver(a.module, genericVFIO) {
					return genericVFIO
				}
				return a.module
			}
		}
	}
	return genericVFIO
}
