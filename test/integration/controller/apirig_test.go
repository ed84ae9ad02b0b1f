package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	clientwebsocket "k8s.io/client-go/transport/websocket"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

// certificateLife is short, so that certificates change while the tests run.
const certificateLife = 24 * time.Second

// apiAddress is where the controller of the tests serves its API.
var apiAddress string

// guests stand for the launchers that are not there.
var guests = &fakeGuests{}

// fakeGuests answers as a launcher's proxy would.
type fakeGuests struct {
	mu    sync.Mutex
	calls []string
	fail  error
}

func (f *fakeGuests) Do(_ context.Context, pod *corev1.Pod, args ...string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, pod.Name+" "+strings.Join(args, " "))
	return []byte(`{"said":"` + args[0] + `"}`), f.fail
}

// Stream sends back what comes, in upper case, to the end of its input.
func (f *fakeGuests) Stream(_ context.Context, _ *corev1.Pod, in io.Reader, out io.Writer, args ...string) error {
	f.mu.Lock()
	fail := f.fail
	f.calls = append(f.calls, strings.Join(args, " "))
	f.mu.Unlock()
	if fail != nil {
		return fail
	}
	buf := make([]byte, 512)
	for {
		n, err := in.Read(buf)
		if _, werr := out.Write(bytes.ToUpper(buf[:n])); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (f *fakeGuests) failing(t *testing.T, err error) {
	f.mu.Lock()
	f.fail = err
	f.mu.Unlock()
	t.Cleanup(func() {
		f.mu.Lock()
		f.fail = nil
		f.mu.Unlock()
	})
}

// serveAPI makes a service that leads to this process, and the APIService.
func serveAPI(ctx context.Context) (err error) {
	if apiAddress, err = freeAddress(); err != nil {
		return err
	}
	_, text, err := net.SplitHostPort(apiAddress)
	if err != nil {
		return err
	}
	port, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return err
	}
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "kubevfio-api"}}
	s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "localhost"
	s.Spec.Ports = []corev1.ServicePort{{Port: int32(port)}}
	if err := server.Admin.Create(ctx, s); err != nil {
		return err
	}
	objects, err := server.Kustomize("manifests/controller")
	if err != nil {
		return err
	}
	for _, o := range objects {
		if o.GetKind() != "APIService" {
			continue
		}
		if err := unstructured.SetNestedField(o.Object, port, "spec", "service", "port"); err != nil {
			return err
		}
		return server.Admin.Create(ctx, o)
	}
	return errors.New("there is no APIService in the manifests")
}

// edit are the roles that Kubernetes' own edit includes; the controller that adds
// them to it does not run here. The first are those of view.
var edit = []string{"kubevfio-view", "kubevfio-edit"}

// caller is a user with RoleBindings in a namespace.
func caller(t *testing.T, ns, name string, roles ...string) *rest.Config {
	t.Helper()
	for _, role := range roles {
		b := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: name + "-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}},
		}
		if err := server.Admin.Create(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	cfg := rest.CopyConfig(server.Config)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: []string{"system:authenticated"}}
	return cfg
}

// call makes a request of the API server.
func call(ctx context.Context, cfg *rest.Config, method, path, body string) (int, string, error) {
	transport, err := rest.TransportFor(cfg)
	if err != nil {
		return 0, "", err
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(cfg.Host, "/")+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func pathOf(ns, resource, name, sub string) string {
	return "/apis/" + subresourcesv1alpha1.GroupVersion + "/namespaces/" + ns + "/" + resource + "/" + name + "/" + sub
}

// waitAPI waits until the API server sends requests here.
func waitAPI(t *testing.T) {
	t.Helper()
	eventually(t, "the API is available", func(ctx context.Context) error {
		code, text, err := call(ctx, server.Config, http.MethodGet, "/apis/"+subresourcesv1alpha1.GroupVersion, "")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d: %s", code, text)
		}
		return err
	})
}

func put(t *testing.T, cfg *rest.Config, ns, resource, name, sub, body string, want int, says ...string) {
	t.Helper()
	code, text, err := call(t.Context(), cfg, http.MethodPut, pathOf(ns, resource, name, sub), body)
	if err != nil || code != want || !contains(text, says...) {
		t.Fatalf("%s %s: %d, %v, want %d with %q: %s", sub, name, code, err, want, says, text)
	}
}

// dial opens a stream as somebody.
func dial(ctx context.Context, cfg *rest.Config, path string) (*websocket.Conn, error) {
	rt, holder, err := clientwebsocket.RoundTripperFor(cfg)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(cfg.Host, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	return clientwebsocket.Negotiate(rt, holder, r, subresourcesv1alpha1.Plain)
}

func echo(conn *websocket.Conn, say string) error {
	if err := conn.WriteMessage(websocket.BinaryMessage, []byte(say)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	_, got, err := conn.ReadMessage()
	if err == nil && string(got) != strings.ToUpper(say) {
		err = fmt.Errorf("said %q, heard %q", say, got)
	}
	return err
}
