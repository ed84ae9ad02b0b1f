package artifacts

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// imageRef is the reference of one of the lab's images.
func imageRef(name string) string { return "localhost/kubevfio/" + name + ":dev" }

// epoch is the time of every file and image: the same content gives the same digest.
func epoch() time.Time { return time.Unix(0, 0).UTC() }

// layerInfo says what is in a layer's file, so that nobody reads it again to find out.
type layerInfo struct {
	Digest string `json:"digest"` // of the compressed bytes
	DiffID string `json:"diffID"` // of the tar archive
	Size   int64  `json:"size"`   // compressed, in bytes
}

const (
	layerFile     = "layer.tar.zst"
	layerInfoFile = "layer.json"
)

// packLayer writes the layer of a tree into dir. Zstandard at its fastest: the whole packing takes seconds, and the images
// disk has half the size.
func packLayer(ctx context.Context, tree, dir string) error {
	tarPath := filepath.Join(dir, "layer.tar")
	defer func() { _ = os.Remove(tarPath) }()
	pack := command{args: []string{
		"tar", "--create", "--file", tarPath, "--directory", tree, "--sort=name", "--mtime=@0", "--numeric-owner", "--xattrs",
		"--xattrs-include=security.capability", "--exclude=./dev/*", ".",
	}}
	if _, err := pack.run(ctx); err != nil {
		return fmt.Errorf("pack an image layer: %w", err)
	}
	in, err := os.Open(tarPath)
	if err != nil {
		return fmt.Errorf("pack an image layer: %w", err)
	}
	defer in.Close()
	return writeLayer(in, dir)
}

// writeLayer compresses a tar archive into dir and writes what [layerInfo] says of it beside.
func writeLayer(archive io.Reader, dir string) error {
	out, err := os.Create(filepath.Join(dir, layerFile))
	if err != nil {
		return fmt.Errorf("write an image layer: %w", err)
	}
	defer out.Close()
	digest, diffID := sha256.New(), sha256.New()
	counter := &countWriter{w: io.MultiWriter(out, digest)}
	enc, err := zstd.NewWriter(counter, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("write an image layer: %w", err)
	}
	if _, err := io.Copy(io.MultiWriter(enc, diffID), archive); err != nil {
		return fmt.Errorf("write an image layer: %w", err)
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("write an image layer: %w", err)
	}
	info, err := json.Marshal(layerInfo{
		Digest: hex.EncodeToString(digest.Sum(nil)), DiffID: hex.EncodeToString(diffID.Sum(nil)), Size: counter.n,
	})
	if err != nil {
		return fmt.Errorf("write an image layer: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, layerInfoFile), info, 0o644)
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// storedLayer is a layer in a cache entry.
type storedLayer struct {
	dir  string
	info layerInfo
}

func openLayer(dir string) (v1.Layer, error) {
	data, err := os.ReadFile(filepath.Join(dir, layerInfoFile))
	if err != nil {
		return nil, fmt.Errorf("read an image layer: %w", err)
	}
	l := &storedLayer{dir: dir}
	if err := json.Unmarshal(data, &l.info); err != nil {
		return nil, fmt.Errorf("read an image layer: %w", err)
	}
	return l, nil
}

func (l *storedLayer) Digest() (v1.Hash, error) {
	return v1.Hash{Algorithm: "sha256", Hex: l.info.Digest}, nil
}
func (l *storedLayer) DiffID() (v1.Hash, error) {
	return v1.Hash{Algorithm: "sha256", Hex: l.info.DiffID}, nil
}
func (l *storedLayer) Size() (int64, error)                { return l.info.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return types.OCILayerZStd, nil }
func (l *storedLayer) Compressed() (io.ReadCloser, error) {
	return os.Open(filepath.Join(l.dir, layerFile))
}
func (l *storedLayer) Uncompressed() (io.ReadCloser, error) { return nil, errors.ErrUnsupported }

// layerOfFiles makes, or finds, the layer that has the given files: path in the image to path on the host, mode 0755, root's.
func (b *builder) layerOfFiles(ctx context.Context, key string, files map[string]string) (v1.Layer, error) {
	inputs := []string{"layer 1", key}
	for in := range files {
		inputs = append(inputs, in)
	}
	sort.Strings(inputs[2:])
	entry, _, err := b.get(ctx, "layer", hashKey(inputs...), func(dir string) error {
		pr, pw := io.Pipe()
		go func() { pw.CloseWithError(tarFiles(pw, files)) }()
		return writeLayer(pr, dir)
	})
	if err != nil {
		return nil, err
	}
	return openLayer(entry)
}

// tarFiles writes an archive of files with their parent folders, sorted.
func tarFiles(w io.Writer, files map[string]string) error {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	t := tar.NewWriter(w)
	dirs := map[string]bool{".": true}
	for _, name := range names {
		var parents []string
		for d := filepath.Dir(name); !dirs[d]; d = filepath.Dir(d) {
			parents = append(parents, d)
			dirs[d] = true
		}
		for i := len(parents) - 1; i >= 0; i-- {
			head := tar.Header{Typeflag: tar.TypeDir, Name: parents[i] + "/", Mode: 0o755, ModTime: epoch()}
			if err := t.WriteHeader(&head); err != nil {
				return fmt.Errorf("write an image layer: %w", err)
			}
		}
		if err := tarFile(t, name, files[name]); err != nil {
			return err
		}
	}
	return t.Close()
}

func tarFile(t *tar.Writer, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("write an image layer: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("write an image layer: %w", err)
	}
	head := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: info.Size(), ModTime: epoch()}
	if err := t.WriteHeader(&head); err != nil {
		return fmt.Errorf("write an image layer: %w", err)
	}
	if _, err := io.Copy(t, f); err != nil {
		return fmt.Errorf("write an image layer: %w", err)
	}
	return nil
}

// namedImage is an image with its short name.
type namedImage struct {
	name string
	v1.Image
}

// images puts the lab's images together.
func (b *builder) images(ctx context.Context) ([]namedImage, error) {
	base, err := openLayer(b.launcherLayer)
	if err != nil {
		return nil, err
	}
	specs := []struct {
		name, key string
		files     map[string]string
		base      []v1.Layer
		config    v1.Config
	}{
		{name: "pause", key: b.buildIDs["lab-pause"],
			files:  map[string]string{"pause": b.set.Bin["lab-pause"]},
			config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}},
		{name: "launcher", key: b.buildIDs["kubevfio-launcher"],
			files: map[string]string{"usr/bin/kubevfio-launcher": b.set.Bin["kubevfio-launcher"]},
			base:  []v1.Layer{base},
			config: v1.Config{
				Entrypoint: []string{"/usr/bin/kubevfio-launcher"}, User: "107:107", WorkingDir: "/",
				Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/var/lib/kubevfio"},
			}},
		{name: "guest", key: b.guest, files: map[string]string{
			"boot/vmlinuz": filepath.Join(b.guest, "boot/vmlinuz"),
			"boot/vmlinux": filepath.Join(b.guest, "boot/vmlinux"),
			"boot/initrd":  filepath.Join(b.guest, "boot/initrd"),
		}},
	}
	for _, name := range []string{"agent", "scheduler", "controller"} {
		bin := "kubevfio-" + name
		spec := specs[0]
		spec.name, spec.key = name, b.buildIDs[bin]
		spec.files = map[string]string{bin: b.set.Bin[bin]}
		if name == "agent" {
			const writer = "kubevfio-write-attr"
			spec.files[writer] = b.set.Bin[writer]
			spec.key += "+" + b.buildIDs[writer]
		}
		spec.config = v1.Config{Entrypoint: []string{"/" + bin}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}
		specs = append(specs, spec)
	}
	var out []namedImage
	for _, s := range specs {
		top, err := b.layerOfFiles(ctx, s.key, s.files)
		if err != nil {
			return nil, err
		}
		img, err := assemble(append(s.base, top), s.config)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", s.name, err)
		}
		out = append(out, namedImage{s.name, img})
	}
	return out, nil
}

// assemble makes an OCI image of layers.
func assemble(layers []v1.Layer, config v1.Config) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	file := &v1.ConfigFile{
		Architecture: "amd64", OS: "linux", Created: v1.Time{Time: epoch()}, Config: config,
		RootFS: v1.RootFS{Type: "layers"},
	}
	img, err := mutate.ConfigFile(img, file)
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		mt, err := l.MediaType()
		if err != nil {
			return nil, err
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: mt}); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// writeArchive writes an image as a tar archive of an OCI image layout, named for containerd.
func writeArchive(w io.Writer, ref string, img v1.Image) error {
	t := tar.NewWriter(w)
	manifest, err := img.RawManifest()
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1, Size: int64(len(manifest)), Digest: digest,
			Platform:    &v1.Platform{OS: "linux", Architecture: "amd64"},
			Annotations: map[string]string{"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": tagOf(ref)},
		}},
	})
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	configDigest, err := img.ConfigName()
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{blobName(digest), manifest},
		{blobName(configDigest), config},
	} {
		if err := tarBlob(t, f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
			return err
		}
	}
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	for _, l := range layers {
		if err := tarLayer(t, l); err != nil {
			return fmt.Errorf("image %s: %w", ref, err)
		}
	}
	return t.Close()
}

func tagOf(ref string) string { return ref[strings.LastIndex(ref, ":")+1:] }

func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

func tarLayer(t *tar.Writer, l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer r.Close()
	return tarBlob(t, blobName(digest), size, r)
}

func tarBlob(t *tar.Writer, name string, size int64, r io.Reader) error {
	head := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: epoch()}
	if err := t.WriteHeader(&head); err != nil {
		return fmt.Errorf("write an image archive: %w", err)
	}
	if _, err := io.Copy(t, r); err != nil {
		return fmt.Errorf("write an image archive: %w", err)
	}
	return nil
}
