package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certutil "k8s.io/client-go/util/cert"

	"github.com/kubevfio/kubevfio/deviceplugin/metrics"
)

// certificate makes one for 127.0.0.1 and returns its files and who trusts it.
func certificate(t *testing.T) (cert, key string, trusts *x509.CertPool) {
	t.Helper()
	certPEM, keyPEM, err := certutil.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, b := range map[string][]byte{cert: certPEM, key: keyPEM} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trusts = x509.NewCertPool()
	trusts.AppendCertsFromPEM(certPEM)
	return cert, key, trusts
}

// Metrics and probes are served in the clear, or by TLS alone where a certificate is
// given; a bad certificate is an error and not a fall-back.
func TestServeMetrics(t *testing.T) {
	cert, key, trusts := certificate(t)
	serve := func(cfg Config) (address string, ended <-chan error) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Metrics = l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		a := &Agent{cfg: cfg, metrics: metrics.New("test")}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		stopped := make(chan struct{})
		go func() { done <- a.serveMetrics(ctx); close(stopped) }()
		t.Cleanup(func() { cancel(); <-stopped })
		return cfg.Metrics, done
	}
	get := func(c *http.Client, url string) (int, string, error) {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			resp, err := c.Get(url)
			if err != nil {
				if strings.Contains(err.Error(), "refused") && time.Now().Before(deadline) {
					continue
				}
				return 0, "", err
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			return resp.StatusCode, string(b), err
		}
	}
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusts}}}

	plain, _ := serve(Config{})
	if code, text, err := get(http.DefaultClient, "http://"+plain+"/metrics"); err != nil || code != http.StatusOK || !strings.Contains(text, "kubevfio_agent_paused") {
		t.Errorf("metrics: %d, %v: %.200s", code, err, text)
	}
	if code, _, err := get(http.DefaultClient, "http://"+plain+"/readyz"); err != nil || code != http.StatusServiceUnavailable {
		t.Errorf("readyz of an agent that has not begun: %d, %v", code, err)
	}
	if code, _, err := get(http.DefaultClient, "http://"+plain+"/other"); err != nil || code != http.StatusNotFound {
		t.Errorf("another path: %d, %v", code, err)
	}

	tlsOnly, _ := serve(Config{CertFile: cert, KeyFile: key})
	if code, text, err := get(secure, "https://"+tlsOnly+"/metrics"); err != nil || code != http.StatusOK || !strings.Contains(text, "kubevfio_agent_paused") {
		t.Errorf("metrics by TLS: %d, %v: %.200s", code, err, text)
	}
	if code, text, err := get(http.DefaultClient, "http://"+tlsOnly+"/metrics"); err == nil && code == http.StatusOK {
		t.Errorf("metrics in the clear beside TLS: %.100s", text)
	}
	if _, _, err := get(http.DefaultClient, "https://"+tlsOnly+"/metrics"); err == nil {
		t.Error("a caller who does not trust the certificate was served")
	}

	_, ended := serve(Config{CertFile: cert, KeyFile: filepath.Join(t.TempDir(), "absent")})
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "absent") {
			t.Errorf("a key that is not there: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a key that is not there is no error")
	}
}
