package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// Environment variables that name ready binaries.
const (
	EnvAPIServer = "KUBEVFIO_KUBE_APISERVER"
	EnvEtcd      = "KUBEVFIO_ETCD"
)

// ErrNotReady is the class of errors about a server that did not do in time what
// was waited for.
var ErrNotReady = errors.New("api server not ready")

// Server is a running API server.
type Server struct {
	// Checkout is the root of this repository.
	Checkout string
	// Config is the configuration of a user of system:masters.
	Config *rest.Config
	// Scheme knows Kubernetes' types, CRDs and kubevfio.io.
	Scheme *runtime.Scheme
	// Admin is a client of that user.
	Admin client.Client

	env *envtest.Environment
	// certs is the folder of the front proxy's certificates, which the API server
	// reads again now and then.
	certs string
}

// Start starts etcd and kube-apiserver on free ports of the loopback address;
// flags are added to the API server's. Messages about slow steps go to progress.
func Start(progress io.Writer, flags map[string]string) (*Server, error) {
	log.SetLogger(klog.Background())
	checkout, err := checkoutRoot()
	if err != nil {
		return nil, err
	}
	assets, err := os.MkdirTemp("", "kubevfio-apiserver-")
	if err != nil {
		return nil, err
	}
	for _, b := range []struct{ name, env, pkg string }{
		{"kube-apiserver", EnvAPIServer, "k8s.io/kubernetes/cmd/kube-apiserver"},
		{"etcd", EnvEtcd, "./test/lab/etcd"},
	} {
		path := os.Getenv(b.env)
		if path == "" {
			if path, err = build(checkout, b.name, b.pkg, progress); err != nil {
				return nil, err
			}
		}
		if err := os.Symlink(path, filepath.Join(assets, b.name)); err != nil {
			return nil, err
		}
	}

	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensions.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	env := &envtest.Environment{
		BinaryAssetsDirectory:    assets,
		Scheme:                   scheme,
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	args := env.ControlPlane.GetAPIServer().Configure()
	certs, err := os.MkdirTemp("", "kubevfio-frontproxy-")
	if err != nil {
		return nil, err
	}
	proxy, err := frontProxy(certs)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(certs))
	}
	for k, v := range proxy {
		args.Set(k, v)
	}
	for k, v := range flags {
		args.Set(k, v)
	}
	config, err := env.Start()
	// Links only, and both programs run by now.
	if err := errors.Join(err, os.RemoveAll(assets)); err != nil {
		err = errors.Join(err, os.RemoveAll(certs))
		return nil, fmt.Errorf("start kube-apiserver and etcd: %w", err)
	}
	config.QPS, config.Burst = -1, 0
	s := &Server{Checkout: checkout, Config: config, Scheme: scheme, env: env, certs: certs}
	if s.Admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Stop ends both processes.
func (s *Server) Stop() error { return errors.Join(s.env.Stop(), os.RemoveAll(s.certs)) }

// As is a client that acts for another user.
func (s *Server) As(user rest.ImpersonationConfig) (client.Client, error) {
	config := rest.CopyConfig(s.Config)
	config.Impersonate = user
	return client.New(config, client.Options{Scheme: s.Scheme})
}

// Kustomize builds a kustomization of this repository, by its path below the root.
func (s *Server) Kustomize(path string) ([]*unstructured.Unstructured, error) {
	k := krusty.MakeKustomizer(krusty.MakeDefaultOptions())
	m, err := k.Run(filesys.MakeFsOnDisk(), filepath.Join(s.Checkout, path))
	if err != nil {
		return nil, fmt.Errorf("kustomize %s: %w", path, err)
	}
	text, err := m.AsYaml()
	if err != nil {
		return nil, fmt.Errorf("kustomize %s: %w", path, err)
	}
	return Decode(text)
}

// Decode splits a YAML stream into objects.
func Decode(text []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	dec := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		switch err := dec.Decode(o); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, err
		case len(o.Object) > 0:
			objects = append(objects, o)
		}
	}
}

// Apply creates what kustomization path builds and keep accepts (nil: all),
// strictly: unknown fields are errors. CRDs are waited for; objects that exist
// already are left alone.
func (s *Server) Apply(ctx context.Context, path string, keep func(*unstructured.Unstructured) bool) error {
	objects, err := s.Kustomize(path)
	if err != nil {
		return err
	}
	strict := client.WithFieldValidation(s.Admin, "Strict")
	for _, o := range objects {
		if keep != nil && !keep(o) {
			continue
		}
		err := poll(ctx, 20*time.Second, func() error {
			// A CRD's endpoint appears a moment after the CRD.
			return strict.Create(ctx, o.DeepCopy())
		}, func(err error) bool {
			return apierrors.IsNotFound(err) || meta.IsNoMatchError(err)
		})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// poll repeats do while it returns an error that again accepts, for at most limit.
func poll(ctx context.Context, limit time.Duration, do func() error, again func(error) bool) error {
	deadline := time.Now().Add(limit)
	for {
		err := do()
		if err == nil || !again(err) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: after %v: %w", ErrNotReady, limit, err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func checkoutRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the working directory: run the tests inside the checkout")
		}
		dir = up
	}
}

// build links a main package into the cache. Go itself sees when nothing changed
// and then leaves the file alone, within seconds.
func build(checkout, name, pkg string, progress io.Writer) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "kubevfio", "integration")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// Test binaries of several packages run at the same time.
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	target := filepath.Join(dir, name)
	start := time.Now()
	cmd := exec.Command("go", "build", "-tags=grpcnotrace", "-ldflags=-s -w", "-o", target, pkg)
	cmd.Dir = checkout
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	_, err = fmt.Fprintf(progress, "%s ready in %.0f s\n", name, time.Since(start).Seconds())
	return target, err
}
