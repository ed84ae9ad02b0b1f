package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// skew is how much a caller's clock may be behind.
const skew = 5 * time.Minute

// pair is a certificate and its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// renew gives a Secret's data with what is missing, broken or due made anew.
func (m *Manager) renew(data map[string][]byte) (next map[string][]byte, changed bool, err error) {
	now := m.o.Now()
	next = maps.Clone(data)
	if next == nil {
		next = map[string][]byte{}
	}
	authority, old, err := readAuthority(next)
	fresh := err == nil && !due(authority.cert, now)
	// signer is the authority that callers know.
	signer := authority
	if !fresh {
		authority, err = m.issue(nil)
		if err != nil {
			return nil, false, err
		}
		if signer == nil || now.After(signer.cert.NotAfter) {
			signer = authority
		}
		bundle := encodeCert(authority.cert)
		for _, c := range old {
			// The former ones stay trusted while certificates of theirs are served.
			if c.NotAfter.After(now) && len(bundle) < 64<<10 {
				bundle = append(bundle, encodeCert(c)...)
			}
		}
		next[CACert] = bundle
		if next[CAKey], err = encodeKey(authority.key); err != nil {
			return nil, false, err
		}
		changed = true
	}
	serving, trusted := m.serving(next, now)
	switch {
	case serving != nil && trusted && !due(serving, now) && (!fresh || serving.CheckSignatureFrom(authority.cert) == nil):
		// Good; or good still, and the new authority has to become known first.
		return next, changed, nil
	}
	leaf, err := m.issue(signer)
	if err != nil {
		return nil, false, err
	}
	next[corev1.TLSCertKey] = encodeCert(leaf.cert)
	if next[corev1.TLSPrivateKeyKey], err = encodeKey(leaf.key); err != nil {
		return nil, false, err
	}
	return next, true, nil
}

// due tells whether a certificate is over or a third of its life is left.
func due(c *x509.Certificate, now time.Time) bool {
	life := c.NotAfter.Sub(c.NotBefore.Add(skew))
	return now.Before(c.NotBefore) || now.After(c.NotAfter.Add(-life/3))
}

// serving is the Secret's certificate, nil when it cannot be used; trusted tells
// whether an authority of the Secret signed it for the names.
func (m *Manager) serving(data map[string][]byte, now time.Time) (c *x509.Certificate, trusted bool) {
	p, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, false
	}
	if c, err = x509.ParseCertificate(p.Certificate[0]); err != nil {
		return nil, false
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data[CACert])
	_, err = c.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now})
	return c, err == nil && slices.Equal(c.DNSNames, m.o.Names)
}

// readAuthority reads the current authority, the first of the bundle, and all of
// the bundle.
func readAuthority(data map[string][]byte) (*pair, []*x509.Certificate, error) {
	var list []*x509.Certificate
	for rest := data[CACert]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return nil, nil, errors.New("no authority")
	}
	block, _ := pem.Decode(data[CAKey])
	if block == nil {
		return nil, list, errors.New("no key of the authority")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, list, fmt.Errorf("read the authority's key: %w", err)
	}
	if public, ok := list[0].PublicKey.(*ecdsa.PublicKey); !ok || !key.PublicKey.Equal(public) {
		return nil, list, errors.New("the authority's key is another's")
	}
	return &pair{list[0], key}, list, nil
}

// issue makes a certificate signed by an authority, or an authority when it is
// nil.
func (m *Manager) issue(authority *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	now := m.o.Now()
	t := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-skew),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	signer := &pair{t, key}
	if authority == nil {
		// The number tells authorities apart that have the same name otherwise.
		t.Subject = pkix.Name{CommonName: fmt.Sprintf("%s-ca@%d", m.o.Secret.Name, now.Unix()), SerialNumber: serial.Text(16)}
		t.NotAfter = now.Add(m.o.AuthorityLife)
		t.IsCA, t.BasicConstraintsValid = true, true
		t.KeyUsage |= x509.KeyUsageCertSign
	} else {
		signer = authority
		t.Subject = pkix.Name{CommonName: m.o.Names[0]}
		t.DNSNames = m.o.Names
		t.NotAfter = now.Add(m.o.Life)
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, signer.cert, &key.PublicKey, signer.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the new certificate: %w", err)
	}
	return &pair{cert, key}, nil
}

func encodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func encodeKey(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}); err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return b.Bytes(), nil
}
