package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func parseCert(t *testing.T, b []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatal("no PEM block")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func testPKI(t *testing.T, nodes int) *pki {
	t.Helper()
	p, err := newPKI(Config{Nodes: nodes}.nodes())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCertificatesVerify(t *testing.T) {
	p := testPKI(t, 2)
	pool := func(a *authority) *x509.CertPool {
		out := x509.NewCertPool()
		out.AddCert(a.cert)
		return out
	}
	type cert struct {
		pem  []byte
		ca   *authority
		host string
		use  x509.ExtKeyUsage
		user string
		orgs []string
	}
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for name, c := range map[string]cert{
		"API server by service name":  {p.files["apiserver.crt"], p.ca, "kubernetes.default.svc", server, "kube-apiserver", nil},
		"API server by service IP":    {p.files["apiserver.crt"], p.ca, serviceAPI, server, "kube-apiserver", nil},
		"API server by lab address":   {p.files["apiserver.crt"], p.ca, gateway, server, "kube-apiserver", nil},
		"API server from the host":    {p.files["apiserver.crt"], p.ca, "127.0.0.1", server, "kube-apiserver", nil},
		"front proxy":                 {p.files["front-proxy-client.crt"], p.frontCA, "", client, userFrontProxy, nil},
		"API server towards kubelets": {p.files["apiserver-kubelet-client.crt"], p.ca, "", client, userKubelet, nil},
		"kubelet's serving":           {p.kubelets["node-2"].cert, p.ca, "10.88.0.12", server, "system:node:node-2", []string{"system:nodes"}},
		"kubelet as client":           {p.clients["system:node:node-2"].cert, p.ca, "", client, "system:node:node-2", []string{"system:nodes"}},
		"administrator":               {p.clients[userAdmin].cert, p.ca, "", client, userAdmin, []string{"system:masters"}},
		"scheduler":                   {p.clients[userScheduler].cert, p.ca, "", client, userScheduler, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := parseCert(t, c.pem)
			if _, err := got.Verify(x509.VerifyOptions{Roots: pool(c.ca), DNSName: c.host, KeyUsages: []x509.ExtKeyUsage{c.use}}); err != nil {
				t.Error(err)
			}
			other := p.frontCA
			if c.ca == p.frontCA {
				other = p.ca
			}
			if _, err := got.Verify(x509.VerifyOptions{Roots: pool(other), KeyUsages: []x509.ExtKeyUsage{c.use}}); err == nil {
				t.Error("the other authority vouches for it, too")
			}
			if d := cmp.Diff(c.user, got.Subject.CommonName) + cmp.Diff(c.orgs, got.Subject.Organization); d != "" {
				t.Error(d)
			}
		})
	}
}

// A kubeconfig must carry everything that mutual TLS needs.
func TestKubeconfigConnects(t *testing.T) {
	p := testPKI(t, 1)
	if _, err := p.kubeconfig("nobody", ""); err == nil {
		t.Fatal("a kubeconfig for a user without certificate")
	}
	pair, err := tls.X509KeyPair(p.files["apiserver.crt"], p.files["apiserver.key"])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(p.ca.cert)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			http.Error(w, "nothing here", http.StatusNotFound)
			return
		}
		if _, err := w.Write([]byte(`{"user":"` + r.TLS.PeerCertificates[0].Subject.CommonName + `"}`)); err != nil {
			t.Error(err)
		}
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	srv.StartTLS()
	defer srv.Close()

	b, err := p.kubeconfig(userAdmin, srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	var kc struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(b, &kc); err != nil {
		t.Fatal(err)
	}
	c, err := newREST(kc.Clusters[0].Cluster.Server, kc.Clusters[0].Cluster.CA, identity{kc.Users[0].User.Cert, kc.Users[0].User.Key})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := c.get(t.Context(), "/", &got); err != nil {
		t.Fatal(err)
	}
	if got["user"] != userAdmin {
		t.Fatalf("served as %q", got["user"])
	}
	if err := c.get(t.Context(), "/missing", nil); err == nil || !strings.Contains(err.Error(), "nothing here") {
		t.Fatalf("an error status became %v", err)
	}
}
