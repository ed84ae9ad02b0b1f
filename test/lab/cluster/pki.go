package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is a certificate authority of the lab.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// identity is a certificate with its key, as PEM.
type identity struct{ cert, key []byte }

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func template(name string, orgs []string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: orgs},
		// The node's clock may lag the host's by the time of its boot.
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(30 * 24 * time.Hour),
	}, nil
}

func newAuthority(name string) (*authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	t, err := template(name, nil)
	if err != nil {
		return nil, err
	}
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key}, nil
}

func (a *authority) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func keyPEM(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// client issues a client certificate: name is the user, orgs are the groups.
func (a *authority) client(name string, orgs ...string) (identity, error) {
	return a.issue(name, orgs, x509.ExtKeyUsageClientAuth, nil)
}

// server issues a serving certificate for DNS names and addresses.
func (a *authority) server(name string, orgs []string, hosts ...string) (identity, error) {
	return a.issue(name, orgs, x509.ExtKeyUsageServerAuth, hosts)
}

func (a *authority) issue(name string, orgs []string, usage x509.ExtKeyUsage, hosts []string) (identity, error) {
	key, err := newKey()
	if err != nil {
		return identity{}, err
	}
	t, err := template(name, orgs)
	if err != nil {
		return identity{}, err
	}
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{usage}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return identity{}, err
	}
	k, err := keyPEM(key)
	return identity{cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key: k}, err
}

// Users of the control plane, as Kubernetes' own bootstrap roles know them.
const (
	userAdmin      = "kubernetes-admin"
	userController = "system:kube-controller-manager"
	userScheduler  = "system:kube-scheduler"
	userProxy      = "system:kube-proxy"
	userKubelet    = "kube-apiserver-kubelet-client"
	userFrontProxy = "front-proxy-client"
)

// pki is all key material of a lab.
type pki struct {
	ca, frontCA *authority
	// files are by name: ca.crt, ca.key, apiserver.crt, …
	files map[string][]byte
	// clients are by user name.
	clients map[string]identity
	// kubelets are the serving certificates by node name.
	kubelets map[string]identity
}

// newPKI makes two authorities (one for the cluster, one for the aggregation layer's front proxy) and every certificate.
func newPKI(nodes []nodeSpec) (*pki, error) {
	p := &pki{files: map[string][]byte{}, clients: map[string]identity{}, kubelets: map[string]identity{}}
	var err error
	if p.ca, err = newAuthority("kubevfio-lab-ca"); err != nil {
		return nil, err
	}
	if p.frontCA, err = newAuthority("kubevfio-lab-front-proxy-ca"); err != nil {
		return nil, err
	}
	caKey, err := keyPEM(p.ca.key)
	if err != nil {
		return nil, err
	}
	p.files["ca.crt"], p.files["ca.key"], p.files["front-proxy-ca.crt"] = p.ca.certPEM(), caKey, p.frontCA.certPEM()

	sa, err := newKey()
	if err != nil {
		return nil, err
	}
	if p.files["sa.key"], err = keyPEM(sa); err != nil {
		return nil, err
	}
	pub, err := x509.MarshalPKIXPublicKey(sa.Public())
	if err != nil {
		return nil, err
	}
	p.files["sa.pub"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})

	add := func(name string, id identity, err error) error {
		if err != nil {
			return fmt.Errorf("certificate %s: %w", name, err)
		}
		p.files[name+".crt"], p.files[name+".key"] = id.cert, id.key
		return nil
	}
	id, err := p.ca.server("kube-apiserver", nil, "localhost", "127.0.0.1", gateway, serviceAPI,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err := add("apiserver", id, err); err != nil {
		return nil, err
	}
	id, err = p.frontCA.client(userFrontProxy)
	if err := add("front-proxy-client", id, err); err != nil {
		return nil, err
	}
	id, err = p.ca.client(userKubelet)
	if err := add("apiserver-kubelet-client", id, err); err != nil {
		return nil, err
	}

	users := map[string][]string{userAdmin: {"system:masters"}, userController: nil, userScheduler: nil, userProxy: nil}
	for _, n := range nodes {
		users["system:node:"+n.Name] = []string{"system:nodes"}
	}
	for user, groups := range users {
		if p.clients[user], err = p.ca.client(user, groups...); err != nil {
			return nil, err
		}
	}
	for _, n := range nodes {
		if p.kubelets[n.Name], err = p.ca.server("system:node:"+n.Name, []string{"system:nodes"}, n.Name, n.IP.String()); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// write puts the control plane's files into dir.
func (p *pki) write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, data := range p.files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
