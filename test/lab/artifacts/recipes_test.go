package artifacts

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestIsDebian(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"debian":     {"NAME=x\nID=debian\n", true},
		"derivative": {"ID=ubuntu\nID_LIKE=\"debian\"\n", true},
		"other":      {"ID=fedora\nHOME_URL=https://debian\n", false},
		"empty":      {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := isDebian(c.text); got != c.want {
				t.Errorf("isDebian = %t", got)
			}
		})
	}
}

func TestVersionFlags(t *testing.T) {
	got := versionFlags("v1.36.3")
	for _, want := range []string{"version.gitVersion=v1.36.3", "version.gitMajor=1 ", "version.gitMinor=36 "} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}

// TestKubeVersionIsTheOneOfGoMod keeps the stamp and the pin together.
func TestKubeVersionIsTheOneOfGoMod(t *testing.T) {
	mod, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "k8s.io/kubernetes "+kubeVersion+"\n") {
		t.Errorf("go.mod pins another k8s.io/kubernetes than %s", kubeVersion)
	}
}

func TestProgramsMissing(t *testing.T) {
	checkout := t.TempDir()
	if err := os.MkdirAll(filepath.Join(checkout, "cmd/a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(checkout, "cmd/a/main.go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	g := programGroup{module: ".", programs: []program{{"a", "./cmd/a"}, {"b", "./cmd/b"}, {"c", "example.com/c"}}}
	have, missing := g.present(checkout)
	if diff := cmp.Diff([]program{{"a", "./cmd/a"}, {"c", "example.com/c"}}, have, cmp.AllowUnexported(program{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"b"}, missing); diff != "" {
		t.Error(diff)
	}
}

func TestRecipeKey(t *testing.T) {
	base := recipe{name: "r", version: "1", packages: []string{"a", "b"}}
	for name, change := range map[string]func(*recipe){
		"version":  func(r *recipe) { r.version = "2" },
		"packages": func(r *recipe) { r.packages = []string{"a"} },
		"exclude":  func(r *recipe) { r.excludes = []string{"/x"} },
		"setup":    func(r *recipe) { r.setup = []string{"true"} },
		"finish":   func(r *recipe) { r.finish = []string{"true"} },
	} {
		t.Run(name, func(t *testing.T) {
			r := base
			change(&r)
			if r.key() == base.key() {
				t.Error("the key does not change")
			}
		})
	}
	if first, second := nodeRecipe().key(), nodeRecipe().key(); first != second {
		t.Errorf("the key is not stable: %s, %s", first, second)
	}
}

func TestModules(t *testing.T) {
	m := &moduleIndex{files: map[string]string{}, deps: map[string][]string{}, aliases: map[string][]string{}}
	if err := m.parseModulesDep(strings.NewReader(`kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/lib/crc16.ko.xz:
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/pvpanic/pvpanic-pci.ko:
garbage
`)); err != nil {
		t.Fatal(err)
	}
	if err := m.parseModulesAlias(strings.NewReader("# comment\nalias virtio:d00000001v* virtio_net\nalias fs-ext4 ext4\nalias broken\n")); err != nil {
		t.Fatal(err)
	}
	got := m.closure("virtio_pci", "ext4", "virtio_net", "pvpanic-pci", "ext4")
	want := []string{"crc16", "jbd2", "ext4", "failover", "net_failover", "virtio_net", "pvpanic_pci"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	wantManifest := "failover - \nvirtio_net net_failover,failover virtio:d00000001v*\n"
	if diff := cmp.Diff(wantManifest, m.manifest([]string{"failover", "virtio_net"})); diff != "" {
		t.Error(diff)
	}
}

func FuzzModulesDep(f *testing.F) {
	f.Add("a/b.ko: c/d.ko\n", "b")
	f.Add("a.ko: a.ko", "a")
	f.Fuzz(func(t *testing.T, text, name string) {
		m := &moduleIndex{files: map[string]string{}, deps: map[string][]string{}}
		if err := m.parseModulesDep(strings.NewReader(text)); err != nil {
			t.Skip(err)
		}
		for _, n := range m.closure(name) {
			if m.files[n] == "" {
				t.Errorf("module %q has no file", n)
			}
		}
	})
}

func TestTrimPCIIDs(t *testing.T) {
	got, err := trimPCIIDs(strings.NewReader(`# comment
0001  SafeNet
	0001  Thing
8086  Intel Corporation
	10ca  82576 Virtual Function
		8086 0001  Some card

C 02  Network controller
	00  Ethernet controller
		01  Interface
`), []string{"8086"})
	if err != nil {
		t.Fatal(err)
	}
	want := "8086  Intel Corporation\n\t10ca  82576 Virtual Function\nC 02  Network controller\n\t00  Ethernet controller\n\t\t01  Interface\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCPIO(t *testing.T) {
	var b bytes.Buffer
	c := newCPIO(&b)
	c.char("dev/console", 0o600, 5, 1)
	c.file("/init", 0o755, []byte("12345"))
	c.symlink("bin/sh", "busybox")
	c.file("bin/x", 0o644, nil)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	type entry struct {
		Name, Mode, Data, Device string
	}
	var got []entry
	for data := b.Bytes(); ; {
		if string(data[:6]) != "070701" {
			t.Fatalf("no header at %q", data[:16])
		}
		field := func(i int) string { return string(data[6+8*i : 14+8*i]) }
		number := func(i int) (n int) {
			for _, d := range field(i) {
				n = n<<4 + strings.IndexRune("0123456789abcdef", d)
			}
			return n
		}
		nameEnd := 110 + number(11)
		e := entry{Name: string(data[110 : nameEnd-1]), Mode: field(1), Device: field(9) + ":" + field(10)}
		start := (nameEnd + 3) &^ 3
		end := start + number(6)
		e.Data = string(data[start:end])
		if e.Name == "TRAILER!!!" {
			break
		}
		got = append(got, e)
		data = data[(end+3)&^3:]
	}
	none := "00000000:00000000"
	want := []entry{
		{"dev", "000041ed", "", none},
		{"dev/console", "00002180", "", "00000005:00000001"},
		{"init", "000081ed", "12345", none},
		{"bin", "000041ed", "", none},
		{"bin/sh", "0000a1ff", "busybox", none},
		{"bin/x", "000081a4", "", none},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if b.Len()%4 != 0 {
		t.Errorf("the archive has %d bytes, no multiple of 4", b.Len())
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestCPIOReportsWriteErrors(t *testing.T) {
	c := newCPIO(failingWriter{})
	c.file("f", 0o644, nil)
	if err := c.close(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("error is %v", err)
	}
}

// TestImageArchive writes an image twice and reads the archive: same bytes, right names and digests.
func TestImageArchive(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.WriteFile(bin, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &builder{cache: &cache{dir: dir}, set: &Set{}}
	archive := func() []byte {
		l, err := b.layerOfFiles(t.Context(), "id", map[string]string{"usr/bin/program": bin})
		if err != nil {
			t.Fatal(err)
		}
		img, err := assemble([]v1.Layer{l}, v1.Config{Entrypoint: []string{"/usr/bin/program"}})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := writeArchive(&out, imageRef("x"), img); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	first := archive()
	if err := os.RemoveAll(filepath.Join(dir, "layer")); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, archive()) {
		t.Error("the same files give another archive")
	}

	var index v1.IndexManifest
	blobs := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(first)); ; {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if head.Name == "index.json" {
			if err := json.Unmarshal(data, &index); err != nil {
				t.Fatal(err)
			}
		}
		blobs[head.Name] = data
	}
	desc := index.Manifests[0]
	if got := desc.Annotations["io.containerd.image.name"]; got != "localhost/kubevfio/x:dev" {
		t.Errorf("the image's name is %q", got)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(blobs[blobName(desc.Digest)], &manifest); err != nil {
		t.Fatal(err)
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(blobs[blobName(manifest.Config.Digest)], &config); err != nil {
		t.Fatal(err)
	}
	layer := blobs[blobName(manifest.Layers[0].Digest)]
	if hash, _, err := v1.SHA256(bytes.NewReader(layer)); err != nil || hash != manifest.Layers[0].Digest || int64(len(layer)) != manifest.Layers[0].Size {
		t.Errorf("layer has digest %v and %d bytes, the manifest says %v", hash, len(layer), manifest.Layers[0])
	}
	if len(config.RootFS.DiffIDs) != 1 || config.Created.Unix() != 0 {
		t.Errorf("config is %+v", config)
	}
}

func TestTarFilesHasParentFolders(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := tarFiles(&out, map[string]string{"a/b/c": file, "a/d": file, "e": file}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(&out); ; {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if head.Uid != 0 || head.Mode != 0o755 || head.ModTime.Unix() != 0 {
			t.Errorf("%s: uid %d, mode %o, time %v", head.Name, head.Uid, head.Mode, head.ModTime)
		}
		names = append(names, head.Name)
	}
	if diff := cmp.Diff([]string{"a/", "a/b/", "a/b/c", "a/d", "e"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestParseImages(t *testing.T) {
	got := parseImages(`REF                        TYPE                                       DIGEST        SIZE      PLATFORMS   LABELS
localhost/kubevfio/a:dev   application/vnd.oci.image.manifest.v1+json sha256:aaaa   1.1 MiB   linux/amd64 io.cri-containerd.image=managed
`)
	if diff := cmp.Diff(map[string]string{"localhost/kubevfio/a:dev": "sha256:aaaa"}, got); diff != "" {
		t.Error(diff)
	}
}
