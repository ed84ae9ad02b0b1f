package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// storeVersion is raised when the code here changes what comes out of the same images.
const storeVersion = "2"

// imagesDisk makes the disk with containerd's store. A work store is kept beside the entries and brought up to date image by
// image by a real containerd in namespaces of its own; the disk is made of it.
func (b *builder) imagesDisk(ctx context.Context) error {
	done := b.phase("images")
	images, err := b.images(ctx)
	if err != nil {
		return err
	}
	want := map[string]string{}
	var inputs []string
	for _, img := range images {
		digest, err := img.Digest()
		if err != nil {
			return fmt.Errorf("image %s: %w", img.name, err)
		}
		id, err := img.ConfigName()
		if err != nil {
			return fmt.Errorf("image %s: %w", img.name, err)
		}
		want[imageRef(img.name)] = digest.String()
		want[id.String()] = digest.String()
		inputs = append(inputs, imageRef(img.name)+"@"+digest.String())
	}
	sort.Strings(inputs)
	pins, err := os.ReadFile(filepath.Join(b.opts.Checkout, "test/lab/containerd/go.sum"))
	if err != nil {
		return fmt.Errorf("read containerd's version: %w", err)
	}
	version := hashKey("store "+storeVersion, string(pins))
	inputs = append(inputs, version)
	entry, cached, err := b.get(ctx, "images-disk", hashKey(inputs...), func(dir string) error {
		lock, err := lockFile(ctx, filepath.Join(b.cache.dir, "store.lock"), syscall.LOCK_EX, true)
		if err != nil {
			return err
		}
		defer lock.Close()
		work := filepath.Join(b.cache.dir, "store-"+version)
		if err := b.dropOldStores(work); err != nil {
			return err
		}
		if err := b.updateStore(ctx, work, images, want); err != nil {
			// It may be the store that is broken, by a power failure for example: once more from nothing.
			if ctx.Err() != nil {
				return err
			}
			b.progress("artifacts: making the image store anew: %v", err)
			if err := os.RemoveAll(work); err != nil {
				return fmt.Errorf("remove the image store: %w", err)
			}
			if err := b.updateStore(ctx, work, images, want); err != nil {
				return err
			}
		}
		return makeExt4(ctx, filepath.Join(work, "root"), filepath.Join(dir, "images.ext4"), "images", 8<<30)
	})
	if err != nil {
		return err
	}
	b.set.ImagesDisk = filepath.Join(entry, "images.ext4")
	done(cached)
	return nil
}

// dropOldStores removes the stores that other versions of containerd made.
func (b *builder) dropOldStores(keep string) error {
	stores, err := filepath.Glob(filepath.Join(b.cache.dir, "store-*"))
	if err != nil {
		return fmt.Errorf("list the image stores: %w", err)
	}
	for _, s := range stores {
		if s != keep {
			if err := os.RemoveAll(s); err != nil {
				return fmt.Errorf("remove an old image store: %w", err)
			}
		}
	}
	return nil
}

// containerdConfig configures a containerd that only imports images.
func containerdConfig(root, state string) string {
	return fmt.Sprintf(`version = 3
root = %q
state = %q
disabled_plugins = [
  "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, root, state, filepath.Join(state, "c.sock"), filepath.Join(state, "t.sock"))
}

// updateStore makes the store's images those of want.
func (b *builder) updateStore(ctx context.Context, work string, images []namedImage, want map[string]string) error {
	root := filepath.Join(work, "root")
	if err := os.MkdirAll(root, 0o711); err != nil {
		return fmt.Errorf("make the image store: %w", err)
	}
	// Socket paths are limited to 108 bytes, and a cache's path may be long.
	state, err := os.MkdirTemp("", "kubevfio-ctrd-")
	if err != nil {
		return fmt.Errorf("make the image store: %w", err)
	}
	defer func() { _ = os.RemoveAll(state) }()
	config := filepath.Join(state, "config.toml")
	if err := os.WriteFile(config, []byte(containerdConfig(root, state)), 0o644); err != nil {
		return fmt.Errorf("make the image store: %w", err)
	}

	daemonCtx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		out, err := command{args: []string{b.set.Bin["containerd"], "--config", config, "--log-level", "warn"}, isolated: true}.run(daemonCtx)
		if daemonCtx.Err() == nil {
			err = fmt.Errorf("containerd ended: %w\n%s", errors.Join(err), tail(out, 20))
		}
		ended <- err
	}()
	s := &store{ctr: []string{b.set.Bin["ctr"], "--address", filepath.Join(state, "c.sock"), "--namespace", "k8s.io"}}
	err = s.waitReady(ctx, ended)
	if err == nil {
		err = s.sync(ctx, b, images, want)
	}
	// Killed, not stopped: containerd's database (bbolt) and content store are made for that, and after the last answer nothing
	// is under way. What it wrote must be on the disk's image, not on the disk, so no sync is needed either.
	stop()
	if daemonErr := <-ended; err != nil && daemonErr != nil && !errors.Is(daemonErr, context.Canceled) {
		err = errors.Join(err, daemonErr)
	}
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	return nil
}

// store is a running containerd.
type store struct{ ctr []string }

func (s *store) run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	return command{args: append(append([]string{}, s.ctr...), args...), stdin: stdin}.run(ctx)
}

// waitReady waits until containerd answers.
func (s *store) waitReady(ctx context.Context, ended chan error) error {
	for deadline := time.Now().Add(60 * time.Second); ; {
		_, err := s.run(ctx, nil, "version")
		if err == nil {
			return nil
		}
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("containerd does not answer: %w", err)
		}
	}
}

// sync imports what is missing or changed, and removes what is not wanted.
func (s *store) sync(ctx context.Context, b *builder, images []namedImage, want map[string]string) error {
	listed, err := s.run(ctx, nil, "images", "ls")
	if err != nil {
		return err
	}
	have := parseImages(listed)
	for ref := range have {
		if want[ref] == "" {
			if _, err := s.run(ctx, nil, "images", "rm", ref); err != nil {
				return err
			}
		}
	}
	for _, img := range images {
		ref := imageRef(img.name)
		if have[ref] == want[ref] {
			continue
		}
		start := time.Now()
		if err := s.importImage(ctx, ref, img); err != nil {
			return err
		}
		b.progress("artifacts:   image %-12s %6.1f s", img.name, time.Since(start).Seconds())
	}
	// Garbage goes after the imports, so that what old and new images share (Debian) stays where it is.
	if _, err := s.run(ctx, nil, "content", "prune", "references"); err != nil {
		return err
	}
	listed, err = s.run(ctx, nil, "images", "ls")
	if err != nil {
		return err
	}
	have = parseImages(listed)
	for ref, digest := range want {
		if have[ref] != digest {
			return fmt.Errorf("after its import image %s has digest %q instead of %s", ref, have[ref], digest)
		}
	}
	return nil
}

// importImage imports and unpacks one image, with the labels that containerd's CRI part gives to its images.
func (s *store) importImage(ctx context.Context, ref string, img v1.Image) error {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(writeArchive(pw, ref, img)) }()
	_, err := s.run(ctx, pr, "images", "import", "--platform", "linux/amd64", "-")
	_ = pr.Close()
	if err != nil {
		return fmt.Errorf("import %s: %w", ref, err)
	}
	labels := []string{"io.cri-containerd.image=managed"}
	if strings.Contains(ref, "/pause:") {
		labels = append(labels, "io.cri-containerd.pinned=pinned")
	}
	if _, err := s.run(ctx, nil, append([]string{"images", "label", ref}, labels...)...); err != nil {
		return fmt.Errorf("label %s: %w", ref, err)
	}
	// CRI also keeps every image under its ID, the digest of its configuration, and mounts image volumes by that.
	id, err := img.ConfigName()
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	if _, err := s.run(ctx, nil, "images", "tag", "--local", "--force", ref, id.String()); err != nil {
		return fmt.Errorf("tag %s with its ID: %w", ref, err)
	}
	return nil
}

// parseImages reads the table of `ctr images ls`: reference to digest.
func parseImages(table string) map[string]string {
	out := map[string]string{}
	for _, line := range strings.Split(table, "\n") {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		for _, word := range f[1:] {
			if strings.HasPrefix(word, "sha256:") {
				out[f[0]] = word
			}
		}
	}
	return out
}
