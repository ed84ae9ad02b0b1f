package host

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

func FuzzParseList(f *testing.F) {
	for _, s := range []string{"", "0", "0-3,8,10-11", "3-1", "1,1", "0-99999999", "a", "-1", "0-\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ids, err := ParseList(s)
		if err != nil {
			if !errors.Is(err, ErrParse) {
				t.Errorf("error without class: %v", err)
			}
			return
		}
		again, err := ParseList(FormatList(ids))
		if err != nil || !slices.Equal(ids, again) {
			t.Errorf("%q: %v, then %v (%v)", s, ids, again, err)
		}
	})
}

func FuzzParseMask(f *testing.F) {
	for _, s := range []string{"", "f", "00000000,0000000f", "zz", "fffffffff", "80000000,00000000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ids, err := parseMask(s)
		if err == nil && (!slices.IsSorted(ids) || len(ids) > 32*(strings.Count(s, ",")+1)) {
			t.Errorf("%q: %v", s, ids)
		}
	})
}

func FuzzParseLink(f *testing.F) {
	for _, s := range []string{"16.0 GT/s PCIe\n", "2.5 GT/s", "Unknown\n", "NaN", "Inf", "-1", "255", "16", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if v := parseSpeed(b); v < 0 || v > 1e9 {
			t.Errorf("speed of %q is %d MT/s", b, v)
		}
		if v := parseWidth(b); v < 0 || v >= 255 {
			t.Errorf("width of %q is %d", b, v)
		}
	})
}

func FuzzParseNodeMeminfo(f *testing.F) {
	f.Add([]byte("Node 0 MemTotal:       131841340 kB\nNode 0 MemFree:        1 kB\n"))
	f.Add([]byte("MemTotal:\nMemTotal: -1 kB\nMemFree: 99999999999999999999 kB"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if total, free := parseNodeMeminfo(b); total%1024 != 0 || free%1024 != 0 {
			t.Errorf("%q: %d and %d bytes are no kilobytes", b, total, free)
		}
	})
}

func FuzzParseResource(f *testing.F) {
	f.Add([]byte("0x00000000fe000000 0x00000000feffffff 0x0000000000040200\n0x0 0x0 0x0\n"))
	f.Add([]byte("0x0 0xffffffffffffffff 0x200\n"))
	f.Add([]byte("1 2 3\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		bars, _, err := parseResource(b)
		if err != nil && !errors.Is(err, ErrParse) {
			t.Errorf("error without class: %v", err)
		}
		for i, x := range bars {
			if x.Index < 0 || x.Index > 5 || i > 0 && bars[i-1].Index >= x.Index {
				t.Errorf("BARs %v", bars)
			}
		}
	})
}

func FuzzParseUevent(f *testing.F) {
	f.Add([]byte("DRIVER=nvidia\nPCI_CLASS=30200\nPCI_ID=10DE:25B6\nPCI_SUBSYS_ID=10DE:157E\nMODALIAS=pci:v000010DE\n"))
	f.Add([]byte("PCI_ID=:\nPCI_CLASS=\n=\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id := parseUevent(b); id.class > 0xffffff {
			t.Errorf("class %x", id.class)
		}
	})
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add([]byte("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"))
	f.Add([]byte("1 2 3:4 - - - -\n\\\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range parseMountinfo(b) {
			if m.point == "" || !strings.Contains(m.dev, ":") {
				t.Errorf("mount %+v", m)
			}
		}
	})
}

func FuzzRoutes(f *testing.F) {
	f.Add([]byte("Iface\neth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"))
	f.Add([]byte(strings.Repeat("0", 32) + " 00 x 00 x x x x x eth0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, r := range parseRoutes(b) {
			if r.dev == "" || r.dev == "lo" {
				t.Errorf("route %+v", r)
			}
		}
		for _, d := range append(defaultRoutes6(b), globalAddresses6(b)...) {
			if d == "" || d == "lo" {
				t.Errorf("device %q", d)
			}
		}
	})
}

func FuzzParseVariants(f *testing.F) {
	f.Add([]byte("alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci\n"), "pci:v000015B3d0000101Esv1sd1bc1sc1i1")
	f.Add([]byte("alias vfio_pci:[ x\n"), "pci:[")
	f.Fuzz(func(t *testing.T, b []byte, modalias string) {
		if ParseVariants(b).Best(modalias) == "" {
			t.Error("no driver at all")
		}
	})
}

// FuzzReadArchive: whatever the archive, the reader ends and stays inside.
func FuzzReadArchive(f *testing.F) {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeSymlink, Name: "x/sys/bus/pci/devices/0000:00:01.0", Linkname: "/sys/devices/pci0000:00/0000:00:01.0"},
		{Typeflag: tar.TypeSymlink, Name: "x/sys/devices/loop", Linkname: "loop"},
		{Typeflag: tar.TypeReg, Name: "x/sys/devices/pci0000:00/0000:00:01.0/vendor", Size: 2},
	} {
		if err := tw.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := tw.Write([]byte("1\n")); err != nil {
				f.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := ReadArchive(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrArchive) {
				t.Errorf("error without class: %v", err)
			}
			return
		}
		if _, err := Read(context.Background(), tree); err != nil && !errors.Is(err, ErrNoHost) {
			t.Error(err)
		}
		if _, err := fs.ReadFile(tree, "../x"); err == nil {
			t.Error("a name led out of the tree")
		}
	})
}
