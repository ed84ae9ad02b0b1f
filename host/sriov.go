package host

import (
	"fmt"
	"path"
	"slices"
	"strconv"

	"github.com/kubevfio/kubevfio/topology"
)

// sriov reads a physical function's virtual functions.
func (w *worker) sriov(d handle, l *listing, f *topology.Function) error {
	if f.SRIOV = l.attrs&(hasTotalVFs|hasNumVFs) != 0; f.SRIOV {
		f.TotalVFs, f.NumVFs = -1, -1 // until the host says
	}
	for _, x := range []struct {
		bit  attr
		file string
		to   *int
	}{
		{hasTotalVFs, "sriov_totalvfs", &f.TotalVFs},
		{hasNumVFs, "sriov_numvfs", &f.NumVFs},
	} {
		if l.attrs&x.bit == 0 {
			continue
		}
		if b, err := d.read(x.file, w.buf); err == nil {
			if n, err := intField(b); err == nil && n >= 0 {
				*x.to = n
			}
		}
	}
	if len(l.virtfns) == 0 {
		return nil
	}
	slices.Sort(l.virtfns)
	var scratch [24]byte
	vfs := make([]topology.Address, 0, len(l.virtfns))
	for i, n := range l.virtfns {
		if n != i {
			break // VFs are being made or taken away: a rescan follows
		}
		t := linkOrEmpty(d, string(strconv.AppendInt(append(scratch[:0], "virtfn"...), int64(n), 10)))
		if t == "" {
			break // as above
		}
		a, err := topology.ParseAddress(path.Base(t))
		if err != nil {
			return fmt.Errorf("virtfn%d: %w", n, err)
		}
		vfs = append(vfs, a)
	}
	f.VFs = vfs
	return nil
}

// linkOrEmpty is the target of a link, empty when the link has gone since it
// was listed.
func linkOrEmpty(d handle, name string) string {
	t, err := d.link(name)
	if err != nil {
		return ""
	}
	return t
}
