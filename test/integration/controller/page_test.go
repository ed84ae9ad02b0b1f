package controller

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
	"github.com/kubevfio/kubevfio/controller/app"
	"github.com/kubevfio/kubevfio/controller/page"
)

// metricsAddress is where the controller of the tests serves metrics and the page.
var metricsAddress string

// freeAddress is a port of the loopback address that nobody listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// token is that of a service account with a ClusterRole; none when role is empty.
func token(t *testing.T, role string) string {
	t.Helper()
	ns := newNamespace(t)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "reader"}}
	if err := server.Admin.Create(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	if role != "" {
		b := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: ns},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: account.Name}},
		}
		if err := server.Admin.Create(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	kube, err := kubernetes.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	made, err := kube.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made.Status.Token
}

// The page is behind the authentication and authorization of the API server, and shows
// what is there.
func TestPage(t *testing.T) {
	inv := &v1alpha1.NodeInventory{ObjectMeta: metav1.ObjectMeta{Name: "page-node"}}
	inv.Spec.Attachments = []v1alpha1.Attachment{{Name: "pci0000:10"}}
	inv.Spec.Units = []v1alpha1.InventoryUnit{{ID: "0000:11:00.0"}}
	inv.Spec.Kinds = []v1alpha1.DeviceKind{{Vendor: "10de", Device: "2335", Class: "030200"}}
	if err := server.Admin.Create(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Admin.Delete(context.Background(), inv); err != nil {
			t.Error(err)
		}
	})
	vm := newMachine(t, newNamespace(t), "shown", v1alpha1.RunHalted)
	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	get := func(ctx context.Context, path, token string) (int, string, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+metricsAddress+app.PagePath+path, nil)
		if err != nil {
			return 0, "", err
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := browser.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text), err
	}
	allowed, stranger := token(t, "kubevfio-page"), token(t, "")
	eventually(t, "the page", func(ctx context.Context) error {
		code, text, err := get(ctx, "/", allowed)
		if err == nil && (code != http.StatusOK || !strings.Contains(text, "KubeVFIO")) {
			err = fmt.Errorf("%d: %s", code, text)
		}
		return err
	})
	// That a token which is none is an error of the server is the filter's own idea.
	for _, path := range []string{"/", "/model.json", "/nodes/page-node.svg"} {
		for who, c := range map[string]struct {
			token string
			want  int
		}{"anonymous": {"", http.StatusUnauthorized}, "nonsense": {"abc", http.StatusInternalServerError}, "stranger": {stranger, http.StatusForbidden}} {
			if code, text, err := get(t.Context(), path, c.token); err != nil || code != c.want {
				t.Errorf("%s at %s: %d, %v, want %d: %s", who, path, code, err, c.want, text)
			}
		}
	}
	eventually(t, "the model", func(ctx context.Context) error {
		_, text, err := get(ctx, "/model.json", allowed)
		if err != nil {
			return err
		}
		var m page.Model
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			return fmt.Errorf("%w: %s", err, text)
		}
		for _, n := range m.Nodes {
			if n.Name != inv.Name || len(n.Units) != 1 {
				continue
			}
			for _, machine := range m.Machines {
				if machine.Namespace == vm.Namespace && machine.Name == vm.Name && machine.Status == v1alpha1.VMStopped {
					return nil
				}
			}
		}
		return fmt.Errorf("node or machine is missing: %s", text)
	})
}
