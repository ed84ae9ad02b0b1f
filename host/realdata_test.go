package host_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kubevfio/kubevfio/host"
	"github.com/kubevfio/kubevfio/host/snapshot"
	"github.com/kubevfio/kubevfio/topology"
)

// naive is what the second reader says of a function: text as the files have
// it, "" where there is no such file.
type naive struct {
	Vendor, Device, Class, Driver, Group, NUMA, PhysFn, TotalVFs, NumVFs, Root string
}

// rootName is a host bridge's directory.
var rootName = regexp.MustCompile(`^pci[0-9a-f]{4,8}:[0-9a-f]{2}$`)

// readNaive is a second reader, as simple as can be and sharing nothing with
// the first: whole files, links followed by the operating system.
func readNaive(t *testing.T, dir string) map[string]naive {
	t.Helper()
	out := map[string]naive{}
	bus := filepath.Join(dir, "sys/bus/pci/devices")
	entries, err := os.ReadDir(bus)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		d := filepath.Join(bus, e.Name())
		text := func(file string) string {
			b, err := os.ReadFile(filepath.Join(d, file))
			if err != nil {
				return ""
			}
			return strings.TrimSpace(string(b))
		}
		base := func(link string) string {
			l, err := os.Readlink(filepath.Join(d, link))
			if err != nil {
				return ""
			}
			return filepath.Base(l)
		}
		n := naive{
			Vendor: strings.TrimPrefix(text("vendor"), "0x"), Device: strings.TrimPrefix(text("device"), "0x"), Class: strings.TrimPrefix(text("class"), "0x"),
			Driver: base("driver"), Group: base("iommu_group"), NUMA: text("numa_node"), PhysFn: base("physfn"),
			TotalVFs: text("sriov_totalvfs"), NumVFs: text("sriov_numvfs"),
		}
		if n.NUMA == "-1" {
			n.NUMA = ""
		}
		if real, err := filepath.EvalSymlinks(d); err == nil {
			for _, part := range strings.Split(real, "/") {
				if rootName.MatchString(part) {
					n.Root = part
				}
			}
		} else {
			continue // a link into nothing: no function
		}
		out[e.Name()] = n
	}
	return out
}

// asNaive puts our reading in the same words.
func asNaive(h *topology.Host) map[string]naive {
	out := map[string]naive{}
	for i := range h.Functions {
		f := &h.Functions[i]
		n := naive{
			Vendor: fmt.Sprintf("%04x", f.Vendor), Device: fmt.Sprintf("%04x", f.Device), Class: fmt.Sprintf("%06x", f.Class),
			Driver: f.Driver, Root: f.Root,
		}
		if f.IOMMUGroup >= 0 {
			n.Group = strconv.Itoa(f.IOMMUGroup)
		}
		if f.NUMA >= 0 {
			n.NUMA = strconv.Itoa(f.NUMA)
		}
		if f.PF != nil {
			n.PhysFn = f.PF.String()
		}
		if f.SRIOV && f.TotalVFs >= 0 {
			n.TotalVFs = strconv.Itoa(f.TotalVFs)
		}
		if f.SRIOV && f.NumVFs >= 0 {
			n.NumVFs = strconv.Itoa(f.NumVFs)
		}
		out[f.Address.String()] = n
	}
	return out
}

// TestRealMachines compares our reader with the naive one on captures of real
// servers, where REALDATA names a folder that has them.
func TestRealMachines(t *testing.T) {
	data := os.Getenv("REALDATA")
	if data == "" {
		t.Skip("REALDATA does not name a folder with captures")
	}
	var files []string
	for _, glob := range []string{"pci-snapshots/*/*", "pci-snapshots/*/*/*", "hwloc/linux/*.tar.bz2"} {
		m, err := filepath.Glob(filepath.Join(data, glob))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, m...)
	}
	tested := 0
	for _, file := range files {
		unpack := unpackerOf(file)
		if unpack == nil {
			continue
		}
		tested++
		t.Run(filepath.Base(file), func(t *testing.T) {
			dir := t.TempDir()
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			err = unpack(f, dir)
			if cerr := f.Close(); err != nil || cerr != nil {
				t.Fatal(err, cerr)
			}
			dir = topOf(t, dir)
			h := read(t, host.Dir(dir))
			want := readNaive(t, dir)
			if d := cmp.Diff(want, asNaive(h)); d != "" {
				t.Errorf("(-naive +ours):\n%s", d)
			}
			if len(want) == 0 || len(h.Skipped) > 0 {
				t.Errorf("%d functions, skipped %v", len(want), h.Skipped)
			}
			t.Logf("%d functions, %d units, %d NUMA nodes, %d CPUs", len(h.Functions), len(topology.Units(h)), len(h.NUMANodes), len(h.CPUs))
			checkUnits(t, h)
			checkSnapshot(t, h)
		})
	}
	if tested < 8 {
		t.Errorf("only %d captures below %s", tested, data)
	}
}

// checkUnits: every function that is no bridge is in one unit, with all of its
// group and nobody else.
func checkUnits(t *testing.T, h *topology.Host) {
	t.Helper()
	in := map[topology.Address]topology.Address{}
	for _, u := range topology.Units(h) {
		for _, m := range u.Members {
			if _, dup := in[m]; dup {
				t.Errorf("%s is in two units", m)
			}
			in[m] = u.ID
			if h.Function(m).IOMMUGroup != u.Group {
				t.Errorf("%s of group %d is in the unit of group %d", m, h.Function(m).IOMMUGroup, u.Group)
			}
		}
	}
	for i := range h.Functions {
		if f := &h.Functions[i]; f.Transparent() == (in[f.Address] != topology.Address{} || f.Address == in[f.Address]) && f.Address != (topology.Address{}) {
			t.Errorf("%s (class %06x): bridge %v, in unit %v", f.Address, f.Class, f.Transparent(), in[f.Address])
		}
	}
}

// checkSnapshot: the anonymous archive says the same as the host.
func checkSnapshot(t *testing.T, h *topology.Host) {
	t.Helper()
	var b bytes.Buffer
	if err := snapshot.Write(&b, h); err != nil {
		t.Fatal(err)
	}
	tree, err := host.ReadArchive(&b)
	if err != nil {
		t.Fatal(err)
	}
	want := snapshot.Anonymous(h)
	want.Skipped = nil
	if d := cmp.Diff(want, read(t, tree)); d != "" {
		t.Errorf("snapshot (-host +snapshot):\n%s", d)
	}
}

// topOf is the folder that holds sys/: dir or the only folder in it.
func topOf(t *testing.T, dir string) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "sys")); err == nil {
		return dir
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatal("no sys/ in the capture", err)
	}
	return filepath.Join(dir, entries[0].Name())
}

func unpackerOf(file string) func(io.Reader, string) error {
	switch {
	case strings.HasSuffix(file, ".tar.gz"):
		return func(r io.Reader, dir string) error {
			z, err := gzip.NewReader(r)
			if err != nil {
				return err
			}
			return untar(z, dir)
		}
	case strings.HasSuffix(file, ".tar.bz2"):
		return func(r io.Reader, dir string) error { return untar(bzip2.NewReader(r), dir) }
	case strings.HasSuffix(file, ".umockdev"):
		return unmock
	case strings.HasSuffix(file, ".ttar"):
		return unttar
	}
	return nil
}

// put writes a file or a link with its parents.
func put(dir, name, content, target string) error {
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	if target != "" {
		return os.Symlink(target, p)
	}
	return os.WriteFile(p, []byte(content), 0o644)
}

func untar(r io.Reader, dir string) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			b, err := io.ReadAll(tr)
			if err != nil {
				return err
			}
			if err := put(dir, h.Name, string(b), ""); err != nil {
				return err
			}
		case tar.TypeSymlink:
			if err := put(dir, h.Name, "", h.Linkname); err != nil {
				return err
			}
		}
	}
}

// unmock lays out a umockdev dump: P: device, E: property, A: attribute, H:
// attribute in hexadecimal, L: link.
func unmock(r io.Reader, dir string) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<24)
	var device string
	var props []string
	flush := func() error {
		if device == "" {
			return nil
		}
		defer func() { device, props = "", nil }()
		sort.Strings(props)
		if err := put(dir, "sys"+device+"/uevent", strings.Join(props, "\n")+"\n", ""); err != nil {
			return err
		}
		for _, p := range props {
			sub, ok := strings.CutPrefix(p, "SUBSYSTEM=")
			if !ok {
				continue
			}
			name := filepath.Base(device)
			if sub == "pci" {
				return put(dir, "sys/bus/pci/devices/"+name, "", "../../.."+device)
			}
			return put(dir, "sys/class/"+sub+"/"+name, "", "../.."+device)
		}
		return nil
	}
	for s.Scan() {
		kind, rest, ok := strings.Cut(s.Text(), ": ")
		if !ok {
			continue
		}
		name, value, _ := strings.Cut(rest, "=")
		at := "sys" + device + "/" + name
		var err error
		switch kind {
		case "P":
			if err = flush(); err == nil {
				device = rest
			}
		case "E":
			props = append(props, rest)
		case "A":
			if name != "uevent" {
				err = put(dir, at, strings.NewReplacer(`\n`, "\n", `\\`, `\`).Replace(value), "")
			}
		case "H":
			var b []byte
			if b, err = hex.DecodeString(value); err == nil {
				err = put(dir, at, string(b), "")
			}
		case "L":
			err = put(dir, at, "", value)
		}
		if err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	return flush()
}

// unttar lays out the text archives of the procfs library.
func unttar(r io.Reader, dir string) error {
	s := bufio.NewScanner(r)
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), ": ")
		if key != "Path" || !s.Scan() {
			continue
		}
		name := value
		key, value, _ = strings.Cut(s.Text(), ": ")
		switch key {
		case "SymlinkTo":
			if err := put(dir, name, "", value); err != nil {
				return err
			}
		case "Lines":
			n, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			var lines []string
			for range n {
				s.Scan()
				lines = append(lines, s.Text())
			}
			if err := put(dir, name, strings.Join(slices.Concat(lines, []string{""}), "\n"), ""); err != nil {
				return err
			}
		}
	}
	return s.Err()
}

// TestSnapshotOfGenerated: nothing is lost, and nothing personal is kept.
func TestSnapshotOfGenerated(t *testing.T) {
	for name, m := range machines() {
		t.Run(name, func(t *testing.T) { checkSnapshot(t, read(t, m.Tree())) })
	}
	h := read(t, machines()["desktop"].Tree())
	h.Functions[0].Net = []string{"enx0011223344ff"}
	var b bytes.Buffer
	if err := snapshot.Write(&b, h); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{h.BootID, "0011223344ff", h.Function(addr("0000:09:00.0")).Mdevs[0]} {
		if secret == "" || bytes.Contains(raw, []byte(secret)) {
			t.Errorf("the snapshot holds %q", secret)
		}
	}
}
