package hostcmd

import (
	"fmt"
	"strings"

	"github.com/jaypipes/pcidb"
	"github.com/kubevfio/kubevfio/topology"
)

// namer finds product names; the zero value knows classes only.
type namer struct{ db *pcidb.PCIDB }

// productNames reads the machine's pci.ids. Without one, as in a container from
// scratch, identities are printed instead of names.
func productNames() namer {
	db, err := pcidb.New()
	if err != nil {
		return namer{}
	}
	return namer{db}
}

// product is the name of a function's model, its identity when unknown.
func (n namer) product(f *topology.Function) string {
	id := fmt.Sprintf("%04x:%04x", f.Vendor, f.Device)
	if n.db == nil {
		return id
	}
	if p := n.db.Products[fmt.Sprintf("%04x%04x", f.Vendor, f.Device)]; p != nil {
		name := p.Name
		if i, j := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']'); i >= 0 && j > i {
			name = name[i+1 : j]
		}
		return name + " " + id
	}
	if v := n.db.Vendors[fmt.Sprintf("%04x", f.Vendor)]; v != nil {
		return v.Name + " " + id
	}
	return id
}

// className is the class in a word.
func className(f *topology.Function) string {
	for _, c := range []struct {
		prefix uint32
		shift  uint
		name   string
	}{
		{0x0108, 8, "NVMe"}, {0x0207, 8, "InfiniBand"}, {0x0300, 8, "VGA"}, {0x0302, 8, "3D"}, {0x0403, 8, "audio"},
		{0x0600, 8, "host bridge"}, {0x0601, 8, "ISA bridge"}, {0x0604, 8, "bridge"}, {0x0680, 8, "fabric"}, {0x0c03, 8, "USB"}, {0x0c80, 8, "UCSI"},
		{0x01, 16, "storage"}, {0x02, 16, "network"}, {0x03, 16, "display"}, {0x04, 16, "multimedia"}, {0x06, 16, "bridge"},
		{0x08, 16, "system"}, {0x0b, 16, "processor"}, {0x0c, 16, "serial bus"}, {0x10, 16, "crypto"}, {0x11, 16, "signal"}, {0x12, 16, "accelerator"},
	} {
		if f.Class>>c.shift == c.prefix {
			return c.name
		}
	}
	return "device"
}
