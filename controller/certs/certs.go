package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ErrNotReady says that there is no certificate yet.
var ErrNotReady = errors.New("there is no serving certificate yet")

// CACert and CAKey are the keys of the Secret beside tls.crt and tls.key.
const (
	CACert = "ca.crt"
	CAKey  = "ca.key"
)

// Publisher tells somebody, such as a webhook configuration, whom to trust. It is
// called at each check with the authorities in PEM, and writes only a change.
type Publisher func(ctx context.Context, bundle []byte) error

// Options of a manager.
type Options struct {
	// Client reads and writes past caches.
	Client client.Client
	// Secret that holds authority and certificate; it is made when it is absent.
	Secret client.ObjectKey
	// Names that the certificate is for, such as [ServiceNames].
	Names []string
	// AuthorityLife and Life are how long an authority and a certificate are
	// valid: 5 years and 90 days when 0. They are renewed when a third is left.
	AuthorityLife, Life time.Duration
	// Check is how often the Secret is looked at; 10 minutes when 0, and never
	// longer than a tenth of Life.
	Check time.Duration
	// Publish are told at each check.
	Publish []Publisher
	// Now is the clock.
	Now func() time.Time
	Log logr.Logger
}

// ServiceNames are the DNS names by which the API server calls a service.
func ServiceNames(service, namespace string) []string {
	return []string{
		service + "." + namespace + ".svc", service + "." + namespace, service,
		service + "." + namespace + ".svc.cluster.local",
	}
}

// Manager keeps one Secret.
type Manager struct {
	o Options

	mu     sync.RWMutex
	cert   *tls.Certificate
	bundle []byte
}

// New makes a manager; it does nothing before [Manager.Start] or [Manager.Ensure].
func New(o Options) *Manager {
	if o.AuthorityLife == 0 {
		o.AuthorityLife = 5 * 365 * 24 * time.Hour
	}
	if o.Life == 0 {
		o.Life = 90 * 24 * time.Hour
	}
	if o.Check == 0 {
		o.Check = 10 * time.Minute
	}
	o.Check = min(o.Check, o.Life/10)
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Manager{o: o}
}

// GetCertificate is for tls.Config. The error is [ErrNotReady].
func (m *Manager) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.cert == nil {
		return nil, ErrNotReady
	}
	return m.cert, nil
}

// Bundle are the authorities to trust, in PEM; nil before the first check.
func (m *Manager) Bundle() []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.bundle
}

// NeedLeaderElection says that every replica serves (controller-runtime).
func (m *Manager) NeedLeaderElection() bool { return false }

// Start checks until the context ends. Failures are logged and tried again.
func (m *Manager) Start(ctx context.Context) error {
	pause := time.Second
	for {
		wait := m.o.Check
		if err := m.Ensure(ctx); err != nil && ctx.Err() == nil {
			m.o.Log.Error(err, "cannot keep the serving certificate, trying again", "secret", m.o.Secret.String(), "after", pause.String())
			wait, pause = min(pause, wait), min(2*pause, time.Minute)
		} else {
			pause = time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Ensure looks once: it reads or makes the Secret, renews what is due, takes the
// certificate into use and publishes the authorities.
func (m *Manager) Ensure(ctx context.Context) error {
	secret, err := m.read(ctx)
	if err != nil {
		return err
	}
	next, changed, err := m.renew(secret.Data)
	if err != nil {
		return err
	}
	if changed {
		secret.Data = next
		if err := m.write(ctx, secret); err != nil {
			return err
		}
		m.o.Log.Info("renewed the serving certificate or its authority", "secret", m.o.Secret.String())
	}
	cert, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("read the certificate of secret %s: %w", m.o.Secret, err)
	}
	m.mu.Lock()
	m.cert, m.bundle = &cert, bytes.Clone(secret.Data[CACert])
	m.mu.Unlock()
	var failures []error
	for _, publish := range m.o.Publish {
		failures = append(failures, publish(ctx, secret.Data[CACert]))
	}
	return errors.Join(failures...)
}

func (m *Manager) read(ctx context.Context) (*corev1.Secret, error) {
	var s corev1.Secret
	err := m.o.Client.Get(ctx, m.o.Secret, &s)
	if apierrors.IsNotFound(err) {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: m.o.Secret.Name, Namespace: m.o.Secret.Namespace},
			Type:       corev1.SecretTypeTLS,
		}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get secret %s: %w", m.o.Secret, err)
	}
	return &s, nil
}

func (m *Manager) write(ctx context.Context, s *corev1.Secret) error {
	var err error
	if s.ResourceVersion == "" {
		err = m.o.Client.Create(ctx, s)
	} else {
		err = m.o.Client.Update(ctx, s) // conflicts when another replica was first
	}
	if err != nil {
		return fmt.Errorf("write secret %s: %w", m.o.Secret, err)
	}
	return nil
}
