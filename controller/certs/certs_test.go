package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

const webhooks = "test-webhooks"

// rig is a manager with a clock of its own and a caller that trusts what is
// published.
type rig struct {
	t      *testing.T
	client client.Client
	now    time.Time
	m      *Manager
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: time.Now()}
	r.client = fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(&admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: webhooks},
		Webhooks:   []admissionv1.ValidatingWebhook{{Name: "a.example.com"}, {Name: "b.example.com"}},
	}).Build()
	r.m = r.manager()
	return r
}

func (r *rig) manager() *Manager {
	return New(Options{
		Client: r.client, Secret: client.ObjectKey{Namespace: "system", Name: "serving"}, Names: ServiceNames("svc", "system"),
		AuthorityLife: 90 * 24 * time.Hour, Life: 9 * 24 * time.Hour,
		Publish: []Publisher{ForValidatingWebhooks(r.client, webhooks), ForValidatingWebhooks(r.client, "absent")},
		Now:     func() time.Time { return r.now }, Log: logr.Discard(),
	})
}

func (r *rig) ensure() {
	r.t.Helper()
	if err := r.m.Ensure(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) published() []byte {
	r.t.Helper()
	var c admissionv1.ValidatingWebhookConfiguration
	if err := r.client.Get(r.t.Context(), client.ObjectKey{Name: webhooks}, &c); err != nil {
		r.t.Fatal(err)
	}
	if string(c.Webhooks[0].ClientConfig.CABundle) != string(c.Webhooks[1].ClientConfig.CABundle) {
		r.t.Error("the webhooks trust different authorities")
	}
	return c.Webhooks[0].ClientConfig.CABundle
}

// call makes a TLS connection as a caller who trusts bundle.
func (r *rig) call(bundle []byte) (*x509.Certificate, error) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle)
	a, b := net.Pipe()
	server := tls.Server(a, &tls.Config{GetCertificate: r.m.GetCertificate, Time: func() time.Time { return r.now }})
	go func() { _, _ = io.Copy(io.Discard, server); _ = a.Close() }()
	c := tls.Client(b, &tls.Config{RootCAs: pool, ServerName: "svc.system.svc", Time: func() time.Time { return r.now }})
	defer b.Close()
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

func TestBeforeTheFirstCheck(t *testing.T) {
	r := newRig(t)
	if _, err := r.m.GetCertificate(nil); !errors.Is(err, ErrNotReady) {
		t.Errorf("error = %v", err)
	}
}

// Over a year of daily checks every caller, even one that learns of authorities a
// check late, can connect; certificate and authority change many times.
func TestRenewalOverAYear(t *testing.T) {
	r := newRig(t)
	r.ensure()
	certs, authorities := map[string]bool{}, map[string]bool{}
	for range 365 {
		r.now = r.now.Add(24 * time.Hour)
		before := r.published()
		r.ensure()
		for _, bundle := range [][]byte{before, r.published()} {
			c, err := r.call(bundle)
			if err != nil {
				t.Fatalf("at %s: %v", r.now, err)
			}
			certs[c.SerialNumber.String()], authorities[c.Issuer.String()] = true, true
		}
	}
	if len(certs) < 50 || len(authorities) < 5 {
		t.Errorf("%d certificates and %d authorities in a year", len(certs), len(authorities))
	}
}

// A second replica takes what the first one made, and a restarted one too.
func TestReplicasShare(t *testing.T) {
	r := newRig(t)
	r.ensure()
	first, err := r.call(r.published())
	if err != nil {
		t.Fatal(err)
	}
	r.m = r.manager()
	r.ensure()
	second, err := r.call(r.published())
	if err != nil || !first.Equal(second) {
		t.Errorf("another certificate (%v)", err)
	}
}

// Broken Secrets are made good.
func TestRepair(t *testing.T) {
	for name, breakIt := range map[string]func(map[string][]byte){
		"no certificate": func(d map[string][]byte) { delete(d, corev1.TLSCertKey) },
		"rubbish":        func(d map[string][]byte) { d[CACert] = []byte("rubbish") },
		"foreign key":    func(d map[string][]byte) { d[CAKey] = d[corev1.TLSPrivateKeyKey] },
		"empty":          func(d map[string][]byte) { clear(d) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.ensure()
			var s corev1.Secret
			key := client.ObjectKey{Namespace: "system", Name: "serving"}
			if err := r.client.Get(t.Context(), key, &s); err != nil {
				t.Fatal(err)
			}
			breakIt(s.Data)
			if err := r.client.Update(t.Context(), &s); err != nil {
				t.Fatal(err)
			}
			r.ensure()
			if _, err := r.call(r.published()); err != nil {
				t.Error(err)
			}
		})
	}
}
