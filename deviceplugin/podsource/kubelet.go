package podsource

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kubevfio/kubevfio/deviceplugin/handoff"
)

// ErrKubelet is the class of errors about kubelet's own API.
var ErrKubelet = errors.New("kubelet's API")

// Limit bounds one reading of kubelet's list.
const Limit = 500 * time.Millisecond

// Kubelet reads kubelet's authenticated API on its node.
type Kubelet struct {
	base   string
	token  func() (string, error)
	client *http.Client
	reader *podReader
	// body is the last list's memory: half a megabyte and more, read twice per
	// admission, that would cost a garbage collection every few calls.
	body atomic.Pointer[bytes.Buffer]
}

// NewKubelet makes a client of https://address (host:port) with the token that a
// file holds; the file is read for each call, for kubelet renews it. caFile is
// the authority of kubelet's serving certificate; empty accepts any, for kubelet
// signs its own unless told otherwise (the token is bound to this node's pod, and
// the address is this node's own).
func NewKubelet(address, tokenFile, caFile string) (*Kubelet, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		conf.InsecureSkipVerify = true
	} else {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("%w: authority of its certificate: %w", ErrKubelet, err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: %s holds no certificate", ErrKubelet, caFile)
		}
	}
	return &Kubelet{
		base: "https://" + address,
		token: func() (string, error) {
			b, err := os.ReadFile(tokenFile)
			return strings.TrimSpace(string(b)), err
		},
		client: &http.Client{Transport: &http.Transport{
			TLSClientConfig: conf, MaxIdleConns: 2, IdleConnTimeout: 5 * time.Minute,
			// A transport with a TLS configuration of its own speaks HTTP/1.1 otherwise, and
			// loses its connection with every call whose time is over: the next one then
			// pays for a handshake, which takes longest where time is shortest.
			ForceAttemptHTTP2: true,
		}},
		reader: newPodReader(),
	}, nil
}

// Get reads a path of kubelet's API.
func (k *Kubelet) Get(ctx context.Context, path string) ([]byte, error) {
	var body bytes.Buffer
	if err := k.get(ctx, path, &body); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}

func (k *Kubelet) get(ctx context.Context, path string, body *bytes.Buffer) error {
	token, err := k.token()
	if err != nil {
		return fmt.Errorf("%w: read token: %w", ErrKubelet, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+path, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKubelet, err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := k.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKubelet, err)
	}
	defer resp.Body.Close()
	if _, err := body.ReadFrom(io.LimitReader(resp.Body, 64<<20)); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrKubelet, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s: %s: %.200s", ErrKubelet, path, resp.Status, body.Bytes())
	}
	return nil
}

// Pods implements handoff.Source within [Limit].
func (k *Kubelet) Pods(ctx context.Context) ([]handoff.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	body := k.body.Swap(nil)
	if body == nil { // the first call, or one beside another
		body = &bytes.Buffer{}
	}
	defer k.body.Store(body)
	body.Reset()
	if err := k.get(ctx, "/pods", body); err != nil {
		return nil, err
	}
	return k.reader.read(body.Bytes())
}
