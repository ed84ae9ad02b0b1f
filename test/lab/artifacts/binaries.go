package artifacts

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// kubeVersion is the version that the Kubernetes binaries are stamped with; it names the k8s.io/kubernetes that go.mod pins.
const kubeVersion = "v1.36.3"

// ErrMissingPrograms means that the checkout lacks programs that the lab needs.
var ErrMissingPrograms = errors.New("the checkout lacks programs that the lab needs")

// program is one binary: its name in [Set.Bin] and its package.
type program struct{ name, pkg string }

// untraced leaves grpc's pages for debugging out of a program. They are HTML templates, which call methods by name, so that the
// linker has to keep every method of every type: a third of the program. The Makefile has the same tag.
const untraced = "grpcnotrace"

// programGroup is what one run of go build makes.
type programGroup struct {
	name     string
	module   string // folder of the module inside the checkout
	cgo      bool
	tags     string
	stamped  bool // with Kubernetes' version
	programs []program
}

// programGroups are the binaries, our own first: what does not compile shall say so before minutes have passed.
func programGroups() []programGroup {
	return []programGroup{
		{name: "own", module: ".", stamped: true, programs: []program{
			{"kubevfio-agent", "./cmd/kubevfio-agent"},
			{"kubevfio-write-attr", "./cmd/kubevfio-write-attr"},
			{"kubevfio-scheduler", "./cmd/kubevfio-scheduler"},
			{"kubevfio-controller", "./cmd/kubevfio-controller"},
			{"kubectl-vfio", "./cmd/kubectl-vfio"},
			{"lab-node", "./test/lab/node"},
			{"lab-guest", "./test/lab/guest"},
			{"lab-pause", "./test/lab/pause"},
		}},
		{name: "launcher", module: ".", cgo: true, tags: "libvirt_dlopen", programs: []program{
			{"kubevfio-launcher", "./cmd/kubevfio-launcher"},
		}},
		{name: "kube", module: ".", stamped: true, programs: []program{
			{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
			{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
			{"kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"},
			{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
			{"kubelet", "k8s.io/kubernetes/cmd/kubelet"},
			{"etcd", "./test/lab/etcd"},
		}},
		{name: "containerd", module: "test/lab/containerd", programs: []program{
			{"containerd", "github.com/containerd/containerd/v2/cmd/containerd"},
			{"containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
			{"ctr", "github.com/containerd/containerd/v2/cmd/ctr"},
		}},
	}
}

// versionFlags are the linker's flags that give Kubernetes' binaries their version; kubelet and the API server compare it.
func versionFlags(version string) string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	const pkg = "k8s.io/component-base/version"
	return fmt.Sprintf("-X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s -X %s.gitTreeState=clean",
		pkg, version, pkg, major, pkg, minor, pkg)
}

// buildArgs are the arguments of go for a group. No -trimpath, so that compiled packages are shared with go test; no version
// control stamp, so that a commit that does not touch a program leaves its image as it is.
func (g programGroup) buildArgs(outDir string, present []program) []string {
	flags, tags := "-s -w", untraced
	if g.stamped {
		flags += " " + versionFlags(kubeVersion)
	}
	if g.tags != "" {
		tags += "," + g.tags
	}
	args := []string{"go", "build", "-o", outDir + "/", "-buildvcs=false", "-ldflags", flags, "-tags", tags}
	for _, p := range present {
		args = append(args, p.pkg)
	}
	return args
}

// present splits a group's programs into those whose package exists and the names of the others.
func (g programGroup) present(checkout string) (have []program, missing []string) {
	for _, p := range g.programs {
		if rel, local := strings.CutPrefix(p.pkg, "./"); local {
			if files, err := filepath.Glob(filepath.Join(checkout, g.module, rel, "*.go")); err != nil || len(files) == 0 {
				missing = append(missing, p.name)
				continue
			}
		}
		have = append(have, p)
	}
	return have, missing
}

// buildBinaries runs go build for every group, on top of hard links to the newest binaries of the cache, so that go links
// only what is stale, and files the outcome under the hash of all build IDs.
func (b *builder) buildBinaries(ctx context.Context) error {
	work := filepath.Join(b.cache.dir, fmt.Sprintf("bin-work-%d-%d", os.Getpid(), time.Now().UnixNano()))
	lock, err := lockFile(ctx, work+".lock", syscall.LOCK_EX, true)
	if err != nil {
		return err
	}
	defer func() {
		_ = os.RemoveAll(work) // or the next build does
		_ = os.Remove(work + ".lock")
		_ = lock.Close()
	}()
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("make a folder for binaries: %w", err)
	}
	if last := b.cache.newest("bin"); last != "" {
		if _, err := (command{args: []string{"cp", "-al", last + "/.", work}}).run(ctx); err != nil {
			return fmt.Errorf("link the last binaries: %w", err)
		}
	}
	paths := map[string]string{} // name to path below work
	for _, g := range programGroups() {
		done := b.phase("build " + g.name)
		have, missing := g.present(b.opts.Checkout)
		if len(missing) > 0 {
			return fmt.Errorf("%w: %s", ErrMissingPrograms, strings.Join(missing, " "))
		}
		dir := filepath.Join(work, g.name)
		before := statAll(dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a folder for binaries: %w", err)
		}
		cgo := "CGO_ENABLED=0"
		if g.cgo {
			cgo = "CGO_ENABLED=1"
		}
		compile := command{args: g.buildArgs(dir, have), dir: filepath.Join(b.opts.Checkout, g.module), env: []string{cgo, "GOWORK=off"}}
		if _, err := compile.run(ctx); err != nil {
			return fmt.Errorf("build %s: %w", g.name, err)
		}
		for _, p := range have {
			paths[p.name] = filepath.Join(g.name, filepath.Base(p.pkg))
		}
		after := statAll(dir)
		// go marks what it found up to date with the time of today; who keys by time shall see that nothing changed.
		for _, p := range have {
			if err := os.Chtimes(filepath.Join(dir, filepath.Base(p.pkg)), epoch(), epoch()); err != nil {
				return fmt.Errorf("date a binary: %w", err)
			}
		}
		cached := true
		for _, p := range have {
			cached = cached && before[filepath.Base(p.pkg)] == after[filepath.Base(p.pkg)]
		}
		done(cached)
	}
	var ids []string
	for name, path := range paths {
		id, err := buildID(filepath.Join(work, path))
		if err != nil {
			return err
		}
		b.buildIDs[name] = id
		ids = append(ids, name+" "+path+" "+id)
	}
	sort.Strings(ids)
	entry, _, err := b.get(ctx, "bin", hashKey(ids...), func(dir string) error {
		_, err := (command{args: []string{"cp", "-al", work + "/.", dir}}).run(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for name, path := range paths {
		b.set.Bin[name] = filepath.Join(entry, path)
	}
	return nil
}

func inode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// statAll answers the inode of every file in a folder: go replaces the file when it links anew.
func statAll(dir string) map[string]uint64 {
	out := map[string]uint64{}
	files, err := os.ReadDir(dir)
	if err != nil {
		return out // absent at first
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			out[f.Name()] = inode(info)
		}
	}
	return out
}

// buildID answers Go's build ID of a binary, which ends with a hash of its content.
func buildID(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the build ID: %w", err)
	}
	defer func() { _ = f.Close() }()
	section := f.Section(".note.go.buildid")
	if section == nil {
		return "", fmt.Errorf("%s: %w: it has no Go build ID", path, fs.ErrInvalid)
	}
	note, err := section.Data()
	if err != nil {
		return "", fmt.Errorf("read the build ID of %s: %w", path, err)
	}
	// name size, description size, type, "Go\0\0", description.
	if len(note) < 16 {
		return "", fmt.Errorf("%s: %w: its build ID is cut off", path, fs.ErrInvalid)
	}
	size := int(f.ByteOrder.Uint32(note[4:8]))
	if size > len(note)-16 {
		return "", fmt.Errorf("%s: %w: its build ID is cut off", path, fs.ErrInvalid)
	}
	return string(note[16 : 16+size]), nil
}
